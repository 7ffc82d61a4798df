package server_test

import (
	"context"
	"crypto/ed25519"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/relay/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	relayID = "relay-1"
	patient = 10 * time.Second
)

// world is a relay, the key that admits to it, and a job.
type world struct {
	t      testing.TB
	public ed25519.PublicKey
	key    ed25519.PrivateKey
	job    job.Key
	cfg    server.Config
	srv    *server.Server
	ask    func() // the relay to end
	stop   func() // it and wait for its end
}

func newWorld(t testing.TB, l server.Limits) *world {
	t.Helper()
	return newWorldOf(t, func(c *server.Config) { c.Limits = l })
}

func newWorldOf(t testing.TB, change func(*server.Config)) *world {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, public: pub, key: key, job: job.NewKey(), cfg: server.Config{
		ID: relayID, Listen: netip.MustParseAddrPort("127.0.0.1:0"), TokenKey: func() ed25519.PublicKey { return pub },
		HTTPS: netip.MustParseAddrPort("127.0.0.1:0"),
	}}
	change(&w.cfg)
	w.startRelay()
	return w
}

func (w *world) startRelay() {
	w.t.Helper()
	srv, err := server.New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	select {
	case <-srv.Ready():
	case err := <-done:
		w.t.Fatal(err)
	}
	w.cfg.Listen, w.cfg.HTTPS, w.srv = srv.Addr(), srv.HTTPSAddr(), srv
	w.ask = cancel
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(w.stop)
}

func (w *world) mint(id ident.Identity, change func(*token.Token, *string, *ed25519.PrivateKey)) []byte {
	t := token.Token{Job: w.job.ID(), Peer: [32]byte(id.Ed25519[32:]), Expires: time.Now().Add(time.Hour)}
	audience, key := relayID, w.key
	if change != nil {
		change(&t, &audience, &key)
	}
	return token.Mint(key, audience, t)
}

func newIdentity(t testing.TB) ident.Identity {
	t.Helper()
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// raw is a socket that speaks frames by hand.
type raw struct {
	*udpx.Conn
	w     *world
	id    ident.Identity
	short ident.Short
	token []byte
	stamp time.Time
}

func (w *world) raw() *raw { return w.rawAs(newIdentity(w.t)) }

func (w *world) rawAs(id ident.Identity) *raw {
	w.t.Helper()
	c, err := udpx.Listen("udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return &raw{
		Conn: c, w: w, id: id, token: w.mint(id, nil), stamp: time.Now(),
		short: ident.ShortOf(w.job.ID(), id.Ed25519.Public().(ed25519.PublicKey)),
	}
}

func (r *raw) send(b []byte) {
	r.w.t.Helper()
	if err := r.Write(b, 0, 0, r.w.srv.Addr()); err != nil {
		r.w.t.Fatal(err)
	}
}

// receive returns the next datagram from the relay.
func (r *raw) receive() []byte {
	r.w.t.Helper()
	b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	_ = r.SetReadDeadline(time.Now().Add(patient))
	if err := r.Read(&b); err != nil {
		r.w.t.Fatal(err)
	}
	return b.Buf[:b.Seg]
}

// silence asserts that the relay sent nothing before its answer to a ping, which it gets last: frames
// of one socket are answered in order, apart from those whose signatures are checked; so those are
// waited for by count.
func (r *raw) silence() {
	r.w.t.Helper()
	n := relay.Nonce{'s', 'i', 'l', byte(time.Now().UnixNano())}
	r.send(relay.AppendPing(nil, relay.Ping{Nonce: n}))
	b := r.receive()
	if got, ok := relay.ParseUnbound(b); !ok || got != n {
		r.w.t.Fatalf("the relay answered %x", b)
	}
}

func (r *raw) bindFrame() ([]byte, relay.Nonce) {
	r.stamp = r.stamp.Add(time.Millisecond)
	m := relay.Bind{Nonce: relay.Nonce(newNonce()), Time: r.stamp, Token: [token.Size]byte(r.token)}
	return relay.AppendBind(nil, relayID, r.id.Ed25519, m), m.Nonce
}

func newNonce() [8]byte {
	_, k, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	return [8]byte(k)
}

// challenge binds up to the CHALLENGE.
func (r *raw) challenge() relay.Challenge {
	r.w.t.Helper()
	b, n := r.bindFrame()
	r.send(b)
	got := r.receive()
	m, ok := relay.ParseChallenge(got)
	if !ok || m.Nonce != n {
		r.w.t.Fatalf("got %x, want a challenge", got)
	}
	return m
}

func (r *raw) proveFrame(c relay.Challenge) []byte {
	return relay.AppendProve(nil, relayID, r.id.Ed25519, relay.Prove{Short: r.short, Nonce: c.Nonce, Cookie: c.Cookie})
}

func (r *raw) bind() relay.Bound {
	r.w.t.Helper()
	return r.prove(r.challenge())
}

func (r *raw) prove(c relay.Challenge) relay.Bound {
	r.w.t.Helper()
	r.send(r.proveFrame(c))
	got := r.receive()
	m, ok := relay.ParseBound(got)
	if !ok || m.Nonce != c.Nonce {
		r.w.t.Fatalf("got %x, want BOUND", got)
	}
	return m
}

func (r *raw) data(to ident.Short, payload string) {
	r.w.t.Helper()
	b := make([]byte, relay.HeaderBytes, 64)
	relay.PutHeader(b, 7, to)
	r.send(append(b, payload...))
}

func (r *raw) wantData(from ident.Short, payload string) {
	r.w.t.Helper()
	b := r.receive()
	s, tag, p, ok := relay.ParseData(b)
	if !ok || s != from || tag != 7 || string(p) != payload {
		r.w.t.Fatalf("got %x, want %q from %v", b, payload, from)
	}
}

// bound tells whether the relay holds the session of r at its address.
func (r *raw) bound() bool {
	r.w.t.Helper()
	n := relay.Nonce(newNonce())
	r.send(relay.AppendPing(nil, relay.Ping{Short: r.short, Nonce: n}))
	b := r.receive()
	if m, ok := relay.ParsePong(b); ok && m.Nonce == n {
		return true
	}
	if m, ok := relay.ParseUnbound(b); !ok || m != n {
		r.w.t.Fatalf("got %x, want PONG or UNBOUND", b)
	}
	return false
}

// dropped waits until the relay counted n drops more for a reason than before, so that a test
// need not guess how long an asynchronous check takes.
func (w *world) dropped(reason string, n uint64, do func()) {
	w.t.Helper()
	before := w.srv.Stats().Dropped[reason]
	do()
	w.eventually(func() bool { return w.srv.Stats().Dropped[reason] >= before+n }, "drops for reason "+reason)
}

func (w *world) eventually(ok func() bool, what string) {
	w.t.Helper()
	for end := time.Now().Add(patient); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("timed out waiting for: %s", what)
		}
	}
}

