package transport

import (
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/transport/pieces"
)

// hub owns the instance's sockets, one per address family, and stands between them and QUIC.
//
// In: one goroutine per socket reads batches, tells STUN, punch, relay and QUIC packets apart by their
// first byte, and queues QUIC packets for the port of their class under the virtual address of the
// peer. Whoever is not an admitted peer on a known path is dropped here, before any cryptography.
// Out: QUIC's packets for a virtual address go out directly, through the peer's relay, or both.
//
// The packet path takes no lock: the tables are replaced as a whole when they change.
type hub struct {
	self  ident.Short
	log   *slog.Logger
	epoch time.Time // the zero of now
	v4    udpx.Socket
	v6    udpx.Socket // nil without IPv6
	big   *sync.Pool
	mid   *sync.Pool
	small *sync.Pool
	ports [classes]atomic.Pointer[port]
	stats hubStats

	stun      stunClient
	answering atomic.Pointer[[]netip.AddrPort] // STUN servers
	extras    atomic.Int64                     // see reserve
	guesses   guessBudget
	outlooks  outlooks
	pace      pace
	legs      atomic.Pointer[map[string]Relay] // by ID

	tables atomic.Pointer[tables]
	mu     sync.Mutex // serialises changes of tables
	stash  stash
	wg     sync.WaitGroup
}

type hubStats struct {
	directIn, directOut, relayIn, relayOut atomic.Uint64 // bytes
	dropped, strangers                     atomic.Uint64 // packets or runs
	cut                                    atomic.Uint64 // packets
}

// tables is never changed once published.
type tables struct {
	peers map[ident.Short]*remote
	paths map[netip.AddrPort]*remote // direct paths in use
	tags  map[[4]byte]*remote        // first bytes of punch transactions
	legs  map[netip.AddrPort]Relay
	// attempts have virtual addresses of their own until QUIC leaves the relay.
	attempts map[ident.Short]*Attempt
}

func newHub(self ident.Short, log *slog.Logger, v4, v6 udpx.Socket) *hub {
	h := &hub{self: self, log: log, epoch: time.Now(), big: newPool(bigBuffer), mid: newPool(midBuffer), small: newPool(smallBuffer)}
	if v4 != nil {
		h.v4 = coalesce(v4, &h.wg, h.sendFailed)
	}
	if v6 != nil {
		h.v6 = coalesce(v6, &h.wg, h.sendFailed)
	}
	h.tables.Store(&tables{})
	h.legs.Store(&map[string]Relay{})
	h.answering.Store(&[]netip.AddrPort{})
	return h
}

// now is nanoseconds since the hub began, never 0.
func (h *hub) now() int64 { return int64(time.Since(h.epoch)) + 1 }

// update replaces the tables by a changed copy.
func (h *hub) update(change func(*tables)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.tables.Load()
	t := &tables{
		peers: cloneMap(old.peers), paths: cloneMap(old.paths),
		tags: cloneMap(old.tags), legs: cloneMap(old.legs), attempts: cloneMap(old.attempts),
	}
	change(t)
	h.tables.Store(t)
}

func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return make(map[K]V)
	}
	return maps.Clone(m)
}

func (h *hub) start() {
	for _, s := range []udpx.Socket{h.v4, h.v6} {
		if s != nil {
			h.wg.Go(func() { h.read(s) })
		}
	}
}

// close closes the sockets and waits for the readers.
func (h *hub) close() {
	for _, s := range []udpx.Socket{h.v4, h.v6} {
		if s != nil {
			_ = s.Close() // nothing to lose: datagrams
		}
	}
	h.wg.Wait()
}

func (h *hub) read(s udpx.Socket) {
	var b udpx.Batch
	for {
		buf := getBuffer(h.big)
		b.Buf = buf.b
		err := s.Read(&b)
		if err == nil {
			h.dispatch(&b, buf, nil)
		}
		buf.release()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			h.log.Warn("transport: reading the socket failed; retrying", "error", err)
			time.Sleep(10 * time.Millisecond) // a lasting failure must not spin
		}
	}
}

// poolFor is that of the least buffers for so many bytes.
func (h *hub) poolFor(n int) *sync.Pool {
	switch {
	case n <= smallBuffer:
		return h.small
	case n <= midBuffer:
		return h.mid
	}
	return h.big
}

// dispatchRelayed is dispatch for frames of seg bytes each that a leg got on a connection of its own.
func (h *hub) dispatchRelayed(leg Relay, b []byte, seg int) {
	buf := getBuffer(h.poolFor(len(b)))
	defer buf.release()
	data := buf.b[:copy(buf.b, b)]
	c := cutter{hub: h, t: h.tables.Load(), leg: leg, buf: buf, data: data}
	for c.off < len(data) {
		n := min(seg, len(data)-c.off)
		if frame := data[c.off : c.off+n : c.off+n]; frame[0] >= firstRelay && frame[0] <= lastRelay {
			c.relayed(frame)
		} else {
			h.stats.strangers.Add(1)
		}
		c.off += n
	}
	c.flush()
}

