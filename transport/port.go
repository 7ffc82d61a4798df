package transport

import (
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	bigBuffer   = 64 << 10 // one read with generic receive offload
	midBuffer   = 8 << 10  // some packets
	smallBuffer = 2 << 10  // a lone packet; so that a queue of them stays small
	portQueue   = 1024     // runs, which are single packets if they come one at a time: what a fast line brings while a busy machine lets QUIC wait
	portBytes   = 4 << 20  // of their buffers
	portBusy    = 32       // runs after which QUIC has its turn: it drops what comes to one connection beyond 256 packets
)

// buffer is shared by the runs that were cut from one read.
type buffer struct {
	b    []byte
	refs atomic.Int32
	pool *sync.Pool
}

func newPool(size int) *sync.Pool {
	p := &sync.Pool{}
	p.New = func() any { return &buffer{b: make([]byte, size), pool: p} }
	return p
}

func getBuffer(p *sync.Pool) *buffer {
	b := p.Get().(*buffer)
	b.refs.Store(1)
	return b
}

func (b *buffer) release() {
	if b.refs.Add(-1) == 0 {
		b.pool.Put(b)
	}
}

// packetRun is a run of packets from one source at equal distances in one buffer.
type packetRun struct {
	buf    *buffer
	data   []byte
	stride int // from one packet's header to the next
	skip   int // bytes of header before each packet
	src    *net.UDPAddr
}

func (r *packetRun) next() []byte {
	n := min(r.stride, len(r.data))
	b := r.data[r.skip:n]
	r.data = r.data[n:]
	return b
}

// port is what one quic.Transport reads from and writes to: the hub's packets of one class.
// It is an [quic.OOBCapablePacketConn] with ReadBatch when it wraps a real socket (see oobPort).
// Reads are for one goroutine, everything else is safe for many.
type port struct {
	hub    *hub
	class  Class
	local  *net.UDPAddr
	queue  chan packetRun
	held   atomic.Int64 // bytes of the queue's buffers; one that runs share counts for each
	cur    packetRun
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex // guards what follows
	expired chan struct{}
	timer   *time.Timer
}

func newPort(h *hub, class Class) *port {
	return &port{
		hub:     h,
		class:   class,
		local:   virtualAddr(h.self, relayGeneration),
		queue:   make(chan packetRun, portQueue),
		closed:  make(chan struct{}),
		expired: make(chan struct{}),
	}
}

// deliver hands over a run, or drops it when QUIC does not keep up.
func (p *port) deliver(r packetRun) {
	n := int64(len(r.buf.b))
	if p.held.Add(n) <= portBytes {
		select {
		case p.queue <- r:
			if len(p.queue) >= portBusy { // what comes next may wait in the socket
				runtime.Gosched()
			}
			return
		default:
		}
	}
	p.held.Add(-n)
	r.buf.release()
	p.hub.stats.dropped.Add(1)
}

// take has a run from the queue be the one at hand.
func (p *port) take(r packetRun) {
	p.cur = r
	p.held.Add(-int64(len(r.buf.b)))
}

// fill waits for the next run unless wait is false.
func (p *port) fill(wait bool) (ok bool, err error) {
	if p.cur.buf != nil {
		p.cur.buf.release()
		p.cur = packetRun{}
	}
	select {
	case r := <-p.queue:
		p.take(r)
		return true, nil
	default:
	}
	if !wait {
		return false, nil
	}
	p.mu.Lock()
	expired := p.expired
	p.mu.Unlock()
	select {
	case r := <-p.queue:
		p.take(r)
		return true, nil
	case <-expired:
		return false, os.ErrDeadlineExceeded
	case <-p.closed:
		return false, net.ErrClosed
	}
}

// ReadBatch fills messages with packets, at least one.
func (p *port) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	n := 0
	for n < len(ms) {
		if len(p.cur.data) == 0 {
			ok, err := p.fill(n == 0)
			if err != nil {
				return 0, err
			}
			if !ok {
				break
			}
		}
		ms[n].N = copy(ms[n].Buffers[0], p.cur.next())
		ms[n].NN = 0
		ms[n].Addr = p.cur.src
		n++
	}
	return n, nil
}

