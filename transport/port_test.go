package transport

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/transport/punch"
)

// wire is a socket whose other end is the test.
type wire struct {
	addr  netip.AddrPort
	err   error // what Write returns
	sent  []datagram
	reads chan datagram
	done  chan struct{}
}

type datagram struct {
	b   []byte
	seg int
	at  netip.AddrPort
}

func newWire() *wire {
	return &wire{addr: netip.MustParseAddrPort("192.0.2.1:7"), reads: make(chan datagram, 16), done: make(chan struct{})}
}

func (w *wire) Read(b *udpx.Batch) error {
	select {
	case d := <-w.reads:
		b.N, b.Seg, b.From = copy(b.Buf, d.b), d.seg, d.at
		return nil
	case <-w.done:
		return net.ErrClosed
	}
}

func (w *wire) Write(b []byte, seg int, _ byte, to netip.AddrPort) error {
	w.sent = append(w.sent, datagram{append([]byte(nil), b...), seg, to})
	return w.err
}

func (w *wire) LocalAddr() netip.AddrPort { return w.addr }
func (w *wire) Close() error              { close(w.done); return nil }

// fakeLeg is a relay whose frames are the packet behind one byte, 0x20, and the sender's short.
type fakeLeg struct {
	mu   sync.Mutex // guards what follows
	sent []string   // tag and packets
}

// take returns what was sent since the last call.
func (l *fakeLeg) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = nil
	return sent
}

func (*fakeLeg) ID() string             { return "r" }
func (*fakeLeg) Addr() netip.AddrPort   { return netip.MustParseAddrPort("192.0.2.9:3478") }
func (*fakeLeg) Ready() <-chan struct{} { return closedChan }
func (*fakeLeg) Usable() bool           { return true }
func (l *fakeLeg) Send(_ ident.Short, tag uint32, b []byte, _ int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, string(rune('0'+tag))+":"+string(b))
	return nil
}
func (*fakeLeg) HandlePacket(b []byte) (ident.Short, uint32, []byte, bool) {
	if len(b) < 10 {
		return ident.Short{}, 0, nil, false
	}
	return ident.Short(b[2:10]), uint32(b[1]), b[10:], true
}

var peerAddr = netip.MustParseAddrPort("192.0.2.2:9")

// testHub is a hub with one admitted peer, reachable over a relay and, if gen is not 0, directly.
func testHub(t *testing.T, gen uint16, how punch.Route) (*hub, *wire, *fakeLeg, *remote, *port) {
	t.Helper()
	w, leg := newWire(), &fakeLeg{}
	h := newHub(ident.Short{1}, discard, w, nil)
	r := newRemote(h, "peer", ident.Short{2}, punch.New(punch.Config{}))
	r.moved = func() {}
	id := leg.ID()
	r.relayID.Store(&id)
	h.legs.Store(&map[string]Relay{id: leg})
	h.update(func(t *tables) {
		t.peers[r.short] = r
		t.legs[leg.Addr()] = leg
	})
	if gen > 0 {
		r.publish(punch.State{Route: how, Path: peerAddr, Generation: gen})
	}
	p := newPort(h, Auto)
	h.ports[Auto].Store(p)
	h.start()
	t.Cleanup(h.close)
	return h, w, leg, r, p
}

// short returns a QUIC packet with a short header whose connection ID is of class Auto.
func shortPacket(n int) []byte {
	return append([]byte{0x40, 0, 1, 2, 3, 4, 5, 6, 7}, make([]byte, n-9)...)
}

// Hazard: any write error but EMSGSIZE would end the QUIC connection, so the hub keeps them.
func TestWriteErrorsDoNotReachQUIC(t *testing.T) {
	_, w, _, r, p := testHub(t, 2, punch.RouteDirect)
	to := virtualAddr(r.short, 2)
	for _, err := range []error{syscall.ENETUNREACH, syscall.ENOBUFS, syscall.EPERM, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, net.ErrClosed} {
		w.err = err
		if _, got := p.WriteTo(shortPacket(100), to); got != nil {
			t.Errorf("%v came through as %v", err, got)
		}
	}
	if _, err := p.WriteTo(shortPacket(maxPacketSize+1), to); !errors.Is(err, errTooBig) {
		t.Errorf("a packet too big for the relay: %v", err)
	}
}

// Hazard: ReadBatch must honour SetReadDeadline, or closing the transport hangs.
func TestReadBatchDeadline(t *testing.T) {
	_, _, _, _, p := testHub(t, 0, punch.RouteRelay)
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 1500)}}}
	got := make(chan error, 1)
	go func() {
		_, err := p.ReadBatch(ms, 0)
		got <- err
	}()
	_ = p.SetReadDeadline(time.Now())
	if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	_ = p.SetReadDeadline(time.Time{})
	go func() {
		_, err := p.ReadBatch(ms, 0)
		got <- err
	}()
	_ = p.Close()
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}

