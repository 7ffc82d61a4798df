package transport

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/internal/ident"
)

// The first packets of a QUIC handshake travel in offers and answers, which cross the network anyway, rather
// than one round trip behind them. The hub owns what QUIC writes to, so it collects them there, and at the
// other side hands them to QUIC as if they had come from the peer.

const (
	// MaxFlight is the most bytes of packets that one side collects for an offer or answer.
	MaxFlight = 4000

	flightWait = 20 * time.Millisecond // for QUIC to write its packets; it takes a millisecond
	// attemptFor is how long an Attempt waits for its peer. What it measures as its first round-trip time
	// is this wait, so a longer one would make a slow start.
	attemptFor = 500 * time.Millisecond
)

// vouched is the zone of the virtual address of a peer whose packet came in a verified answer. No packet from
// a network gets it. QUIC compares addresses without their zones.
const vouched = "answer"

func isVouched(a net.Addr) bool {
	u, ok := a.(*net.UDPAddr)
	return ok && u.Zone == vouched
}

// Flight is what QUIC writes first for one peer and class. It is collected for a moment.
type Flight struct {
	server bool
	at     *atomic.Pointer[Flight] // where the hub finds it while it is collected; nil for an Attempt

	mu      sync.Mutex // guards what follows
	packets [][]byte
	bytes   int
	over    bool
	done    chan struct{} // closed when over, or when all is there
}

func newFlight(server bool, at *atomic.Pointer[Flight], wait time.Duration) *Flight {
	f := &Flight{server: server, at: at, done: make(chan struct{})}
	if at != nil {
		at.Store(f)
	}
	time.AfterFunc(wait, func() { f.take() })
	return f
}

// add takes packets of seg bytes each, unless they are not of a handshake or the flight has left. What does
// not fit is lost, and QUIC sends it again. An Attempt's flight that has left without anything, since QUIC took long, is filled yet: for resend.
func (f *Flight) add(b []byte, seg int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over && (f.at != nil || f.bytes > 0) || len(b) == 0 {
		return false
	}
	if !isLongHeader(b) {
		if len(f.packets) > 0 { // behind the handshake
			f.complete()
		}
		return false
	}
	if seg <= 0 {
		seg = len(b)
	}
	for len(b) > 0 {
		p := b[:min(seg, len(b))]
		b = b[len(p):]
		if f.bytes+len(p) <= MaxFlight {
			f.packets = append(f.packets, append([]byte(nil), p...))
			f.bytes += len(p)
		}
		// A client says all in its first packet. A server does when a packet of the next stage shares a
		// datagram with it: QUIC has room to spare only behind the last of the handshake.
		if !f.server || endsShort(p) {
			f.complete()
		}
	}
	return true
}

func (f *Flight) complete() {
	select {
	case <-f.done:
	default:
		close(f.done)
	}
}

// take ends the collection.
func (f *Flight) take() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	f.complete()
	if f.at != nil {
		f.at.CompareAndSwap(f, nil)
	}
	return f.packets
}

// Wait returns the packets when all are there, or what there is after a moment. From then on packets take
// their usual way. A nil Flight has none.
func (f *Flight) Wait(ctx context.Context) [][]byte {
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
	case <-ctx.Done():
	}
	return f.take()
}

// endsShort reports whether a datagram of QUIC packets ends with one with a short header (RFC 9000, 12.2).
func endsShort(b []byte) bool {
	for len(b) > 0 {
		if !isLongHeader(b) {
			return true
		}
		n, ok := longLen(b)
		if !ok || n > len(b) {
			return false
		}
		b = b[n:]
	}
	return false
}

// longLen is the length of an Initial or Handshake packet of QUIC version 1 (RFC 9000, 17.2).
func longLen(b []byte) (n int, ok bool) {
	rest := b[min(5, len(b)):]
	skip := func(n int) bool {
		if n > len(rest) {
			return false
		}
		rest = rest[n:]
		return true
	}
	for range 2 { // connection IDs
		if len(rest) == 0 || !skip(1+int(rest[0])) {
			return 0, false
		}
	}
	if kind := b[0] >> 4 & 3; kind == 0 { // Initial: a token
		n, ok := varint(&rest)
		if !ok || n > uint64(len(rest)) || !skip(int(n)) {
			return 0, false
		}
	} else if kind != 2 {
		return 0, false
	}
	l, ok := varint(&rest)
	if !ok || l > uint64(len(rest)) {
		return 0, false
	}
	return len(b) - len(rest) + int(l), true
}

