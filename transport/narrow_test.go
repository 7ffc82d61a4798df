package transport_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/transport"
)

const (
	ethernet  = 1500
	ipAndUDP  = 28
	oneWay    = 20 * time.Millisecond
	chunk     = 8 << 10
	chunkPace = 20 * time.Millisecond
)

var meshRelay = netip.MustParseAddrPort("192.0.2.1:3478")

// mesh is a network in memory and in virtual time, on which packets that are too long for a line are lost.
type mesh struct {
	mu      sync.Mutex // guards what follows
	sockets map[netip.AddrPort]*meshSocket
	mtu     func(from, to netip.AddrPort) int // of the path between two
	farther time.Duration                     // than oneWay
}

type meshSocket struct {
	*net.UDPConn // of the system, never used: QUIC looks for longer packets only on a socket that it can set options of
	mesh         *mesh
	addr         netip.AddrPort
	queue        chan meshPacket
	closed       chan struct{}
	once         sync.Once
}

type meshPacket struct {
	due  time.Time
	from netip.AddrPort
	b    []byte
}

// newMesh returns a mesh without sockets.
func newMesh(mtu func(from, to netip.AddrPort) int) *mesh {
	return &mesh{sockets: make(map[netip.AddrPort]*meshSocket), mtu: mtu}
}

// wide has all packets pass.
func wide(netip.AddrPort, netip.AddrPort) int { return ethernet }

// inMesh runs f in virtual time, with a socket to lend.
func inMesh(t *testing.T, f func(*testing.T, *net.UDPConn)) {
	lent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer lent.Close()
	synctest.Test(t, func(t *testing.T) { f(t, lent) })
}

