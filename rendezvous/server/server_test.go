package server_test

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/proxy/proxytest"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// within returns a context that no test should ever see end.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// running is a started server.
type running struct {
	*server.Server
	cancel context.CancelFunc
	done   chan error
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	r.done <- nil
}

func start(t *testing.T, cfg server.Config) *running {
	t.Helper()
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: s, cancel: cancel, done: make(chan error, 2)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	select {
	case <-s.Ready():
	case err := <-r.done:
		cancel()
		r.done <- nil
		t.Fatalf("Run: %v", err)
	}
	return r
}

// instance is a joined client with what it was told.
type instance struct {
	*rendezvous.Client
	id        ident.Identity
	name      string
	key       job.Key
	seq       uint64
	envelopes chan rendezvous.Envelope
	relays    chan []rendezvous.RelayInfo
	fenced    chan uint64
	returned  chan struct{}
}

func dial(t *testing.T, url string, key job.Key, name string, change ...func(*rendezvous.Config)) *instance {
	t.Helper()
	in, err := tryDial(t, url, key, name, change...)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func tryDial(t *testing.T, url string, key job.Key, name string, change ...func(*rendezvous.Config)) (*instance, error) {
	t.Helper()
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	in := &instance{
		id: id, name: name, key: key,
		envelopes: make(chan rendezvous.Envelope, 64), relays: make(chan []rendezvous.RelayInfo, 64),
		fenced: make(chan uint64, 4), returned: make(chan struct{}, 64),
	}
	cfg := rendezvous.Config{
		URL: url, Key: key, Name: name, Identity: id,
		OnEnvelope:  func(e rendezvous.Envelope) { in.envelopes <- e },
		OnRelays:    func(r []rendezvous.RelayInfo) { in.relays <- r },
		OnFenced:    func(epoch uint64) { in.fenced <- epoch },
		OnReconnect: func() { in.returned <- struct{}{} },
	}
	for _, f := range change {
		f(&cfg)
	}
	in.Client, err = rendezvous.Dial(within(t), cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = in.Close() })
	return in, nil
}

func (in *instance) join(t *testing.T) *rendezvous.Joined {
	t.Helper()
	j, err := in.Join(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// run keeps the name until the test ends.
func (in *instance) run(t *testing.T) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		done <- in.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-finished })
	return done
}

func (in *instance) hello(kind, toName, toPeer string) rendezvous.Hello {
	in.seq++
	return rendezvous.Hello{
		Job: in.key.ID(), Kind: kind, FromName: in.name, FromPeer: in.id.Peer.String(), FromEpoch: in.Epoch(),
		ToName: toName, ToPeer: toPeer, Seq: in.seq,
		Candidates: []rendezvous.Candidate{{Addr: netip.MustParseAddrPort("192.0.2.1:4000"), Kind: "host"}},
	}
}

func (in *instance) seal(t *testing.T, kind, toName, toPeer string) rendezvous.Envelope {
	t.Helper()
	e, err := rendezvous.Seal(in.key, in.hello(kind, toName, toPeer))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (in *instance) offer(t *testing.T, to string) rendezvous.OfferResult {
	t.Helper()
	r, err := in.Offer(within(t), to, in.seal(t, rendezvous.KindOffer, to, ""))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// got returns the next value of c.
func got[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-within(t).Done():
		t.Fatal("nothing arrived")
		panic("unreachable")
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v, want %v", err, target)
	}
}

func TestOfferAndAnswer(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	offerAndAnswer(t, key, s.URL(), s.URL())
}

// By WebSocket the same is allowed as by NATS' own port, and no more.
func TestWebSocket(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, WebSocket: "127.0.0.1:0"})
	url := s.WebSocketURL()
	if !strings.HasPrefix(url, "ws://127.0.0.1:") {
		t.Fatalf("WebSocket at %q", url)
	}
	offerAndAnswer(t, key, url, s.URL())
	_, err := tryDial(t, url, job.NewKey(), "c")
	want(t, err, rendezvous.ErrNotAllowed)
	if _, err := nats.Connect(url); err == nil {
		t.Error("a stranger is connected")
	}
}

// A name that the proxy alone can resolve, and a network that lets nothing but CONNECT out: WebSocket goes by the proxy, again
// after a loss too, and NATS' own protocol never.
func TestWebSocketByProxy(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, WebSocket: "127.0.0.1:0"})
	at := strings.TrimPrefix(s.WebSocketURL(), "ws://")
	p := proxytest.Start(t, map[string]string{"rendezvous.test:80": at})
	by := func(c *rendezvous.Config) {
		c.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: p.Addr, User: url.UserPassword("u", "p")})
	}
	a := dial(t, "ws://rendezvous.test:80", key, "a", by)
	a.join(t)
	if auth := p.Asked("rendezvous.test:80"); !strings.HasPrefix(auth, "Basic ") {
		t.Errorf("the proxy was asked with %q", auth)
	}
	b := dial(t, s.URL(), key, "b", by)
	b.join(t)
	if auth := p.Asked(strings.TrimPrefix(s.URL(), "nats://")); auth != "never" {
		t.Errorf("NATS' own protocol went by the proxy, with %q", auth)
	}
	if r := b.offer(t, "a"); !r.Delivered {
		t.Errorf("offer: %+v", r)
	}
	a.run(t)
	p.HangUp()
	got(t, a.returned)

	_, err := tryDial(t, "ws://nowhere.test:80", key, "c", by)
	if want(t, err, rendezvous.ErrUnreachable); !strings.Contains(err.Error(), "CONNECT nowhere.test:80: 502 Bad Gateway") || strings.Contains(err.Error(), "u:p") {
		t.Errorf("error %v", err)
	}
}

func offerAndAnswer(t *testing.T, key job.Key, urlA, urlB string) {
	t.Helper()
	a, b := dial(t, urlA, key, "a"), dial(t, urlB, key, "b")
	a.join(t)
	jb := b.join(t)
	r := a.offer(t, "b")
	if !r.Delivered || r.Peer != b.id.Peer.String() || r.Epoch != jb.Epoch {
		t.Fatalf("offer: %+v", r)
	}
	h, err := rendezvous.Open(key, got(t, b.envelopes), rendezvous.Self{Name: "b", Peer: b.id.Peer})
	if err != nil || h.FromPeer != a.id.Peer.String() || h.FromEpoch != a.Epoch() {
		t.Fatalf("b got %+v, %v", h, err)
	}
	if err := b.Answer(within(t), h.FromPeer, b.seal(t, rendezvous.KindAnswer, "a", h.FromPeer)); err != nil {
		t.Fatal(err)
	}
	if h, err = rendezvous.Open(key, got(t, a.envelopes), rendezvous.Self{Name: "a", Peer: a.id.Peer}); err != nil || h.FromName != "b" {
		t.Fatalf("a got %+v, %v", h, err)
	}
}

func TestOfferWaitsForJoin(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	a := dial(t, s.URL(), key, "a")
	a.join(t)
	if r := a.offer(t, "b"); r.Delivered || r.Peer != "" {
		t.Fatalf("offer to nobody: %+v", r)
	}
	a.offer(t, "b") // replaces the first
	b := dial(t, s.URL(), key, "b")
	j := b.join(t)
	if len(j.Parked) != 1 {
		t.Fatalf("%d offers parked, want 1", len(j.Parked))
	}
	if h, err := rendezvous.Open(key, j.Parked[0], rendezvous.Self{Name: "b", Peer: b.id.Peer}); err != nil || h.Seq != 2 {
		t.Fatalf("parked: %+v, %v", h, err)
	}
}