// node is a real client on a real socket.
type node struct {
	*relay.Client
	sock  *udpx.Conn
	short ident.Short
	got   chan packet
	gone  chan ident.Short
	close func()
}

type packet struct {
	from ident.Short
	tag  uint32
	data string
}

func (w *world) node(id ident.Identity, tok []byte) *node {
	w.t.Helper()
	sock, err := udpx.Listen("udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		w.t.Fatal(err)
	}
	n := &node{sock: sock, got: make(chan packet, 4096), gone: make(chan ident.Short, 64)}
	n.short = ident.ShortOf(w.job.ID(), id.Ed25519.Public().(ed25519.PublicKey))
	n.Client = relay.NewClient(relay.Config{
		ID: relayID, Addr: w.srv.Addr(), Token: tok, Identity: id, Job: w.job.ID(),
		Send: func(to netip.AddrPort, b []byte, seg int) error { return sock.Write(b, seg, 0, to) },
		OnGone: func(s ident.Short) {
			select {
			case n.gone <- s:
			default:
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.Run(ctx) })
	wg.Go(func() {
		b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
		for sock.Read(&b) == nil {
			for p := b.Buf[:b.N]; len(p) > 0; p = p[min(b.Seg, len(p)):] {
				if from, tag, data, ok := n.HandlePacket(p[:min(b.Seg, len(p))]); ok {
					select {
					case n.got <- packet{from, tag, string(data)}:
					default:
					}
				}
			}
		}
	})
	n.close = sync.OnceFunc(func() {
		cancel()
		_ = sock.Close()
		wg.Wait()
	})
	w.t.Cleanup(n.close)
	return n
}

func (n *node) waitReady(t testing.TB) {
	t.Helper()
	select {
	case <-n.Ready():
	case <-time.After(patient):
		s, err := n.State()
		t.Fatalf("not ready: %s, %v", s, err)
	}
}

// receiveAll returns all that one read gave, packets unseparated.
func (r *raw) receiveAll() []byte {
	r.w.t.Helper()
	b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	_ = r.SetReadDeadline(time.Now().Add(patient))
	if err := r.Read(&b); err != nil {
		r.w.t.Fatal(err)
	}
	return b.Buf[:b.N]
}