func (m *mesh) socket(addr netip.AddrPort, lent *net.UDPConn) *meshSocket {
	s := &meshSocket{UDPConn: lent, mesh: m, addr: addr, queue: make(chan meshPacket, 1<<12), closed: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets[addr] = s
	return s
}

func (m *mesh) set(mtu func(from, to netip.AddrPort) int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mtu = mtu
}

func (s *meshSocket) Write(b []byte, seg int, _ byte, to netip.AddrPort) error {
	s.mesh.mu.Lock()
	far, mtu, due := s.mesh.sockets[to], s.mesh.mtu(s.addr, to), time.Now().Add(oneWay+s.mesh.farther)
	s.mesh.mu.Unlock()
	if seg <= 0 {
		seg = len(b)
	}
	for len(b) > 0 && far != nil {
		n := min(seg, len(b))
		if n+ipAndUDP <= mtu {
			select {
			case far.queue <- meshPacket{due, s.addr, append([]byte(nil), b[:n]...)}:
			default: // lost, as in a full buffer
			}
		}
		b = b[n:]
	}
	return nil
}

func (s *meshSocket) Read(b *udpx.Batch) error {
	select {
	case p := <-s.queue:
		time.Sleep(time.Until(p.due))
		b.N = copy(b.Buf, p.b)
		b.Seg, b.From, b.ECN = b.N, p.from, 0
		return nil
	case <-s.closed:
		return net.ErrClosed
	}
}

func (s *meshSocket) LocalAddr() netip.AddrPort { return s.addr }

// SyscallConn lends the other socket for its options.
func (s *meshSocket) SyscallConn() (syscall.RawConn, error) { return s.UDPConn.SyscallConn() }

func (s *meshSocket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// meshPair is two endpoints on a mesh, each bound to the relay if there is one; the first dials.
func meshPair(t *testing.T, m *mesh, lent *net.UDPConn, withRelay bool) (client, server *transport.Endpoint) {
	t.Helper()
	key := job.NewKey()
	bind := func(*transport.Endpoint, ident.Identity) {}
	if withRelay {
		bind = meshRelayServer(t, m, key)
	}
	var es [2]*transport.Endpoint
	for i := range es {
		id, err := ident.New()
		if err != nil {
			t.Fatal(err)
		}
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 4000)
		es[i], err = transport.Open(transport.Config{Identity: id, Key: key, Sockets: []udpx.Socket{m.socket(at, lent)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = es[i].Close() })
		bind(es[i], id)
	}
	if es[0].Dials(es[1].PeerID()) {
		return es[0], es[1]
	}
	return es[1], es[0]
}

// meshRelayServer runs a relay and returns what binds an endpoint to it.
func meshRelayServer(t *testing.T, m *mesh, key job.Key) (bind func(*transport.Endpoint, ident.Identity)) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Config{
		ID: "r", TokenKey: func() ed25519.PublicKey { return pub },
		Conns: []udpx.Socket{m.socket(meshRelay, nil), m.socket(netip.AddrPortFrom(meshRelay.Addr(), meshRelay.Port()+1), nil)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	<-s.Ready()
	return func(e *transport.Endpoint, id ident.Identity) {
		tok := token.Mint(priv, "r", token.Token{
			Job: key.ID(), Peer: [32]byte(id.Ed25519.Public().(ed25519.PublicKey)), Expires: time.Now().Add(time.Hour),
		})
		leg := relay.NewClient(relay.Config{ID: "r", Addr: meshRelay, Token: tok, Identity: id, Job: key.ID(), Send: e.Write})
		e.AddRelay(leg)
		running.Go(func() { _ = leg.Run(ctx) })
		<-leg.Ready()
	}
}

// pour sends random bytes at a pace until ctx ends, and their digest.
func pour(ctx context.Context, l *transport.Link, size int, pace time.Duration) error {
	s, err := l.OpenStream(context.Background())
	if err != nil {
		return err
	}
	h := sha256.New()
	for b := make([]byte, size); ctx.Err() == nil; time.Sleep(pace) {
		_, _ = rand.Read(b) // never fails (crypto/rand)
		h.Write(b)
		if _, err := s.Write(b); err != nil {
			return err
		}
	}
	if _, err := s.Write(h.Sum(nil)); err != nil {
		return err
	}
	return s.CloseWrite()
}

// drain reads that, checks the digest, and returns the longest pause from a time on.
func drain(l *transport.Link, from time.Time) (longest time.Duration, err error) {
	s, err := l.AcceptStream(context.Background())
	if err != nil {
		return 0, err
	}
	h, rest, last := sha256.New(), []byte(nil), time.Now()
	for b := make([]byte, chunk); ; {
		n, err := s.Read(b)
		now := time.Now()
		if now.After(from) {
			longest = max(longest, now.Sub(last))
		}
		last = now
		rest = append(rest, b[:n]...)
		if k := len(rest) - sha256.Size; k > 0 {
			h.Write(rest[:k])
			rest = append(rest[:0], rest[k:]...)
		}
		switch {
		case errors.Is(err, io.EOF) && !bytes.Equal(rest, h.Sum(nil)):
			return longest, errors.New("other bytes than were sent")
		case errors.Is(err, io.EOF):
			return longest, nil
		case err != nil:
			return longest, err
		}
	}
}

// narrowing is one way in which a path becomes too narrow.
type narrowing struct {
	class          transport.Class
	blocked, alone bool // the direct path is blocked; there is no relay
	pathOnly       bool // the relay is not concerned
	talk           bool // the receiver talks too, so the sender hears it all the time
	mtu            int
	outage         time.Duration // it is over after that
	within         time.Duration // the longest gap
	cut            bool          // packets go in pieces to the end
	after          string        // the path at the end; "" = as before
}

// A transfer survives, in either direction, that the line of one side becomes narrower than what is sent on it, with a short gap, and
// soon goes on with packets that fit.
func TestNarrowLine(t *testing.T) {
	lent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer lent.Close()
	const short, looks = 1250 * time.Millisecond, 4 * time.Second // QUIC's own attempts bring it, or else the look of a second
	for name, n := range map[string]narrowing{
		"direct 1280":       {mtu: 1280, within: short},
		"direct 1300":       {mtu: 1300, within: short},
		"direct 1400":       {mtu: 1400, within: short},
		"direct 1000":       {mtu: 1000, within: 2 * short, cut: true, after: "relay"},
		"relayed 1280":      {mtu: 1280, within: short, blocked: true},
		"relayed 1300":      {mtu: 1300, within: short, blocked: true},
		"relayed 1400":      {mtu: 1400, within: short, blocked: true},
		"relayed 1000":      {mtu: 1000, within: short, blocked: true, cut: true},
		"relay only":        {mtu: 1280, within: short, class: transport.RelayOnly},
		"direct only":       {mtu: 1280, within: short, class: transport.DirectOnly},
		"no relay":          {mtu: 1280, within: short, alone: true, cut: true},
		"silent for long":   {outage: 700 * time.Millisecond, within: 2 * short, class: transport.RelayOnly},
		"direct path alone": {mtu: 1280, within: short, pathOnly: true},
		"both talk":         {mtu: 1280, within: looks, talk: true},
		"both talk relayed": {mtu: 1280, within: looks, talk: true, blocked: true},
	} {
		for _, sender := range []string{"client", "server"} {
			t.Run(name+", "+sender+" sends", func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { n.run(t, lent, sender == "client") })
			})
		}
	}
}

// A peer that is farther away than a second gets packets as they are, for as long as the path is wide.
func TestFarAway(t *testing.T) {
	inMesh(t, func(t *testing.T, lent *net.UDPConn) {
		const rtt, near, settles, far = 1500 * time.Millisecond, 3 * time.Second, 20 * time.Second, 30 * time.Second
		m := newMesh(wide)
		client, server := meshPair(t, m, lent, true)
		lc, ls := meshLinks(t, client, server, transport.RelayOnly, "r")
		go func() { _ = pour(t.Context(), lc, chunk/4, chunkPace) }()
		go func() { _, _ = drain(ls, time.Now()) }()
		time.Sleep(near)
		m.mu.Lock()
		m.farther = rtt/4 - oneWay // two lines there, two back
		m.mu.Unlock()
		time.Sleep(settles)
		before := client.Stats().Cut
		for range far / time.Second {
			time.Sleep(time.Second)
			if st := lc.Status(); client.Stats().Cut != before || st.RTT < rtt-oneWay {
				t.Fatalf("%d packets in pieces; %+v", client.Stats().Cut-before, st)
			}
		}
	})
}

// meshLinks links two endpoints.
func meshLinks(t *testing.T, client, server *transport.Endpoint, class transport.Class, relay string) (lc, ls *transport.Link) {
	t.Helper()
	for _, p := range [][2]*transport.Endpoint{{client, server}, {server, client}} {
		if err := p[0].Admit(describe(p[1], relay), class, false); err != nil {
			t.Fatal(err)
		}
	}
	lc, err := client.Link(t.Context(), server.PeerID(), class)
	if err != nil {
		t.Fatal(err)
	}
	if ls, err = server.Link(t.Context(), client.PeerID(), class); err != nil {
		t.Fatal(err)
	}
	return lc, ls
}

func (n narrowing) path() string {
	if n.blocked || n.class == transport.RelayOnly {
		return "relay"
	}
	return "direct"
}

func (n narrowing) run(t *testing.T, lent *net.UDPConn, clientSends bool) {
	lines := func(mtu int) func(from, to netip.AddrPort) int {
		return func(from, to netip.AddrPort) int {
			switch relayed := from == meshRelay || to == meshRelay; {
			case n.blocked && !relayed:
				return 0
			case n.pathOnly && relayed || from.Addr() != meshFirst && to.Addr() != meshFirst:
				return ethernet
			}
			return mtu
		}
	}
	m := newMesh(lines(ethernet))
	client, server := meshPair(t, m, lent, !n.alone)
	relay := "r"
	if n.alone {
		relay = ""
	}
	lc, ls := meshLinks(t, client, server, n.class, relay)
	from, to, sender := lc, ls, client
	if !clientSends {
		from, to, sender = ls, lc, server
	}
	const calm, after = 2500 * time.Millisecond, 10 * time.Second
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), calm+after)
	defer cancel()
	ended := make(chan error, 4)
	go func() { ended <- pour(ctx, from, chunk, chunkPace) }()
	go func() {
		longest, err := drain(to, began.Add(calm))
		if err == nil && (longest > n.within || longest < 3*oneWay) {
			err = fmt.Errorf("the longest gap is %v", longest)
		}
		t.Logf("longest gap %v", longest)
		ended <- err
	}()
	flows := 2
	if n.talk {
		flows = 4
		go func() { ended <- pour(ctx, to, 64, 2*chunkPace) }()
		go func() {
			_, err := drain(from, began)
			ended <- err
		}()
	}
	time.Sleep(calm)
	if st := from.Status(); st.Path != n.path() {
		t.Fatalf("before: %+v", st)
	}
	if c := sender.Stats().Cut; c != 0 {
		t.Errorf("%d packets in pieces on a path that is wide", c)
	}
	m.set(lines(n.mtu))
	if n.outage > 0 {
		time.Sleep(n.outage)
		m.set(lines(ethernet))
	}
	time.Sleep(after - 2*time.Second - n.outage)
	before := sender.Stats().Cut
	if before == 0 && !n.pathOnly {
		t.Error("no packet in pieces")
	}
	for range flows {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	// A QUIC server begins anew with each direct path, a client only when it goes there by itself.
	if got := sender.Stats().Cut; (got > before) != (n.cut || n.class == transport.DirectOnly && clientSends) {
		t.Errorf("%d packets in pieces at last; %+v", got-before, from.Status())
	}
	if st := from.Status(); st.Path != cmp.Or(n.after, n.path()) {
		t.Errorf("after: %+v", st)
	}
}

var meshFirst = netip.AddrFrom4([4]byte{203, 0, 113, 1})
