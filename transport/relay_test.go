package transport_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/transport"
)

// cutSocket is a real socket whose packets to and from everybody but the relay can be dropped.
type cutSocket struct {
	*udpx.Conn
	relay netip.AddrPort
	in    atomic.Bool
	out   atomic.Bool
}

func (s *cutSocket) Read(b *udpx.Batch) error {
	for {
		err := s.Conn.Read(b)
		if err != nil || b.From == s.relay || !s.in.Load() {
			return err
		}
	}
}

func (s *cutSocket) Write(b []byte, seg int, ecn byte, to netip.AddrPort) error {
	if to != s.relay && s.out.Load() {
		return nil
	}
	return s.Conn.Write(b, seg, ecn, to)
}

func (s *cutSocket) cut(v bool) {
	s.in.Store(v)
	s.out.Store(v)
}

// relayed is an endpoint that is bound to a relay.
type relayed struct {
	*transport.Endpoint
	socket *cutSocket
	leg    *relay.Client
}

// startRelay runs a relay and returns what binds endpoints to it.
func startRelay(t *testing.T, key job.Key) (bind func() relayed) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Config{ID: "r", Listen: loopback, TokenKey: func() ed25519.PublicKey { return pub }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	return func() relayed {
		t.Helper()
		id, err := ident.New()
		if err != nil {
			t.Fatal(err)
		}
		c, err := udpx.Listen("udp4", loopback)
		if err != nil {
			t.Fatal(err)
		}
		r := relayed{socket: &cutSocket{Conn: c, relay: s.Addr()}}
		r.Endpoint, err = transport.Open(transport.Config{Identity: id, Key: key, Sockets: []udpx.Socket{r.socket}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		tok := token.Mint(priv, "r", token.Token{
			Job: key.ID(), Peer: [32]byte(id.Ed25519.Public().(ed25519.PublicKey)), Expires: time.Now().Add(time.Minute),
		})
		leg := relay.NewClient(relay.Config{ID: "r", Addr: s.Addr(), Token: tok, Identity: id, Job: key.ID(), Send: r.Write})
		r.leg = leg
		r.AddRelay(leg)
		ran := make(chan struct{})
		go func() {
			defer close(ran)
			_ = leg.Run(ctx)
		}()
		t.Cleanup(func() { cancel(); <-ran })
		<-leg.Ready()
		return r
	}
}

// admit lets two endpoints know each other, as verified offers and answers do.
func admit(t *testing.T, a, b relayed, class transport.Class) {
	t.Helper()
	for _, p := range [][2]relayed{{a, b}, {b, a}} {
		if err := p[0].Admit(describe(p[1].Endpoint, "r"), class, false); err != nil {
			t.Fatal(err)
		}
	}
}

func link(t *testing.T, a, b relayed, class transport.Class) (la, lb *transport.Link) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	la, err := a.Link(ctx, b.PeerID(), class)
	if err != nil {
		t.Fatal(err)
	}
	lb, err = b.Link(ctx, a.PeerID(), class)
	if err != nil {
		t.Fatal(err)
	}
	return la, lb
}

// untilPath waits until both ends of a link use a path.
func untilPath(t *testing.T, want string, links ...*transport.Link) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for _, l := range links {
		for l.Status().Path != want {
			if time.Now().After(deadline) {
				t.Fatalf("link is not %s: %+v", want, l.Status())
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// TestPathChanges: streams in both directions go on, byte for byte, while the path goes from the relay to
// a direct one, is lost in each of the ways a path can be lost, and comes back.
func TestPathChanges(t *testing.T) {
	key := job.NewKey()
	bind := startRelay(t, key)
	a, b := bind(), bind()
	admit(t, a, b, transport.Auto)
	la, lb := link(t, a, b, transport.Auto)

	ctx, stop := context.WithCancel(t.Context())
	errs := make(chan error, 4)
	for _, d := range [][2]*transport.Link{{la, lb}, {lb, la}} {
		go flow(ctx, d[0], d[1], errs)
	}
	untilPath(t, "direct", la, lb)
	for name, cut := range map[string]func(bool){
		"both ways":    func(v bool) { a.socket.cut(v); b.socket.cut(v) },
		"a hears none": func(v bool) { a.socket.in.Store(v) },
		"b hears none": func(v bool) { b.socket.in.Store(v) },
	} {
		before := la.Status().Generation
		cut(true)
		untilPath(t, "relay", la, lb)
		if r := la.Status().Reason; r == "" {
			t.Errorf("%s: relayed for no reason", name)
		}
		cut(false)
		untilPath(t, "direct", la, lb)
		if g := la.Status().Generation; g <= before {
			t.Errorf("%s: generation %d after %d", name, g, before)
		}
	}
	stop()
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if h := la.Status().History; len(h) < 7 {
		t.Errorf("history %+v", h)
	}
}

// flow sends until ctx ends and compares digests.
func flow(ctx context.Context, from, to *transport.Link, errs chan<- error) {
	sums := make(chan [sha256.Size]byte, 2)
	go func() {
		s, err := from.OpenStream(context.Background())
		h := sha256.New()
		chunk := make([]byte, 8<<10)
		for err == nil && ctx.Err() == nil {
			_, _ = rand.Read(chunk)
			h.Write(chunk)
			_, err = s.Write(chunk)
			time.Sleep(time.Millisecond)
		}
		if err == nil {
			err = s.CloseWrite()
		}
		sums <- [sha256.Size]byte(h.Sum(nil))
		errs <- err
	}()
	r, err := to.AcceptStream(context.Background())
	h := sha256.New()
	if err == nil {
		_, err = io.Copy(h, r)
	}
	if sum := <-sums; err == nil && sum != [sha256.Size]byte(h.Sum(nil)) {
		err = errors.New("bytes differ")
	}
	errs <- err
}

// A policy is kept whatever the state of the paths.
func TestPolicies(t *testing.T) {
	key := job.NewKey()
	bind := startRelay(t, key)
	a, b := bind(), bind()
	admit(t, a, b, transport.Auto)
	la, lb := link(t, a, b, transport.Auto)
	untilPath(t, "direct", la, lb)

	admit(t, a, b, transport.RelayOnly)
	ra, rb := link(t, a, b, transport.RelayOnly)
	admit(t, a, b, transport.DirectOnly)
	da, db := link(t, a, b, transport.DirectOnly)
	if ra == la || da == la {
		t.Error("a policy shares another's link")
	}
	before := a.Stats()
	echo(t, ra, rb, 1<<20)
	if s := ra.Status(); s.Path != "relay" || s.Reason == "" || a.Stats().RelayOut-before.RelayOut < 1<<20 {
		t.Errorf("relay only: %+v", s)
	}
	before = a.Stats()
	echo(t, da, db, 1<<20)
	if s := da.Status(); s.Path != "direct" || a.Stats().DirectOut-before.DirectOut < 1<<20 {
		t.Errorf("direct only: %+v", s)
	}
	a.socket.cut(true)
	b.socket.cut(true)
	untilPath(t, "relay", la)
	before = b.Stats()
	s, err := da.OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Write(make([]byte, 64<<10))
	echo(t, la, lb, 10<<10)
	if got := b.Stats().RelayIn - before.RelayIn; got > 60<<10 {
		t.Errorf("%d bytes came over the relay; those of a link that must be direct among them?", got)
	}
}

func echo(t *testing.T, from, to *transport.Link, n int) {
	t.Helper()
	want := make([]byte, n)
	_, _ = rand.Read(want)
	s, err := from.OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = s.Write(want)
		_ = s.CloseWrite()
	}()
	r, err := to.AcceptStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), n, err)
	}
	_ = r.Close()
	_ = s.Close()
}

