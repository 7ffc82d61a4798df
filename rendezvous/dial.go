package rendezvous

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/fnwire/fnwire/internal/proxy"
)

// InProcess is a NATS server in the same process, such as *server.Server or a nats-server.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

const (
	connectTimeout = 5 * time.Second  // of TCP, of which a server that is down takes all before the next of a list is tried
	helloTimeout   = 10 * time.Second // of NATS' handshake after that: two round trips, or three with TLS, and what is lost is sent again after 1 s, then 2 s
	pingInterval   = 10 * time.Second // two missed pongs and the connection is given up
	clientPing     = 2 * time.Minute  // the same for a [Client], whose renewals and requests show it sooner
	reconnectMin   = 50 * time.Millisecond
	reconnectMax   = 2 * time.Second
)

// natsConfig is what connect needs to know.
type natsConfig struct {
	url, creds string
	inProcess  InProcess
	proxy      proxy.Find         // for WebSocket; nil: that of the environment
	name       string             // shown by the server's monitoring
	inbox      string             // prefix of reply subjects
	ping       time.Duration      // 0 = pingInterval
	nkey       ed25519.PrivateKey // signs the server's nonce unless creds or the URL say who we are
	options    []nats.Option
}

// CheckURL returns an error unless s names NATS servers: one or more of HOST[:PORT], nats://, tls://, ws:// or wss://.
func CheckURL(s string) error {
	for one := range strings.SplitSeq(s, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err == nil && slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) && u.Hostname() != "" &&
			(strings.Count(u.Host, ":") < 2 || u.Host[0] == '[') { // of IPv6
			continue
		}
		return fmt.Errorf("rendezvous: URL %s: want nats://HOST:PORT, or tls://, ws:// or wss:// (several with commas between)", RedactURL(one))
	}
	return nil
}

// connect makes one NATS connection that lives until it is closed. ctx bounds the first attempt only.
func connect(ctx context.Context, c natsConfig) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(c.name),
		nats.CustomInboxPrefix(c.inbox),
		nats.PingInterval(cmp.Or(c.ping, pingInterval)), nats.MaxPingsOutstanding(2),
		nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.ReconnectBufSize(1 << 20),
		nats.SkipHostLookup(), // the dialer does it, under ctx
	}
	opts = append(opts, c.options...)
	withKey := false
	switch {
	case c.creds != "":
		opts = append(opts, nats.UserCredentials(c.creds))
	case !hasUser(c.url) && c.nkey != nil:
		withKey = true
		opt, err := nkeyOption(c.nkey)
		if err != nil {
			return nil, err
		}
		opts = append(opts, opt)
	}
	nc, err := connectOnce(ctx, c, opts)
	// A NATS that asks nobody who he is takes no key. Of several servers that do not, nats.go tells only if the last it tried is one.
	if withKey && (errors.Is(err, nats.ErrNkeysNotSupported) || err != nil && !isAuthError(err) && strings.Contains(c.url, ",")) {
		if keyless, kerr := connectOnce(ctx, c, opts[:len(opts)-1]); kerr == nil {
			nc, err = keyless, nil
		}
	}
	// A server that refuses a connection says why and hangs up. Who was writing still does not hear it, and asks again.
	for tries := 0; tries < 3 && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)); tries++ {
		nc, err = connectOnce(ctx, c, opts)
	}
	if err != nil {
		return nil, connectError(ctx, c.url, withKey, err)
	}
	return nc, nil
}

func connectOnce(ctx context.Context, c natsConfig, opts []nats.Option) (*nats.Conn, error) {
	timeout := helloTimeout
	if t, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(t))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d := &dialer{inProcess: c.inProcess, web: webScheme(c.url), proxy: c.proxy}
	d.first.Store(&ctx)
	defer d.first.Store(nil)
	opts = append(opts[:len(opts):len(opts)], nats.Timeout(max(timeout, time.Millisecond)))
	if c.inProcess != nil {
		opts = append(opts, nats.InProcessServer(d))
	} else {
		opts = append(opts, nats.SetCustomDialer(d))
	}
	nc, err := nats.Connect(c.url, opts...)
	if cause := d.failed.Load(); errors.Is(err, nats.ErrNoServers) && cause != nil {
		err = *cause // nats.go keeps to itself why there are none
	}
	return nc, err
}

