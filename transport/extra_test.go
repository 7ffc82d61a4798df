package transport

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/transport/punch"
)

var loopback4 = netip.MustParseAddrPort("127.0.0.1:0")

func listenLoopback(t *testing.T) *udpx.Conn {
	t.Helper()
	c, err := udpx.Listen("udp4", loopback4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// extraHub is a hub on a real socket with one peer, whose state machine does nothing by itself.
func extraHub(t *testing.T) (*hub, *remote) {
	t.Helper()
	h := newHub(ident.Short{1}, discard, listenLoopback(t), nil)
	r := newRemote(h, "peer", ident.Short{2}, punch.New(punch.Config{}))
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithCancel(context.Background())
	h.update(func(t *tables) { t.peers[r.short] = r })
	h.start()
	t.Cleanup(func() {
		cancel()
		r.closeExtra(0)
		r.sampling.Wait()
		h.close()
	})
	return h, r
}

func read(t *testing.T, c *udpx.Conn) (data []byte, seg int, from netip.AddrPort) {
	t.Helper()
	b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.Read(&b); err != nil {
		t.Fatal(err)
	}
	return b.Buf[:b.N], b.Seg, b.From
}

func event[E punch.Event](t *testing.T, r *remote) E {
	t.Helper()
	var events []punch.Event
	select {
	case e := <-r.probes:
		events = []punch.Event{e}
	case <-r.kick:
		events = r.orders.take()
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	if len(events) != 1 {
		t.Fatalf("events %+v", events)
	}
	got, ok := events[0].(E)
	if !ok {
		t.Fatalf("event %+v", events[0])
	}
	return got
}

// TestExtraSockets: a fan sends from as many ports as it has sockets, a probe that comes back is told by its socket, and
// the one that becomes the path carries QUIC in batches both ways, while the others are closed.
func TestExtraSockets(t *testing.T) {
	const n = 16
	h, r := extraHub(t)
	p := newPort(h, Auto)
	h.ports[Auto].Store(p)
	peer := listenLoopback(t)
	r.openExtra(&punch.Open{First: 1, Count: n, To: peer.LocalAddr(), Data: []byte("\x10fan")})
	if o := event[punch.Opened](t, r); o.Number != 1 || o.Count != n || h.extras.Load() != n {
		t.Fatalf("%+v, %d counted", o, h.extras.Load())
	}
	ports := map[netip.AddrPort]bool{}
	for range n {
		data, _, from := read(t, peer)
		if string(data) != "\x10fan" || from == h.v4.LocalAddr() {
			t.Errorf("%q from %v", data, from)
		}
		ports[from] = true
	}
	if len(ports) != n {
		t.Fatalf("%d ports", len(ports))
	}
	to := r.extras.open[7].raw.LocalAddr()
	if err := peer.Write([]byte("\x10hit"), 4, 0, to); err != nil {
		t.Fatal(err)
	}
	if e := event[punch.Packet](t, r); e.Socket != 7 || e.From != peer.LocalAddr() || string(e.Data) != "\x10hit" {
		t.Fatalf("%+v", e)
	}

	r.publish(punch.State{Phase: punch.Direct, Route: punch.RouteDirect, Path: peer.LocalAddr(), Socket: 7, Generation: 2})
	r.closeExtra(7)
	if len(r.extras.open) != 1 || h.extras.Load() != 0 {
		t.Fatalf("%d sockets open, %d counted", len(r.extras.open), h.extras.Load())
	}
	batch := bytes.Repeat(shortPacket(1000), 30)
	if err := h.send(Auto, batch, 1000, virtualAddr(r.short, 2)); err != nil {
		t.Fatal(err)
	}
	got, seg, from := read(t, peer)
	if from != to || seg != 1000 || udpx.HasGSO && !bytes.Equal(got, batch) {
		t.Errorf("%d bytes in packets of %d from %v, want %d from %v", len(got), seg, from, len(batch), to)
	}
	stranger := listenLoopback(t)
	if err := stranger.Write(shortPacket(99), 99, 0, to); err != nil {
		t.Fatal(err)
	}
	// The read that was under way when the socket became the path has a small buffer.
	if err := peer.Write(shortPacket(100), 100, 0, to); err != nil {
		t.Fatal(err)
	}
	if err := peer.Write(batch, 1000, 0, to); err != nil {
		t.Fatal(err)
	}
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 1500)}}}
	for i := range 31 {
		_ = p.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := p.ReadBatch(ms, 0); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		s, gen, ok := parseVirtual(ms[0].Addr.(*net.UDPAddr))
		if want := min(1000, 100+i*900); !ok || s != r.short || gen != 2 || ms[0].N != want {
			t.Errorf("packet %d: %d bytes, want %d, from %v", i, ms[0].N, want, ms[0].Addr)
		}
	}
	// What comes to the hub's own socket from there is no longer of the path.
	if err := peer.Write(shortPacket(100), 100, 0, h.v4.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	_ = p.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := p.ReadBatch(ms, 0); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes by another socket, %v", ms[0].N, err)
	}
}

