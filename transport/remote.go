package transport

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/transport/pieces"
	"github.com/fnwire/fnwire/transport/punch"
)

const (
	tickInterval   = 50 * time.Millisecond // while traffic flows on a direct path
	wantedFor      = 10 * time.Second      // traffic this recent makes a direct path worth more rounds
	historyLength  = 32
	punchQueueSize = 64
)

// remote is an admitted peer: its addresses, its relay, and the state machine of its direct path.
type remote struct {
	hub       *hub
	id        peer.ID
	short     ident.Short
	nonce     Nonce        // the peer's share of the probe key
	relayAddr *net.UDPAddr // virtual, generation 1
	tag       [4]byte      // of its probes
	admitted  int64        // by the last offer or answer, in hub.now units; guarded by Endpoint.mu
	stop      func()       // ends run
	moved     func()       // told when packets take another way

	route      atomic.Pointer[route]
	directAddr atomic.Pointer[net.UDPAddr] // virtual, of the current generation; nil before the first
	lastOther  atomic.Pointer[net.UDPAddr] // virtual, of the last other generation that the peer used
	relayID    atomic.Pointer[string]      // the peer's home relay

	// Times in hub.now units, written on the packet path.
	sent, heard, relayHeard atomic.Int64
	used                    atomic.Int64           // last send, by any path
	sends                   atomic.Int32           // since a pause of quietFor
	direct                  atomic.Int64           // last offer or answer that asked for a direct link
	shun                    atomic.Int64           // until when the home relay is not used
	via                     atomic.Pointer[string] // the relay by which it came, when that was not the home
	talks                   [classes]talk
	links                   [classes]atomic.Pointer[Link] // that were installed last
	size                    atomic.Int32                  // of the longest packets that QUIC sends on the direct path
	pieces                  *pieces.Codec
	joins                   atomic.Bool // the peer is known to put pieces together
	flights                 [classes]atomic.Pointer[Flight]
	last                    [classes]atomic.Pointer[LinkID] // of the link that ended last
	talked                  atomic.Int64                    // last time that something was written to the peer, or read
	thaw                    atomic.Int64                    // when it was noticed last that the process was frozen
	dozing                  atomic.Bool                     // run waits for the machine's own wake-up only
	kick                    chan struct{}

	ctx      context.Context // ends run
	probes   chan punch.Packet
	orders   orders
	machine  *punch.Machine // touched by run only, as are
	relayed  bool           // what machine was told of the peer's relay
	extras   extras         // the sockets that machine asked for
	sampling sync.WaitGroup // what run has started
	asking   bool           // guarded by Endpoint.mu: somebody else is being asked about it
	wanted   atomic.Int32   // dials waiting for a direct path
	opening  opening

	mu      sync.Mutex // guards what follows
	status  punch.State
	changed chan struct{} // closed and replaced at each change of status
	history []PathChange
	early   []early
}

// route is what the packet path needs to know of the machine's state.
type route struct {
	how  punch.Route
	path netip.AddrPort
	gen  uint16
	by   *extra // nil = the hub's own socket
}

// choose tells which ways a packet takes that QUIC sends on the path of a generation.
func (r *route) choose(class Class, gen uint16, hasRelay bool) (direct, relay bool) {
	has := r.path.IsValid()
	switch {
	case class == RelayOnly:
		return false, true
	case class == DirectOnly:
		return has, false
	case !hasRelay:
		return has, false
	case !has || gen != r.gen:
		// Not yet validated by QUIC, or of a path that was replaced: the relay carries it, so that the
		// peer sees the address of that generation.
		return false, true
	case r.how == punch.RouteBoth:
		return true, true
	default:
		return r.how == punch.RouteDirect, r.how == punch.RouteRelay
	}
}

// PathChange is an entry of a link's history.
type PathChange struct {
	At         time.Time
	Route      string // "direct", "relay" or "both"
	Address    string // of the peer, when direct
	Generation uint16
	Reason     string
}

func newRemote(h *hub, id peer.ID, short ident.Short, m *punch.Machine) *remote {
	p := &remote{
		hub: h, id: id, short: short, machine: m,
		relayAddr: virtualAddr(short, relayGeneration),
		kick:      make(chan struct{}, 1),
		probes:    make(chan punch.Packet, punchQueueSize),
		changed:   make(chan struct{}),
	}
	p.route.Store(&route{how: punch.RouteRelay})
	p.status = m.State()
	return p
}

// otherAddr is the virtual address of a generation that is not the current one.
func (p *remote) otherAddr(gen uint16) *net.UDPAddr {
	a := p.lastOther.Load()
	if a == nil || a.Port != int(gen) {
		a = virtualAddr(p.short, gen)
		p.lastOther.Store(a)
	}
	return a
}