// A batch of one source arrives as the packets it was made of, under the peer's virtual address.
func TestReadBatch(t *testing.T) {
	_, w, leg, r, p := testHub(t, 3, punch.RouteDirect)
	direct := append(append(shortPacket(100), shortPacket(100)...), shortPacket(40)...)
	w.reads <- datagram{direct, 100, peerAddr}
	frame := func(gen byte, n int) []byte {
		return append([]byte{0x20, gen, 2, 0, 0, 0, 0, 0, 0, 0}, shortPacket(n)...)
	}
	w.reads <- datagram{append(append(frame(1, 50), frame(1, 50)...), frame(3, 20)...), 60, leg.Addr()}
	w.reads <- datagram{shortPacket(60), 60, netip.MustParseAddrPort("203.0.113.9:1")} // a stranger
	w.reads <- datagram{shortPacket(11), 11, peerAddr}

	want := []struct{ n, gen int }{{100, 3}, {100, 3}, {40, 3}, {50, 1}, {50, 1}, {20, 3}, {11, 3}}
	for i := 0; i < len(want); {
		ms := make([]ipv4.Message, 8)
		for j := range ms {
			ms[j].Buffers = [][]byte{make([]byte, 1500)}
		}
		n, err := p.ReadBatch(ms, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[:n] {
			a, ok := m.Addr.(*net.UDPAddr)
			s, gen, virtual := parseVirtual(a)
			if !ok || !virtual || s != r.short || m.N != want[i].n || int(gen) != want[i].gen {
				t.Errorf("packet %d: %d bytes from %v, want %d of generation %d", i, m.N, m.Addr, want[i].n, want[i].gen)
			}
			i++
		}
	}
	if r.relayHeard.Load() == 0 {
		t.Error("a packet of the direct generation came over the relay and nobody noticed")
	}
}

// Which way a packet takes, by class, generation and the state of the direct path.
func TestRoutes(t *testing.T) {
	type want struct{ direct, relay bool }
	path := peerAddr
	for name, c := range map[string]struct {
		r     route
		class Class
		gen   uint16
		relay bool
		want
	}{
		"handshake":                          {route{}, Auto, 1, true, want{relay: true}},
		"direct":                             {route{how: punch.RouteDirect, path: path, gen: 2}, Auto, 2, true, want{direct: true}},
		"in doubt":                           {route{how: punch.RouteBoth, path: path, gen: 2}, Auto, 2, true, want{true, true}},
		"lost":                               {route{how: punch.RouteRelay, gen: 2}, Auto, 2, true, want{relay: true}},
		"before QUIC has switched":           {route{how: punch.RouteDirect, path: path, gen: 2}, Auto, 1, true, want{relay: true}},
		"of the path before":                 {route{how: punch.RouteDirect, path: path, gen: 3}, Auto, 2, true, want{relay: true}},
		"no relay":                           {route{how: punch.RouteDirect, path: path, gen: 2}, Auto, 1, false, want{direct: true}},
		"no way at all":                      {route{}, Auto, 1, false, want{}},
		"relay only, though direct is up":    {route{how: punch.RouteDirect, path: path, gen: 2}, RelayOnly, 1, true, want{relay: true}},
		"direct only in doubt":               {route{how: punch.RouteBoth, path: path, gen: 2}, DirectOnly, 2, true, want{direct: true}},
		"direct only without a path":         {route{}, DirectOnly, 2, true, want{}},
		"direct only, of another nomination": {route{how: punch.RouteDirect, path: path, gen: 3}, DirectOnly, 2, true, want{direct: true}},
	} {
		if d, r := c.r.choose(c.class, c.gen, c.relay); (want{d, r}) != c.want {
			t.Errorf("%s: direct %v, relay %v", name, d, r)
		}
	}
}

// While a path is in doubt each batch goes both ways, and the relay is told the generation.
func TestBothWays(t *testing.T) {
	_, w, leg, r, p := testHub(t, 2, punch.RouteBoth)
	if _, err := p.WriteTo(shortPacket(20), virtualAddr(r.short, 2)); err != nil {
		t.Fatal(err)
	}
	if len(w.sent) != 1 || w.sent[0].at != peerAddr {
		t.Errorf("direct: %v", w.sent)
	}
	if sent := leg.take(); len(sent) != 1 || sent[0][0] != '2' {
		t.Errorf("relayed: %q", sent)
	}
}

// The first flight of an instance that is not admitted yet waits for it, and no more than that.
func TestStash(t *testing.T) {
	h, _, _, r, p := testHub(t, 0, punch.RouteRelay)
	h.update(func(t *tables) { delete(t.peers, r.short) })
	initial := append([]byte{0xc0, 0, 0, 0, 1, 8}, make([]byte, 8)...)
	initial = append(initial, 8, 0, 1, 2, 3, 4, 5, 6, 7)
	for range 2 * stashPackets {
		h.stray(r.short, 1, initial)
	}
	for i := range 2 * stashPeers {
		h.stray(ident.Short{9, byte(i)}, 1, initial)
	}
	h.stray(r.short, 1, shortPacket(30)) // not of a handshake
	h.mu.Lock()
	peers := len(h.stash.peers)
	h.mu.Unlock()
	if peers != stashPeers {
		t.Errorf("%d instances stashed", peers)
	}
	h.update(func(t *tables) { t.peers[r.short] = r })
	h.replay(r)
	if got := len(p.queue); got != stashPackets {
		t.Errorf("%d packets replayed", got)
	}
	h.replay(r)
	if got := len(p.queue); got != stashPackets {
		t.Errorf("replayed twice: %d", got)
	}
}

// What QUIC has no time for yet waits, single packets and batches, within bounds of number and of memory; then there is room again.
func TestPortWaits(t *testing.T) {
	const lone, batches = 700, portBytes / bigBuffer
	h, _, _, r, p := testHub(t, 2, punch.RouteDirect)
	deliver := func(pool *sync.Pool, n int) {
		for range n {
			buf := getBuffer(pool)
			p.deliver(packetRun{buf: buf, data: buf.b[:20], stride: 20, src: r.relayAddr})
		}
	}
	take := func() (n int) {
		for ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 20)}}}; len(p.queue) > 0 || len(p.cur.data) > 0; n++ {
			if _, err := p.ReadBatch(ms, 0); err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	for name, c := range map[string]struct {
		pool       *sync.Pool
		sent, kept int
	}{
		"some packets": {h.small, lone, lone}, "too many": {h.small, 2 * portQueue, portQueue},
		"batches": {h.big, batches, batches}, "too large": {h.big, batches + 9, batches},
	} {
		before := h.stats.dropped.Load()
		deliver(c.pool, c.sent)
		if got := take(); got != c.kept || h.stats.dropped.Load()-before != uint64(c.sent-c.kept) || p.held.Load() != 0 {
			t.Errorf("%s: of %d %d are kept, %d are dropped; %d bytes are held in the end", name, c.sent, got, h.stats.dropped.Load()-before, p.held.Load())
		}
	}
}