// TestExtraSocketsAreFew: an endpoint opens no more than its share, and gives back what it closed.
func TestExtraSocketsAreFew(t *testing.T) {
	h, r := extraHub(t)
	peer := listenLoopback(t)
	first := 1
	open := func(n int) int {
		r.openExtra(&punch.Open{First: first, Count: n, To: peer.LocalAddr(), Data: []byte("\x10fan")})
		first += n
		return event[punch.Opened](t, r).Count
	}
	if got := open(256); got != 256 {
		t.Fatalf("%d sockets", got)
	}
	if got := open(100); got != 0 || h.extras.Load() != 256 {
		t.Errorf("%d sockets more, %d counted", got, h.extras.Load())
	}
	if got := open(64); got != 64 {
		t.Errorf("%d sockets more", got)
	}
	r.closeExtra(0)
	if len(r.extras.open) != 0 || h.extras.Load() != 0 {
		t.Errorf("%d open, %d counted", len(r.extras.open), h.extras.Load())
	}
	if got := open(256); got != 256 {
		t.Errorf("%d sockets again", got)
	}
}

// TestSampleWithoutServers: nobody answers, or nobody is known to.
func TestSampleWithoutServers(t *testing.T) {
	h, r := extraHub(t)
	o := &punch.Open{First: 1, Count: 1, Sample: true}
	r.openExtra(o)
	if got := event[punch.Opened](t, r); got.Count != 0 {
		t.Errorf("%+v", got)
	}
	silent := listenLoopback(t)
	h.answering.Store(&[]netip.AddrPort{silent.LocalAddr(), silent.LocalAddr()})
	o.First = 2
	r.openExtra(o)
	if got := event[punch.Opened](t, r); got.Count != 1 || got.First.IsValid() || got.Last.IsValid() {
		t.Errorf("%+v", got)
	}
}

// TestGuessBudget: however many peers name one address, what goes there is bounded, and so is what goes to all.
func TestGuessBudget(t *testing.T) {
	var g guessBudget
	now := time.Now()
	victim := netip.MustParseAddr("203.0.113.66")
	sent := func(to netip.Addr, perSecond int, d time.Duration) (n int) {
		for range int(d / time.Second * time.Duration(perSecond) / 100) {
			now = now.Add(100 * time.Second / time.Duration(perSecond))
			for range 100 {
				if g.allow(now, to) {
					n++
				}
			}
		}
		return n
	}
	if n := sent(victim, 10000, 10*time.Second); n > 11*guessTotal {
		t.Errorf("%d in 10 s", n)
	}
	if n := sent(victim, 10000, time.Minute); n > guessBurst+410+1 {
		t.Errorf("%d to one address", n)
	}
	if n, most := sent(victim, 1000, time.Hour), 24577; n > most || n < most-10 {
		t.Errorf("%d in an hour, want %d", n, most)
	}
	if n := sent(netip.MustParseAddr("203.0.113.67"), 300, 6*time.Second); n != 1800 {
		t.Errorf("%d to another address", n)
	}
	g.forgive(victim)
	if n := sent(victim, 300, 2*time.Second); n != 600 {
		t.Errorf("%d to an address that has answered", n)
	}
	for i := range 2 * guessAddresses {
		now = now.Add(time.Second)
		g.allow(now, netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}))
	}
	if len(g.addresses) > guessAddresses {
		t.Errorf("%d addresses remembered", len(g.addresses))
	}
}