func (p *port) ReadFrom(b []byte) (int, net.Addr, error) {
	if len(p.cur.data) == 0 {
		if _, err := p.fill(true); err != nil {
			return 0, nil, err
		}
	}
	return copy(b, p.cur.next()), p.cur.src, nil
}

func (p *port) WriteTo(b []byte, a net.Addr) (int, error) {
	to, ok := a.(*net.UDPAddr)
	if !ok {
		return len(b), nil
	}
	return len(b), p.hub.send(p.class, b, len(b), to)
}

func (p *port) LocalAddr() net.Addr { return p.local }

// Close ends reads. The socket is the hub's and stays open.
func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *port) SetDeadline(t time.Time) error    { return p.SetReadDeadline(t) }
func (p *port) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline is how quic.Transport.Close ends its read loop.
func (p *port) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		if !p.timer.Stop() {
			p.expired = make(chan struct{}) // the timer closes the old one, if it has not yet
		}
		p.timer = nil
	}
	select {
	case <-p.expired:
		p.expired = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	ch := p.expired
	if d := time.Until(t); d > 0 {
		p.timer = time.AfterFunc(d, func() { close(ch) })
	} else {
		close(ch)
	}
	return nil
}

// oobPort lets quic-go use generic segmentation offload: it hands whole batches to WriteMsgUDP and
// reads with ReadBatch.
type oobPort struct {
	*port
	raw syscall.RawConn // of the real socket; quic-go asks it what the kernel can do
}

func (p *oobPort) SyscallConn() (syscall.RawConn, error) { return p.raw, nil }

// SetReadBuffer and SetWriteBuffer do nothing: the hub has sized the socket's buffers.
func (p *oobPort) SetReadBuffer(int) error { return nil }

// SetWriteBuffer is looked for by quic-go although no interface names it.
func (p *oobPort) SetWriteBuffer(int) error { return nil }

// ReadMsgUDP is part of quic-go's interface, but it reads with ReadBatch only.
func (p *oobPort) ReadMsgUDP(b, _ []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, a, err := p.ReadFrom(b)
	addr, _ = a.(*net.UDPAddr)
	return n, 0, 0, addr, err
}

// WriteMsgUDP sends one packet, or a batch when oob asks for segmentation. The other control message
// that quic-go may add, ECN, is dropped: the family of a virtual address says nothing about the real
// one, and a relay could not carry the mark. Any error but "too big" would end the QUIC connection
// (quic-go tells EMSGSIZE alone apart), so the hub keeps all others to itself.
//
// Packets above maxPacketSize are refused: QUIC's MTU discovery must not find a size that works
// directly (1,452 bytes) and not over the relay, whose header comes on top, because quic-go never
// lowers a size again. 1,420 leaves room for header and IP on a path MTU of 1,460.
func (p *oobPort) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	seg := segmentSize(oob)
	if seg == 0 || seg > len(b) {
		seg = len(b)
	}
	return len(b), len(oob), p.hub.send(p.class, b, seg, to)
}

// shim is the write-only leg of a direct path: QUIC's client sends on it after AddPath, and the hub
// sees the generation. Packets come in through the class's own port.
type shim struct {
	*port
	peer *remote
	gen  atomic.Uint32
}

func (s *shim) WriteTo(b []byte, _ net.Addr) (int, error) {
	return len(b), s.hub.sendPeer(s.peer, s.class, uint16(s.gen.Load()), b, len(b))
}

// oobShim is a shim with segmentation offload.
type oobShim struct {
	*oobPort
	shim *shim
}

func (s *oobShim) WriteTo(b []byte, a net.Addr) (int, error) { return s.shim.WriteTo(b, a) }

func (s *oobShim) WriteMsgUDP(b, oob []byte, _ *net.UDPAddr) (n, oobn int, err error) {
	seg := segmentSize(oob)
	if seg == 0 || seg > len(b) {
		seg = len(b)
	}
	return len(b), len(oob), s.hub.sendPeer(s.shim.peer, s.class, uint16(s.shim.gen.Load()), b, seg)
}