func TestSendDoesNotAllocate(t *testing.T) {
	h, _, _, r, _ := testHub(t, 2, punch.RouteDirect)
	h.v4 = sink{h.v4}
	b, to := shortPacket(1200), virtualAddr(r.short, 2)
	if n := testing.AllocsPerRun(100, func() { _ = h.send(Auto, b, len(b), to) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// A batch that is read, cut into packets and handed to QUIC costs no allocation either, on a direct path and by the relay.
func TestReceiveDoesNotAllocate(t *testing.T) {
	h, _, leg, r, p := testHub(t, 2, punch.RouteDirect)
	const size, count = 1200, 16
	ms := make([]ipv4.Message, count)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, size)}
	}
	frame := append([]byte{firstRelay, relayGeneration}, r.short[:]...)
	for name, in := range map[string]struct {
		packet []byte
		from   netip.AddrPort
	}{
		"direct":  {shortPacket(size), peerAddr},
		"relayed": {append(frame, shortPacket(size-len(frame))...), leg.Addr()},
	} {
		h.update(func(t *tables) { t.paths[peerAddr] = r })
		b := udpx.Batch{N: count * size, Seg: size, From: in.from}
		read := func() {
			buf := getBuffer(h.big)
			b.Buf = buf.b
			for i := range count {
				copy(b.Buf[i*size:], in.packet)
			}
			h.dispatch(&b, buf, nil)
			buf.release()
			if n, err := p.ReadBatch(ms, 0); n != count || err != nil {
				t.Fatalf("%s: %d packets, %v", name, n, err)
			}
		}
		if n := testing.AllocsPerRun(200, read); n != 0 {
			t.Errorf("%s: %v allocations a batch of %d", name, n, count)
		}
	}
}

type sink struct{ udpx.Socket }

func (sink) Write([]byte, int, byte, netip.AddrPort) error { return nil }