// TestOutlooks: what worked is tried at once with the next peer of the kind, what failed again and again rarely.
func TestOutlooks(t *testing.T) {
	h, r := extraHub(t)
	random := punch.NAT{Mapping: punch.MappingRandom, Public: peerAddr}
	stable := punch.NAT{Mapping: punch.MappingStable, Public: peerAddr}
	st := punch.State{Here: random, There: stable}
	step := func(change func(*punch.State)) punch.Outlook {
		old := st
		change(&st)
		r.noteOutlook(old, st)
		return h.outlooks.all().Of(random, stable)
	}
	fail := func(s *punch.State) { s.Counters.Failed++ }
	for i, tt := range []struct {
		change func(*punch.State)
		want   punch.Outlook
	}{
		{func(s *punch.State) { s.Reason = "probing" }, punch.OutlookOpen},
		{fail, punch.OutlookOpen},
		{fail, punch.OutlookPoor},
		{fail, punch.OutlookPoor},
		{func(s *punch.State) { s.Method, s.Path, s.Generation = punch.MethodPlain, peerAddr, 2 }, punch.OutlookPoor},
		{func(s *punch.State) { s.Method, s.Generation = punch.MethodBirthday, 3 }, punch.OutlookGood},
		{func(s *punch.State) { s.Path = netip.AddrPort{} }, punch.OutlookGood},
		{fail, punch.OutlookOpen},
	} {
		if got := step(tt.change); got != tt.want {
			t.Errorf("step %d: outlook %d, want %d", i, got, tt.want)
		}
	}
	step(func(s *punch.State) { s.Path, s.Generation = peerAddr, 4 })
	if got := h.outlooks.all().Of(stable, random); got != punch.OutlookGood {
		t.Errorf("of the other way round: %d", got)
	}
	e := &Endpoint{hub: h}
	sequential := punch.NAT{Mapping: punch.MappingSequential, Step: 1, Public: peerAddr}
	want := punch.Outlooks(0).With(random, stable, punch.OutlookGood)
	if own, _ := e.Outlooks(); own != want {
		t.Errorf("told to others: %b", own)
	}
	// What others tell counts where this one has seen nothing.
	e.SetOutlooks(punch.Outlooks(0).With(stable, random, punch.OutlookPoor).With(sequential, stable, punch.OutlookPoor))
	if own, all := e.Outlooks(); own != want || all.Of(random, stable) != punch.OutlookGood || all.Of(stable, sequential) != punch.OutlookPoor {
		t.Errorf("own %b, all %b", own, all)
	}
}

// TestGuessesAreCounted: what the state machine marks as a guess goes through the budget, all else past it.
func TestGuessesAreCounted(t *testing.T) {
	_, w, _, r, _ := testHub(t, 0, punch.RouteRelay)
	for i := range 3 * guessTotal {
		r.send(punch.Datagram{To: netip.AddrPortFrom(peerAddr.Addr(), uint16(1024+i)), Guess: true, Data: []byte("\x10guess")})
	}
	guesses := len(w.sent)
	if guesses < guessTotal || guesses > 2*guessTotal {
		t.Errorf("%d guesses went out at once", guesses)
	}
	for range 10 {
		r.send(punch.Datagram{To: peerAddr, Data: []byte("\x10probe")})
	}
	if n := len(w.sent) - guesses; n != 10 {
		t.Errorf("%d probes went out beside the guesses", n)
	}
}