// dialer ties the connections made while first is set to that context.
type dialer struct {
	inProcess InProcess
	web       string // "http" or "https" for WebSocket, which goes by an HTTP proxy if there is one; else ""
	proxy     proxy.Find
	first     atomic.Pointer[context.Context]
	failed    atomic.Pointer[error] // of the last attempt that did
}

func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	ctx := context.Background()
	if p := d.first.Load(); p != nil {
		ctx = *p
	}
	dialing, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := d.dial(dialing, network, addr)
	if err != nil {
		d.failed.Store(&err)
		return nil, err
	}
	return d.watch(ctx, conn), nil
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.web != "" {
		return proxy.Dial(ctx, d.proxy, d.web, addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// webScheme returns the HTTP scheme of WebSocket URLs, or "". nats.go takes no mixture of these and others.
func webScheme(urls string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(urls), "://")
	return map[string]string{"ws": "http", "wss": "https"}[first]
}

func (d *dialer) InProcessConn() (net.Conn, error) {
	ctx := context.Background()
	if p := d.first.Load(); p != nil {
		ctx = *p
	}
	conn, err := d.inProcess.InProcessConn()
	return d.watch(ctx, conn), err
}

// watch cuts conn off when ctx ends before the connection stands, since NATS' handshake takes no context.
func (d *dialer) watch(ctx context.Context, conn net.Conn) net.Conn {
	if conn == nil || ctx.Done() == nil {
		return conn
	}
	context.AfterFunc(ctx, func() {
		if p := d.first.Load(); p != nil && *p == ctx {
			_ = conn.Close() // the handshake's error tells
		}
	})
	return conn
}

func reconnectDelay(attempts int) time.Duration {
	d := reconnectMin << min(attempts, 8)
	return jitter(min(d, reconnectMax))
}

func hasUser(rawURL string) bool {
	for one := range strings.SplitSeq(rawURL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err == nil && u.User != nil {
			return true
		}
	}
	return false
}

// NatsUser returns the name under which the holder of an Ed25519 key is known to NATS ("U...").
func NatsUser(pub ed25519.PublicKey) (string, error) {
	b, err := nkeys.Encode(nkeys.PrefixByteUser, pub)
	return string(b), err
}

func nkeyOption(key ed25519.PrivateKey) (nats.Option, error) {
	user, err := NatsUser(key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("rendezvous: nkey: %w", err)
	}
	return nats.Nkey(user, func(nonce []byte) ([]byte, error) { return ed25519.Sign(key, nonce), nil }), nil
}

func connectError(ctx context.Context, rawURL string, withKey bool, err error) error {
	at := RedactURL(rawURL)
	switch {
	case isAuthError(err) && withKey:
		return fmt.Errorf("rendezvous: connect to %s: %w: %w (wrong key, or not on the rendezvous' list: start it with --allow or --open): %w",
			at, ErrNotAllowed, ErrUnauthorized, err)
	case isAuthError(err):
		return fmt.Errorf("rendezvous: connect to %s: %w: %w", at, ErrUnauthorized, err)
	case ctx.Err() != nil:
		return fmt.Errorf("rendezvous: connect to %s: %w: %w", at, ErrUnreachable, ctx.Err())
	default:
		return fmt.Errorf("rendezvous: connect to %s: %w: %w", at, ErrUnreachable, err)
	}
}

func isAuthError(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked)
}

// RedactURL takes users, passwords and tokens out of NATS URLs that are to be shown.
func RedactURL(rawURL string) string {
	out := make([]string, 0, 1)
	for one := range strings.SplitSeq(rawURL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			out = append(out, "(unreadable URL)")
			continue
		}
		u.User = nil
		out = append(out, u.String())
	}
	return strings.Join(out, ",")
}