// An instance that was not admitted does not get as far as a handshake.
func TestStrangerIsDropped(t *testing.T) {
	key := job.NewKey()
	bind := startRelay(t, key)
	a, b := bind(), bind()
	if !a.Dials(b.PeerID()) {
		a, b = b, a
	}
	if err := a.Admit(describe(b.Endpoint, "r"), transport.Auto, false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := a.Link(ctx, b.PeerID(), transport.Auto); err == nil {
		t.Error("linked to an instance that had not admitted the caller")
	}
	if s := b.Stats(); s.Strangers == 0 || s.Peers != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A direct-only link between instances that cannot reach each other fails with the reason, in time.
func TestDirectOnlyImpossible(t *testing.T) {
	key := job.NewKey()
	bind := startRelay(t, key)
	a, b := bind(), bind()
	a.socket.cut(true)
	admit(t, a, b, transport.DirectOnly)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := a.Link(ctx, b.PeerID(), transport.DirectOnly); !errors.Is(err, transport.ErrNoDirect) {
		t.Errorf("link: %v", err)
	}
}

// mirror is a leg with a connection of its own, whose frames are a byte of header and a packet.
type mirror struct {
	transport.Relay
	frames []string
}

func (e *mirror) HandlePacket(b []byte) (from ident.Short, tag uint32, packet []byte, ok bool) {
	e.frames = append(e.frames, string(b))
	return ident.Short{1}, 1, b[1:], true
}

// What reached a leg by itself is taken apart as what the socket read, and is none the more trusted.
func TestHandleRelayed(t *testing.T) {
	e := open(t, job.NewKey(), nil)
	leg := &mirror{}
	e.HandleRelayed(leg, []byte("\x20aa\x20bb\x20c"), 3)
	if want := []string{"\x20aa", "\x20bb", "\x20c"}; !slices.Equal(leg.frames, want) {
		t.Errorf("got %q, want %q", leg.frames, want)
	}
	leg.frames = nil
	before := e.Stats().Strangers
	e.HandleRelayed(leg, []byte("\x40aa\x10bb\x00cc"), 3) // QUIC, punch and STUN come otherwise
	e.HandleRelayed(leg, nil, 0)
	if n := e.Stats().Strangers - before; n != 3 || len(leg.frames) > 0 {
		t.Errorf("%d strangers, frames %q", n, leg.frames)
	}
}
