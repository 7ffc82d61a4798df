package fnlib_test

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/natsim"
	"github.com/fnwire/fnwire/internal/udpx"
	relay "github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
	rdv "github.com/fnwire/fnwire/rendezvous/server"
)

// bubble is a rendezvous, a relay and the network between them and functions, all in memory and in the
// virtual time of testing/synctest. A packet takes half of rtt between any two public addresses, and so do
// bytes on a connection to NATS; nothing else takes time.
type bubble struct {
	t   *testing.T
	rtt time.Duration
	key job.Key
	rdv *rdv.Server

	mu  sync.Mutex // guards the network, which the packets' timers share
	net *natsim.Network
	// sent sees each packet that a function or the relay sends, under mu; optional.
	sent func(from, to netip.AddrPort, b []byte)
	// received sees each packet that arrives, likewise.
	received func(at, from netip.AddrPort, b []byte)
	// lose tells, likewise, whether a packet that is sent does not arrive.
	lose func(from netip.AddrPort) bool
}

var (
	relayMain = netip.MustParseAddrPort("192.0.2.1:3478")
	relaySTUN = netip.MustParseAddrPort("192.0.2.1:3479")
)

func newBubble(t *testing.T, rtt time.Duration) *bubble {
	w := bubbleWithoutRelay(t, rtt)
	w.addRelay("r1", relayMain, relaySTUN)
	return w
}

func bubbleWithoutRelay(t *testing.T, rtt time.Duration) *bubble {
	w := &bubble{t: t, rtt: rtt, key: job.NewKey(), net: natsim.New(1, time.Now(), rtt/2)}
	var err error
	w.rdv, err = rdv.New(rdv.Config{Allow: []job.ID{w.key.ID()}, DontListen: true, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, w.rdv.Run, w.rdv.Ready())
	return w
}

func (w *bubble) addRelay(id string, main, stun netip.AddrPort) {
	r, err := relay.New(relay.Config{
		ID: id, TokenKey: w.rdv.TokenKey, Logger: logger(),
		Conns: []udpx.Socket{w.socket(main, nil), w.socket(stun, nil)},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	run(w.t, r.Run, r.Ready())
	if err := w.rdv.AddRelay(rendezvous.RelayInfo{ID: id, Addr: main, STUN: []netip.AddrPort{main, stun}}); err != nil {
		w.t.Fatal(err)
	}
}

// nat adds a NAT with the public address 198.51.100.n.
func (w *bubble) nat(n byte, k natsim.Kind) *natsim.NAT {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.net.AddNAT(k, netip.AddrFrom4([4]byte{198, 51, 100, n}))
}

// function is one that has not joined yet.
type function struct {
	w      *bubble
	name   string
	id     ident.Identity
	socket *memSocket
	nats   *slowConn // its newest connection; guarded by w.mu
}

// functions returns two, the first with the lower identity or the higher. behind says where they are; nil is
// the public network.
func (w *bubble) functions(lower bool, behind [2]*natsim.NAT) (a, b *function) {
	var ids [2]ident.Identity
	for i := range ids {
		id, err := ident.New()
		if err != nil {
			w.t.Fatal(err)
		}
		ids[i] = id
	}
	if (ids[0].Peer < ids[1].Peer) != lower {
		ids[0], ids[1] = ids[1], ids[0]
	}
	fs := make([]*function, 2)
	for i, name := range []string{"a", "b"} {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 4000)
		if behind[i] != nil {
			at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i + 1), 0, 2}), 4000)
		}
		fs[i] = &function{w: w, name: name, id: ids[i], socket: w.socket(at, behind[i])}
	}
	return fs[0], fs[1]
}

// join returns the node, and when it asked to join: its connection to NATS was up.
func (f *function) join(change ...func(*fnlib.Config)) (n *fnlib.Node, asked time.Time) {
	cfg := fnlib.Config{URL: "nats://memory", JobKey: f.w.key.Encode(), Name: f.name, Logger: logger()}
	for _, c := range change {
		c(&cfg)
	}
	began := time.Now()
	n, err := fnlib.JoinOver(f.w.t.Context(), cfg, f.id, f.socket, f)
	if err != nil {
		f.w.t.Error(err)
		return nil, began
	}
	f.w.t.Cleanup(func() { _ = n.Close() })
	return n, began.Add(n.Timings().Connect)
}

