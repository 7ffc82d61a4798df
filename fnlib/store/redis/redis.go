package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/source"
)

const (
	chunkSize     = 512 << 10 // bytes
	ahead         = 4         // chunks that a Put or a reader has under way
	lease         = time.Hour // of chunks that nobody has put together
	discardWithin = time.Second
	connBuffer    = 64 << 10         // bytes, each way
	ringScale     = 8                // 256 requests under way
	pingEvery     = 15 * time.Second // while nothing is heard
	deadAfter     = 30 * time.Second // without an answer to that
	tries         = 3                // of a request whose connection breaks
	retryAfter    = 50 * time.Millisecond
	defaultPrefix = "fnwire:"
	defaultPort   = "6379"
)

// Store is a database of a Redis server. Its methods may be called concurrently.
type Store struct {
	client  rueidis.Client
	url     string
	prefix  string
	buffers sync.Pool // *[chunkSize]byte
}

var _ store.Store = (*Store)(nil)

// Open connects to the server of a URL redis://USER:PASSWORD@HOST:PORT/DATABASE or rediss://... ErrDenied: the server does not take
// the password.
func Open(ctx context.Context, rawURL string) (*Store, error) {
	opt, s, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	opening := make(chan struct{})
	opt.DialCtxFn = func(dialCtx context.Context, addr string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
		select {
		case <-opening:
			return dial(dialCtx, addr, d, config)
		default:
		}
		conn, err := dial(ctx, addr, d, config)
		if err == nil {
			go closeEarly(ctx, opening, conn)
		}
		return conn, err
	}
	s.client, err = rueidis.NewClient(opt)
	close(opening)
	if ended := ctx.Err(); err == nil && ended != nil {
		s.client.Close()
		err = ended
	}
	if err != nil {
		return nil, s.fail(ctx, "connect", err)
	}
	return s, nil
}

func dial(ctx context.Context, addr string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return d.DialContext(ctx, "tcp", addr)
	}
	return (&tls.Dialer{NetDialer: d, Config: config}).DialContext(ctx, "tcp", addr)
}

// closeEarly makes a handshake end with ctx, of which the client does not know.
func closeEarly(ctx context.Context, opening <-chan struct{}, conn net.Conn) {
	select {
	case <-opening:
	case <-ctx.Done():
		_ = conn.Close()
	}
}

// parse returns how to connect, and a store that lacks only that.
func parse(rawURL string) (opt rueidis.ClientOption, s *Store, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return opt, nil, errors.New("store: the URL of a Redis server cannot be parsed") // the error would quote the password
	}
	bad := func(why string) error {
		return fmt.Errorf("store: %s: %s; want redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss: for TLS", u.Redacted(), why)
	}
	opt = rueidis.ClientOption{
		Dialer: net.Dialer{KeepAlive: pingEvery}, ConnWriteTimeout: deadAfter,
		ForceSingleClient: true, PipelineMultiplex: -1, AlwaysPipelining: true, BlockingPipeline: -1, DisableCache: true,
		ReadBufferEachConn: connBuffer, WriteBufferEachConn: connBuffer, RingScaleEachConn: ringScale,
		RetryDelay: func(attempt int, _ rueidis.Completed, _ error) time.Duration {
			if attempt >= tries {
				return -1
			}
			return retryAfter
		},
	}
	switch u.Scheme {
	case "redis":
	case "rediss":
		opt.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	default:
		return opt, nil, bad("the scheme is not redis or rediss")
	}
	if u.Hostname() == "" || u.Fragment != "" {
		return opt, nil, bad("it names no host, or a fragment")
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	opt.InitAddress = []string{net.JoinHostPort(u.Hostname(), port)}
	if db := strings.TrimPrefix(u.Path, "/"); db != "" {
		if opt.SelectDB, err = strconv.Atoi(db); err != nil || opt.SelectDB < 0 {
			return opt, nil, bad("the database is not a number")
		}
	}
	prefix := defaultPrefix
	for name, values := range u.Query() {
		if name != "prefix" || len(values) != 1 {
			return opt, nil, bad("the option " + name + " is not known, or given twice")
		}
		prefix = values[0]
	}
	opt.Username = u.User.Username()
	opt.Password, _ = u.User.Password()
	u.User = nil
	if opt.Username != "" {
		u.User = url.User(opt.Username)
	}
	s = &Store{url: u.String(), prefix: prefix}
	s.buffers.New = func() any { return new([chunkSize]byte) }
	return opt, s, nil
}

// String returns the URL without the password.
func (s *Store) String() string { return s.url }

// Close closes the connection.
func (s *Store) Close() error {
	s.client.Close()
	return nil
}

// fail says what failed, and of which kind it is.
func (s *Store) fail(ctx context.Context, what string, err error) error {
	var reader *source.Error
	if answer, ok := rueidis.IsRedisErr(err); ok {
		switch word, _, _ := strings.Cut(answer.Error(), " "); word {
		case "OOM":
			err = fmt.Errorf("%w: %w (the server's maxmemory)", store.ErrFull, err)
		case "NOAUTH", "WRONGPASS", "NOPERM":
			err = fmt.Errorf("%w: %w", store.ErrDenied, err)
		case "MOVED", "ASK", "CROSSSLOT":
			err = fmt.Errorf("%w (a cluster, which is not supported)", err)
		}
	} else if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) && !errors.As(err, &reader) {
		err = fmt.Errorf("%w: %w", ended, err)
	}
	return fmt.Errorf("store: %s: %s: %w", s.url, what, err)
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	if err := s.unlink(ctx, s.prefix+key); err != nil {
		return s.fail(ctx, "delete "+key, err)
	}
	return nil
}

func (s *Store) unlink(ctx context.Context, name string) error {
	return s.again(ctx, func() error { return s.do(ctx, s.client.B().Unlink().Key(name).Build()).Error() })
}

// do runs a command. It is pinned: rueidis gives others away for new ones when the answer has come, which its writer may read yet if the
// connection has just broken (found by the race detector, v1.0.79).
func (s *Store) do(ctx context.Context, command rueidis.Completed) rueidis.RedisResult {
	return s.client.Do(ctx, command.Pin())
}

// doMulti runs commands in one go, pinned as do has them.
func (s *Store) doMulti(ctx context.Context, commands ...rueidis.Completed) []rueidis.RedisResult {
	for i, c := range commands {
		commands[i] = c.Pin()
	}
	return s.client.DoMulti(ctx, commands...)
}

// again repeats what may be done twice while connections break under it, as one does that was idle while the process was frozen.
func (s *Store) again(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if _, answered := rueidis.IsRedisErr(err); err == nil || answered || ctx.Err() != nil || try == tries {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
}