func (p *remote) markSent(now int64) {
	p.sent.Store(now)
	if p.dozing.Load() && p.dozing.CompareAndSwap(true, false) {
		p.wake()
	}
}

func (p *remote) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// early is a packet that waits for a relay to be usable, or for the peer to be known there.
type early struct {
	tag uint32
	b   []byte
}

// later keeps packets for a relay that was never usable yet until it is, and reports whether it does: what is
// said in the first round trip must not wait for QUIC's timer.
func (p *remote) later(leg Relay, tag uint32, b []byte, seg int) bool {
	select {
	case <-leg.Ready():
		return false
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var all bool
	if p.early, all = appendEarly(p.early, tag, b, seg); all {
		p.wake()
	}
	return all
}

// appendEarly adds packets of seg bytes each, as many as there is room for, and tells whether that was all.
func appendEarly(kept []early, tag uint32, b []byte, seg int) ([]early, bool) {
	if seg <= 0 {
		seg = len(b)
	}
	for len(b) > 0 && len(kept) < stashPackets {
		n := min(seg, len(b))
		kept = append(kept, early{tag, append([]byte(nil), b[:n]...)})
		b = b[n:]
	}
	return kept, len(b) == 0
}

// waiting is ready when packets wait for a relay and it is usable.
func (p *remote) waiting() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.early) == 0 {
		return nil
	}
	if leg := p.leg(); leg != nil {
		return leg.Ready()
	}
	p.early = nil
	return nil
}

func (p *remote) sendEarly() {
	p.mu.Lock()
	packets := p.early
	p.early = nil
	p.mu.Unlock()
	if leg := p.leg(); leg != nil {
		for _, e := range packets {
			p.opening.keep(e.tag, e.b, len(e.b))
			p.hub.relay(leg, p, uint16(e.tag), e.b, len(e.b))
		}
	}
}

// receivePunch queues a probe. When the queue is full the probe is lost, as on any network.
func (p *remote) receivePunch(from netip.AddrPort, socket int, b []byte) {
	select {
	case p.probes <- punch.Packet{From: from, Socket: socket, Data: append([]byte(nil), b...)}:
	default:
		p.hub.stats.dropped.Add(1)
	}
}

// post has the state machine take an event that must not be lost, however many probes arrive: after a freeze there are many at once.
func (p *remote) post(e punch.Event) {
	if _, ok := e.(punch.Thawed); ok {
		p.thaw.Store(p.hub.now())
	}
	p.orders.put(e)
	p.wake()
}

// orders are such events, until run takes them. Of those of which the newest says all, it alone waits; of Opened there is
// one for each Open.
type orders struct {
	mu   sync.Mutex
	list []punch.Event
}

func (o *orders) put(e punch.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, old := range o.list {
		replaced := false
		switch was := old.(type) {
		case punch.Start:
			next, ok := e.(punch.Start)
			if ok {
				if next.Told == nil {
					next.Told = was.Told
				}
				e, replaced = next, true
			}
		case punch.SetLocal:
			_, replaced = e.(punch.SetLocal)
		case punch.Disturbed:
			_, replaced = e.(punch.Disturbed)
		case punch.Thawed:
			_, replaced = e.(punch.Thawed)
		}
		if replaced {
			o.list = slices.Delete(o.list, i, i+1)
			break
		}
	}
	o.list = append(o.list, e)
}

func (o *orders) take() []punch.Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.list
	o.list = nil
	return list
}

// run drives the state machine until ctx ends.
func (p *remote) run() {
	defer p.sampling.Wait()
	defer p.closeExtra(0)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var wake time.Time
	for {
		var ev punch.Event
		var first []punch.Event
		select {
		case <-p.ctx.Done():
			return
		case ev = <-p.probes:
		case <-timer.C:
			ev = p.traffic()
		case <-p.kick:
			first, ev = p.orders.take(), p.traffic()
		case <-p.waiting():
			p.sendEarly()
			continue
		}
		now := time.Now()
		if has := p.leg() != nil; has != p.relayed {
			p.relayed = has
			p.apply(p.machine.Step(now, punch.Relay{Usable: has}))
		}
		for _, e := range first {
			p.apply(p.machine.Step(now, e))
		}
		if e, ok := ev.(punch.Packet); ok && !e.From.IsValid() {
			// What a CALL asks for may depend on whether traffic flows, and there may have been no tick.
			p.apply(p.machine.Step(now, p.traffic()))
		}
		out := p.machine.Step(now, ev)
		p.apply(out)
		wake = p.nextWake(now, out.Wake)
		timer.Reset(max(time.Until(wake), 0))
	}
}

