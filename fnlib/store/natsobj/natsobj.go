package natsobj

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/bucket"
)

const (
	chunkSize   = 512 << 10 // bytes; see ARCHITECTURE
	overhead    = 4 << 10   // of a message beside its body, at most
	window      = 8         // chunks that are under way
	cleanWithin = 5 * time.Second
)

// Store is a bucket. Its methods may be called concurrently.
type Store struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	bucket string
	url    string
	chunk  int64

	cleaning sync.WaitGroup // of what writers left that gave up

	mu    sync.Mutex // guards calls
	calls map[*call]struct{}
}

var _ store.Store = (*Store)(nil)

// OfRendezvous is the URL of the store that the rendezvous keeps.
const OfRendezvous = "nats:"

// Rendezvous says whose store is meant by "nats:".
type Rendezvous struct {
	URL    string // NATS servers, separated by commas
	Creds  string // NATS credentials file; empty: the job key vouches for the connection
	JobKey string // 32 bytes in base64
}

// Open connects to a store and makes its bucket if it is not there: "nats:" is that of the rendezvous in the environment (FNWIRE_URL,
// FNWIRE_CREDS, FNWIRE_JOB_KEY), nats://[USER:PASSWORD@]HOST[:PORT]/BUCKET[?replicas=N] and tls:// one on a server of yours.
// It fails at once if nobody answers. ErrDenied: the credentials are refused, or the rendezvous keeps no store.
func Open(ctx context.Context, rawURL string) (*Store, error) {
	if rawURL == OfRendezvous {
		return OpenRendezvous(ctx, Rendezvous{URL: os.Getenv("FNWIRE_URL"), Creds: os.Getenv("FNWIRE_CREDS"), JobKey: os.Getenv("FNWIRE_JOB_KEY")})
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("store: unreadable URL: want nats://HOST:PORT/BUCKET")
	}
	name := strings.TrimPrefix(u.Path, "/")
	replicas, ok := int64(1), true
	if text := u.Query().Get("replicas"); text != "" {
		replicas, ok = number(text, bucket.MaxReplicas)
	}
	options := u.Query()
	options.Del("replicas")
	if u.Scheme != "nats" && u.Scheme != "tls" || u.Host == "" || u.Fragment != "" || len(options) > 0 || !ok || replicas < 1 {
		return nil, fmt.Errorf("store: %s: want nats: or nats://HOST:PORT/BUCKET, with ?replicas=1 to 5 if need be", u.Redacted())
	}
	if err := bucket.CheckName(name); err != nil {
		return nil, fmt.Errorf("store: %s: %w", u.Redacted(), err)
	}
	server := url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host}
	return open(ctx, rendezvous.StoreConfig{URL: server.String()}, name, int(replicas))
}

// OpenRendezvous opens the store that a rendezvous keeps for the job with that key.
func OpenRendezvous(ctx context.Context, r Rendezvous) (*Store, error) {
	if r.URL == "" || r.JobKey == "" {
		return nil, errors.New("store: nats: is the rendezvous' own store, so its URL (FNWIRE_URL) and the job key (FNWIRE_JOB_KEY) are needed")
	}
	key, err := job.ParseKey(r.JobKey)
	if err != nil {
		return nil, fmt.Errorf("store: nats: %w", err)
	}
	s, err := open(ctx, rendezvous.StoreConfig{URL: r.URL, Creds: r.Creds, Key: &key}, bucket.Default, 1)
	if errors.Is(err, store.ErrDenied) {
		return nil, fmt.Errorf("%w (a rendezvous keeps a store if it has --data, or --store-bytes, for as many jobs as there is room for)", err)
	}
	return s, err
}