// InProcessConn makes function a rendezvous.InProcess, half a round trip from NATS.
func (f *function) InProcessConn() (net.Conn, error) {
	c, err := f.w.rdv.InProcessConn()
	if err != nil {
		return nil, err
	}
	d := &slowConn{Conn: c, in: make(chan chunk, 1<<12), out: make(chan chunk, 1<<12), closed: make(chan struct{}), delay: f.w.rtt / 2}
	go d.receive()
	go d.transmit()
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.nats = d
	return d, nil
}

// slowConn is a connection on which bytes take a while.
type slowConn struct {
	net.Conn
	delay   time.Duration
	in, out chan chunk
	rest    []byte
	closed  chan struct{}
	once    sync.Once
}

type chunk struct {
	due time.Time
	b   []byte
	err error
}

func (c *slowConn) receive() {
	for {
		b := make([]byte, 64<<10)
		n, err := c.Conn.Read(b)
		select {
		case c.in <- chunk{time.Now().Add(c.delay), b[:n], err}:
		case <-c.closed:
			return
		}
		if err != nil {
			return
		}
	}
}

func (c *slowConn) wait(t time.Time) {
	select {
	case <-time.After(time.Until(t)):
	case <-c.closed:
	}
}

func (c *slowConn) open() bool {
	select {
	case <-c.closed:
		return false
	default:
		return true
	}
}

func (c *slowConn) transmit() {
	for {
		select {
		case k := <-c.out:
			if c.wait(k.due); !c.open() {
				return
			}
			if _, err := c.Conn.Write(k.b); err != nil {
				return
			}
		case <-c.closed:
			return
		}
	}
}

func (c *slowConn) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		select {
		case k := <-c.in:
			c.wait(k.due)
			if len(k.b) == 0 {
				return 0, k.err
			}
			c.rest = k.b
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *slowConn) Write(b []byte) (int, error) {
	select {
	case c.out <- chunk{time.Now().Add(c.delay), append([]byte(nil), b...), nil}:
		return len(b), nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *slowConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *slowConn) SetDeadline(time.Time) error      { return nil }
func (c *slowConn) SetReadDeadline(time.Time) error  { return nil }
func (c *slowConn) SetWriteDeadline(time.Time) error { return nil }

// memSocket is a UDP socket of the network in memory.
type memSocket struct {
	w      *bubble
	host   *natsim.Host
	addr   netip.AddrPort
	queue  chan packet
	closed chan struct{}
	once   sync.Once
}

type packet struct {
	from netip.AddrPort
	b    []byte
}

func (w *bubble) socket(at netip.AddrPort, behind *natsim.NAT) *memSocket {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &memSocket{w: w, addr: at, queue: make(chan packet, 1<<12), closed: make(chan struct{})}
	s.host = w.net.AddHost(at, behind)
	s.host.Receive = func(_ time.Time, from netip.AddrPort, data []byte) {
		if w.received != nil {
			w.received(at, from, data)
		}
		select {
		case s.queue <- packet{from, data}:
		default:
			w.t.Error("a socket's queue is full")
		}
	}
	return s
}

// advance brings the network to the present. It runs under mu.
func (w *bubble) advance() { w.net.Run(time.Since(w.net.Now())) }

func (s *memSocket) Read(b *udpx.Batch) error {
	select {
	case p := <-s.queue:
		b.N = copy(b.Buf, p.b)
		b.Seg, b.From, b.ECN = b.N, p.from, 0
		return nil
	case <-s.closed:
		return net.ErrClosed
	}
}

func (s *memSocket) Write(b []byte, seg int, _ byte, to netip.AddrPort) error {
	if seg <= 0 {
		seg = len(b)
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.advance()
	for len(b) > 0 {
		p := b[:min(seg, len(b))]
		b = b[len(p):]
		if s.w.sent != nil {
			s.w.sent(s.addr, to, p)
		}
		if s.w.lose == nil || !s.w.lose(s.addr) {
			s.host.Send(to, p)
		}
	}
	time.AfterFunc(s.w.net.Delay(s.addr.Addr(), to.Addr()), func() {
		s.w.mu.Lock()
		defer s.w.mu.Unlock()
		s.w.advance()
	})
	return nil
}

func (s *memSocket) LocalAddr() netip.AddrPort { return s.addr }

func (s *memSocket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}