func varint(b *[]byte) (v uint64, ok bool) {
	if len(*b) == 0 {
		return 0, false
	}
	n := 1 << ((*b)[0] >> 6)
	if len(*b) < n {
		return 0, false
	}
	v = uint64((*b)[0] & 0x3f)
	for _, c := range (*b)[1:n] {
		v = v<<8 | uint64(c)
	}
	*b = (*b)[n:]
	return v, true
}

// Attempt is a QUIC connection to whoever answers an offer: its first flight goes with the offer, when the
// peer is not known yet. It is worth something if the peer that answers is to be dialled (see
// [Endpoint.Dials]) and does so soon.
type Attempt struct {
	e      *Endpoint
	class  Class
	flight *Flight
	to     atomic.Pointer[remote]
	cancel context.CancelFunc
	timer  *time.Timer
	done   chan struct{} // closed when conn or err is set
	conn   *quic.Conn
	err    error
}

// Attempt begins to dial a peer that is not known yet, not for DirectOnly.
func (e *Endpoint) Attempt(class Class) (*Attempt, error) {
	if class >= classes || class == DirectOnly {
		return nil, ErrNoDirect
	}
	if err := e.listen(class); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	a := &Attempt{e: e, class: class, flight: newFlight(false, nil, e.flightWait), done: make(chan struct{})}
	var short ident.Short // stands for the peer
	_, _ = rand.Read(short[:])
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(e.ctx)
	a.timer = time.AfterFunc(attemptFor, a.cancel)
	e.hub.update(func(t *tables) { t.attempts[short] = a })
	tr := e.trs[class]
	e.wg.Go(func() {
		a.conn, a.err = tr.Dial(ctx, virtualAddr(short, relayGeneration), a.tls(), e.quicConfig())
		close(a.done)
		a.timer.Stop()
		if a.err == nil {
			<-a.conn.Context().Done()
		}
		a.cancel()
		e.hub.update(func(t *tables) { delete(t.attempts, short) })
	})
	return a, nil
}

// tls checks the peer's identity when there is one to expect.
func (a *Attempt) tls() *tls.Config {
	conf := a.e.tlsFor("")
	conf.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
		p := a.to.Load()
		if p == nil {
			return errNotAdmitted
		}
		return a.e.tlsFor(p.id).VerifyPeerCertificate(raw, chains)
	}
	return conf
}

// Flight returns the packets for the offer, or none when the attempt has ended.
func (a *Attempt) Flight(ctx context.Context) [][]byte {
	select {
	case <-a.done:
		return nil
	default:
		return a.flight.Wait(ctx)
	}
}

// Cancel ends the attempt unless a peer was found for it.
func (a *Attempt) Cancel() {
	if a.to.Load() == nil {
		a.cancel()
	}
}

// adopt gives the attempt its peer. It is too late when that fails. It runs under e.mu.
func (a *Attempt) adopt(p *remote) bool {
	if a.to.Load() != nil || !a.timer.Stop() {
		return false
	}
	a.to.Store(p)
	return true
}

// wait returns the connection of an adopted attempt.
func (a *Attempt) wait(ctx context.Context) (*quic.Conn, error) {
	select {
	case <-a.done:
		return a.conn, a.err
	case <-ctx.Done():
		a.cancel()
		<-a.done
		if a.err == nil {
			return a.conn, nil
		}
		return nil, context.Cause(ctx)
	}
}

// send takes what QUIC sends: into the flight, or to the peer. What comes when the flight has left and there
// is no peer is a repetition, and is lost.
func (a *Attempt) send(gen uint16, b []byte, seg int) error {
	if p := a.to.Load(); p != nil {
		return a.e.hub.sendPeer(p, a.class, gen, b, seg)
	}
	a.flight.add(b, seg)
	return nil
}

// resend sends the flight again, to a peer that has not got it.
func (a *Attempt) resend(p *remote) {
	for _, b := range a.flight.take() {
		_ = a.e.hub.sendPeer(p, a.class, relayGeneration, b, len(b)) // or QUIC sends it once more
	}
}

// inject hands packets to QUIC that came in an offer or answer, as if they had come through the relay.
func (h *hub) inject(p *remote, class Class, packets [][]byte, src *net.UDPAddr) {
	port := h.ports[class].Load()
	if port == nil {
		return
	}
	for _, b := range packets {
		if c, ok := classOf(b); !ok || c != class || len(b) > smallBuffer {
			h.stats.strangers.Add(1)
			continue
		}
		buf := getBuffer(h.small)
		n := copy(buf.b, b)
		port.deliver(packetRun{buf: buf, data: buf.b[:n], stride: n, src: src})
	}
}