func open(ctx context.Context, c rendezvous.StoreConfig, name string, replicas int) (_ *Store, err error) {
	s := &Store{bucket: name, calls: make(map[*call]struct{})}
	server, _, _ := strings.Cut(c.URL, ",")
	s.url = strings.TrimSuffix(rendezvous.RedactURL(server), "/") + "/" + name
	c.OnError = s.heard
	if s.nc, err = rendezvous.ConnectStore(ctx, c); err != nil {
		if errors.Is(err, rendezvous.ErrUnauthorized) {
			err = fmt.Errorf("%w: %w", store.ErrDenied, err)
		}
		return nil, fmt.Errorf("store: %s: %w", s.url, err)
	}
	if s.js, err = jetstream.New(s.nc); err == nil {
		err = s.once(ctx, "$JS.API.STREAM.INFO."+bucket.Stream(name), func(ctx context.Context) error { return s.findStream(ctx, replicas) })
	}
	if err != nil {
		s.nc.Close()
		return nil, s.fail(ctx, "open", err)
	}
	s.chunk = min(chunkSize, s.nc.MaxPayload()-overhead)
	return s, nil
}

// findStream looks up the bucket's stream, or makes it.
func (s *Store) findStream(ctx context.Context, replicas int) (err error) {
	name := bucket.Stream(s.bucket)
	s.stream, err = s.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s.stream, err = s.js.CreateStream(ctx, bucket.Config(s.bucket, replicas))
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody else has just made it
			s.stream, err = s.js.Stream(ctx, name)
		}
	}
	if err != nil {
		return err
	}
	if c := s.stream.CachedInfo().Config; !c.AllowMsgTTL || c.MaxMsgsPerSubject != 1 {
		return fmt.Errorf("stream %s is none that fnwire has made, or this NATS server is older than 2.11", name)
	}
	return nil
}

// String returns the URL of the server and the bucket.
func (s *Store) String() string { return s.url }

// Close ends the connection, once what writers left that gave up is removed.
func (s *Store) Close() error {
	s.cleaning.Wait()
	s.nc.Close()
	return nil
}

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	m, o, err := s.look(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if m != nil { // also what cannot be read
		err = s.try(ctx, "$JS.API.STREAM.MSG.DELETE."+bucket.Stream(s.bucket), func(ctx context.Context) error {
			return s.stream.DeleteMsg(ctx, m.Sequence)
		})
	}
	if code(err) == errNoMessage {
		return nil // it was replaced or deleted meanwhile, by who takes care of its chunks
	}
	if err == nil && o.chunk > 0 {
		err = s.purge(ctx, o.id)
	}
	if err != nil {
		return s.fail(ctx, "delete "+key, err)
	}
	return nil
}

// look returns an object's message. It is not nil if there is one, whatever is wrong with it.
func (s *Store) look(ctx context.Context, key string) (*jetstream.RawStreamMsg, object, error) {
	m, err := s.last(ctx, bucket.Object(s.bucket, key))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, object{}, err
	}
	o, err := parseObject(m.Header.Get(headerObject))
	if err == nil && o.chunk == 0 && o.size != int64(len(m.Data)) {
		err = fmt.Errorf("object of %d bytes in a message of %d", o.size, len(m.Data))
	}
	return m, o, err
}

// last returns the message on a subject, or jetstream.ErrMsgNotFound.
func (s *Store) last(ctx context.Context, subject string) (m *jetstream.RawStreamMsg, err error) {
	request := "$JS.API.DIRECT.GET." + bucket.Stream(s.bucket) + "." + subject
	if !s.stream.CachedInfo().Config.AllowDirect {
		request = "$JS.API.STREAM.MSG.GET." + bucket.Stream(s.bucket)
	}
	err = s.try(ctx, request, func(ctx context.Context) error {
		m, err = s.stream.GetLastMsgForSubject(ctx, subject)
		return err
	})
	return m, err
}

// purge removes an object's chunks.
func (s *Store) purge(ctx context.Context, id string) error {
	return s.try(ctx, "$JS.API.STREAM.PURGE."+bucket.Stream(s.bucket), func(ctx context.Context) error {
		return s.stream.Purge(ctx, jetstream.WithPurgeSubject(bucket.Chunks(s.bucket, id)+"*"))
	})
}