// dispatch cuts a batch, which has one source, into runs for QUIC and single packets for the rest. x is the
// socket if it is not one of the hub's own.
func (h *hub) dispatch(b *udpx.Batch, buf *buffer, x *extra) {
	data := b.Buf[:b.N]
	if b.N == 0 {
		return
	}
	if pool := h.poolFor(b.N); pool != h.big {
		own := getBuffer(pool)
		defer own.release()
		data, buf = own.b[:copy(own.b, data)], own
	}
	seg := b.Seg
	if seg <= 0 {
		seg = b.N
	}
	c := cutter{hub: h, t: h.tables.Load(), from: b.From, buf: buf, data: data}
	if x == nil {
		c.leg = c.t.legs[b.From]
		c.path = c.t.paths[b.From]
	} else {
		c.extra = x
		if r := x.owner.route.Load(); r.by == x && r.path == b.From {
			c.path = x.owner
		}
	}
	for c.off < len(data) {
		n := min(seg, len(data)-c.off)
		c.packet(data[c.off : c.off+n : c.off+n])
		c.off += n
	}
	c.flush()
}

// cutter collects neighbouring QUIC packets of one source and class into a run.
type cutter struct {
	hub   *hub
	t     *tables
	from  netip.AddrPort
	leg   Relay   // set if from is a relay
	path  *remote // set if from is a direct path in use
	extra *extra  // set if it came in there
	buf   *buffer
	data  []byte
	off   int // of the frame at hand

	port       *port // nil: no run is open
	start, end int   // of the run in data
	run        packetRun
}

func (c *cutter) flush() {
	if c.port == nil {
		return
	}
	c.buf.refs.Add(1)
	c.run.buf, c.run.data = c.buf, c.data[c.start:c.end]
	c.port.deliver(c.run)
	c.port = nil
}

// add puts the frame at hand, n bytes whose packet starts at skip, into the run.
func (c *cutter) add(p *port, src *net.UDPAddr, n, skip int) {
	same := c.port == p && c.end == c.off && c.run.src == src && c.run.skip == skip
	if !same || (c.end-c.start)%c.run.stride != 0 || n > c.run.stride {
		c.flush()
		c.port, c.start = p, c.off
		c.run = packetRun{stride: n, skip: skip, src: src}
	}
	c.end = c.off + n
}

func (c *cutter) packet(b []byte) {
	switch first := b[0]; {
	case first >= firstQUIC:
		c.direct(b)
	case first >= pieces.First && first <= pieces.Last && c.path != nil:
		c.path.heard.Store(c.hub.now())
		c.hub.piece(c.t, c.path, nil, c.path.route.Load().gen, b)
	case c.leg != nil && first >= firstRelay && first <= lastRelay:
		c.relayed(b)
	case first >= firstPunch && first <= lastPunch:
		if c.extra != nil {
			c.extra.owner.receivePunch(c.from, c.extra.id, b)
		} else {
			c.hub.punch(c.t, nil, c.from, b)
		}
	case first <= lastSTUN:
		c.hub.stun.handle(c.from, b)
	default:
		c.hub.stats.strangers.Add(1)
	}
}

// direct takes a QUIC packet that came straight from a peer.
func (c *cutter) direct(b []byte) {
	p := c.path
	if p == nil {
		c.hub.stats.strangers.Add(1)
		return
	}
	class, ok := classOf(b)
	if !ok || class == RelayOnly {
		c.hub.stats.strangers.Add(1)
		return
	}
	port := c.hub.ports[class].Load()
	if port == nil {
		return
	}
	now := c.hub.now()
	p.heard.Store(now)
	p.hear(now, class, nil)
	c.hub.stats.directIn.Add(uint64(len(b)))
	c.add(port, p.directAddr.Load(), len(b), 0)
}

// relayed takes a frame that came from a relay.
func (c *cutter) relayed(b []byte) {
	from, tag, packet, ok := c.leg.HandlePacket(b)
	if !ok || len(packet) == 0 {
		return
	}
	p := c.t.peers[from]
	switch {
	case packet[0] >= firstPunch && packet[0] <= lastPunch:
		c.hub.punch(c.t, p, netip.AddrPort{}, packet)
	case packet[0] >= pieces.First && packet[0] <= pieces.Last && p != nil:
		c.hub.piece(c.t, p, c.leg, uint16(tag), packet)
	case packet[0] < firstQUIC:
		c.hub.stats.strangers.Add(1)
	case p == nil:
		c.hub.stray(from, tag, packet)
	default:
		c.fromRelay(p, uint16(tag), b, packet)
	}
}

// fromRelay queues a relayed packet of an admitted peer.
func (c *cutter) fromRelay(p *remote, gen uint16, frame, packet []byte) {
	class, ok := classOf(packet)
	if !ok || class == DirectOnly {
		c.hub.stats.strangers.Add(1)
		return
	}
	port := c.hub.ports[class].Load()
	if port == nil {
		return
	}
	p.hear(c.hub.now(), class, c.leg)
	src := p.relayAddr
	if gen > relayGeneration {
		if direct := p.directAddr.Load(); direct != nil && direct.Port == int(gen) {
			src = direct
			p.relayHeard.Store(c.hub.now())      // the peer doubts the direct path
			if p.talked.Load() < p.thaw.Load() { // as after a freeze, when the machine has no other sign of it
				p.wake()
			}
		} else {
			src = p.otherAddr(gen)
		}
	}
	c.hub.stats.relayIn.Add(uint64(len(packet)))
	c.add(port, src, len(frame), len(frame)-len(packet))
}

// punch hands a probe to the peer's state machine. p is nil if the probe came from an address that
// says nothing about the peer; then the transaction's first bytes tell.
func (h *hub) punch(t *tables, p *remote, from netip.AddrPort, b []byte) {
	if p == nil && len(b) >= 8 {
		p = t.tags[[4]byte(b[4:8])]
	}
	if p == nil {
		h.stats.strangers.Add(1)
		return
	}
	p.receivePunch(from, 0, b)
}