// nextWake is the machine's wish, or sooner while traffic flows on the direct path.
func (p *remote) nextWake(now time.Time, wish time.Time) time.Time {
	wake := now.Add(time.Hour)
	if !wish.IsZero() && wish.Before(wake) {
		wake = wish
	}
	if p.route.Load().path.IsValid() && p.since(p.sent.Load()) < 2*tickInterval {
		if t := now.Add(tickInterval); t.Before(wake) {
			wake = t
		}
		return wake
	}
	p.dozing.Store(true)
	return wake
}

func (p *remote) since(t int64) time.Duration {
	if t == 0 {
		return time.Hour
	}
	return time.Duration(p.hub.now() - t)
}

func (p *remote) traffic() punch.Traffic {
	at := func(v int64) time.Time {
		if v == 0 {
			return time.Time{}
		}
		return p.hub.epoch.Add(time.Duration(v - 1))
	}
	used := p.talked.Load()
	if p.wanted.Load() > 0 {
		used = p.hub.now()
	}
	return punch.Traffic{
		Sent:          at(p.sent.Load()),
		Used:          at(used),
		Received:      at(p.heard.Load()),
		Size:          int(p.size.Load()),
		RelayReceived: at(p.relayHeard.Load()),
		KeepAlive:     p.hub.pace.pause(),
		Talking:       p.talking(),
		Wanted:        p.wanted.Load() > 0 || p.since(max(p.used.Load(), p.direct.Load())) < wantedFor,
	}
}

// talking tells whether a stream is open that a direct path would carry, or the peer has to answer something there for certain.
func (p *remote) talking() bool {
	for class := range classes {
		if class == RelayOnly {
			continue
		}
		l := p.links[class].Load()
		if p.talks[class].owed.Load() != 0 || l != nil && l.streams.Load() > 0 && l.conn.Context().Err() == nil {
			return true
		}
	}
	return false
}

// apply sends what the machine wants sent and publishes a change of state.
func (p *remote) apply(out punch.Output) {
	if out.Changed && p.publish(p.machine.State()) {
		p.again()
		p.moved()
	}
	for _, d := range out.Send {
		p.send(d)
	}
	p.notePause(out)
	if out.Close {
		p.closeExtra(out.Keep)
	}
	if out.Open != nil {
		p.openExtra(out.Open)
	}
}

// send sends a datagram of the machine's. One that is lost is repeated.
func (p *remote) send(d punch.Datagram) {
	switch {
	case d.Guess && !p.hub.guesses.allow(time.Now(), d.To.Addr()):
	case d.Socket != 0:
		if x := p.extras.open[d.Socket]; x != nil {
			_ = x.send(d.Data, d.To)
		}
	case d.To.IsValid():
		_ = p.hub.write(d.Data, len(d.Data), d.To)
	default:
		if leg := p.leg(); leg != nil && !p.later(leg, 0, d.Data, len(d.Data)) {
			_ = leg.Send(p.short, 0, d.Data, len(d.Data))
		}
	}
}

// publish makes a state known, and reports whether packets take another way now.
func (p *remote) publish(s punch.State) (moved bool) {
	old := p.route.Load()
	next := &route{how: s.Route, path: s.Path, gen: s.Generation}
	if s.Path.IsValid() && s.Socket != 0 {
		if next.by = p.extras.open[s.Socket]; next.by != nil {
			next.by.promote()
		}
	}
	if d := p.directAddr.Load(); s.Generation > relayGeneration && (d == nil || d.Port != int(s.Generation)) {
		p.directAddr.Store(virtualAddr(p.short, s.Generation))
	}
	if next.path != old.path || next.by != old.by {
		p.hub.update(func(t *tables) {
			if old.path.IsValid() && t.paths[old.path] == p {
				delete(t.paths, old.path)
			}
			if next.path.IsValid() && next.by == nil {
				t.paths[next.path] = p
			}
		})
		p.heard.Store(p.hub.now())
	}
	if next.gen != old.gen || next.path != old.path {
		p.size.Store(0) // QUIC begins anew
	}
	p.route.Store(next)

	p.mu.Lock()
	defer p.mu.Unlock()
	if *next != *old {
		if len(p.history) == historyLength {
			p.history = append(p.history[:0], p.history[1:]...)
		}
		p.history = append(p.history, PathChange{
			At: time.Now(), Route: routeName(s.Route), Address: addrString(s.Path), Generation: s.Generation, Reason: s.Reason,
		})
	}
	p.noteOutlook(p.status, s)
	p.status = s
	close(p.changed)
	p.changed = make(chan struct{})
	return *next != *old
}

// watch returns the state and a channel that is closed when it changes.
func (p *remote) watch() (punch.State, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status, p.changed
}

func (p *remote) pathHistory() []PathChange {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]PathChange(nil), p.history...)
}

func routeName(r punch.Route) string {
	switch r {
	case punch.RouteDirect:
		return "direct"
	case punch.RouteBoth:
		return "both"
	default:
		return "relay"
	}
}

func addrString(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
