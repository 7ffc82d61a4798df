package transport

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/udpx"
)

const (
	// asideAfter is the silence after which a second relay is tried as well: the peer's home may have lost it.
	asideAfter = 400 * time.Millisecond
	shunFor    = 30 * time.Second // a home relay through which the peer was silent, while it came by another
	goneFor    = 3 * time.Second  // a home relay that knows nothing of the peer
	// recallAfter is the silence after which what is sent is kept, to be sent again by another way.
	recallAfter = 20 * time.Millisecond
	againFirst  = 50 * time.Millisecond
	againMost   = time.Second
	// quietFor is the pause after which a send begins a new question: the last word of a conversation, an
	// acknowledgement, is never answered.
	quietFor = 5 * time.Second
	// wordAfter is how long after the first send into a silence a further one is no such last word, but is to be answered: QUIC sends nothing
	// else unasked.
	wordAfter  = 250 * time.Millisecond
	thawingFor = 500 * time.Millisecond
	flowing    = 4 // sends without such a pause; keep-alives come to two on each side
)

// leg returns the relay that reaches the peer, or nil: its home, or, while that does not work, the one by which it came
// last, or any other that works. Instances bind to every relay that they are told of.
func (p *remote) leg() Relay {
	id := p.relayID.Load()
	if id == nil {
		return nil
	}
	legs := *p.hub.legs.Load()
	home := legs[*id]
	if home != nil && home.Usable() && p.hub.now() >= p.shun.Load() || len(legs) < 2 {
		return home
	}
	if via := p.via.Load(); via != nil {
		if l := legs[*via]; l != nil && l != home && l.Usable() {
			return l
		}
	}
	if l := p.hub.otherLeg(home); l != nil {
		return l
	}
	return home
}

// otherLeg returns a relay that works, other than one, or nil: the same one each time.
func (h *hub) otherLeg(than Relay) Relay {
	var other Relay
	for _, l := range *h.legs.Load() {
		if l != than && l.Usable() && (other == nil || l.ID() < other.ID()) {
			other = l
		}
	}
	return other
}

// talk is what is said in one class: whether the peer answers, and the last packet that was sent into a silence. When there is another
// way, or a way again, that goes out once more: QUIC, whose pauses between attempts double, would wait, and drops what it has twice.
type talk struct {
	asked atomic.Int64 // first send since anything was heard, in hub.now units; 0 = heard since
	used  atomic.Int64 // last send
	owed  atomic.Int64 // first send since anything was heard that the peer has to answer for certain; 0 = none
	heard atomic.Int64 // last time that anything was heard after a send
	width width

	mu    sync.Mutex // guards what follows
	b     []byte
	gen   uint16
	at    int64       // when it was sent first
	timer *time.Timer // of the next repetition; nil if there is none
}

// hear notes that something of the peer came at now, by a relay or directly (nil).
func (p *remote) hear(now int64, class Class, by Relay) {
	p.opening.close()
	t := &p.talks[class]
	asked := t.asked.Load()
	if asked == 0 {
		return
	}
	if by != nil && time.Duration(now-asked) > asideAfter {
		if leg := p.leg(); leg != nil && leg != by {
			id := by.ID()
			p.via.Store(&id)
			p.shun.Store(now + int64(shunFor))
		}
	}
	if owed := t.owed.Load(); owed != 0 && time.Duration(now-owed) > repeatAfter {
		p.repeat(class, againFirst) // what the peer says need not be an answer to that
	}
	t.heard.Store(now)
	t.asked.Store(0)
	t.owed.Store(0)
}

// ask notes that something is sent to the peer at now, and returns for how long it has been silent.
func (p *remote) ask(now int64, class Class) time.Duration {
	t := &p.talks[class]
	asked, owed := t.asked.Load(), t.owed.Load()
	if asked != 0 && owed == 0 && time.Duration(now-asked) > wordAfter {
		t.owed.CompareAndSwap(0, now)
	}
	if asked == 0 || owed == 0 && time.Duration(now-t.used.Load()) > quietFor {
		t.asked.Store(now)
		asked = now
	}
	t.used.Store(now)
	p.flow(now)
	return time.Duration(now - asked)
}

// use notes that something is said to the peer, or what it has said is read. The machine learns at once that a path is used for the first time since a freeze.
func (p *remote) use() {
	if p.talked.Swap(p.hub.now()) < p.thaw.Load() {
		p.wake()
	}
}

// thawing tells whether the process was frozen a moment before now: the first that is said may be lost on a path that has died meanwhile.
func (p *remote) thawing(now int64) bool {
	t := p.thaw.Load()
	return t != 0 && time.Duration(now-t) < thawingFor
}

// flow notes a send at now. The machine, which sleeps while nothing flows over the relay, is told when something does again:
// more than keep-alives and their acknowledgements.
func (p *remote) flow(now int64) {
	if time.Duration(now-p.used.Swap(now)) > quietFor {
		p.sends.Store(0)
	}
	if p.sends.Add(1) == flowing {
		p.wake()
	}
}

// silent returns since when and for how long, at now, the peer has owed an answer; 0 if it owes none. However rarely QUIC, whose pauses double, asks again.
func (t *talk) silent(now int64) (since int64, d time.Duration) {
	if since = t.owed.Load(); since != 0 {
		d = time.Duration(now - since)
	}
	return since, d
}

func (t *talk) keep(b []byte, gen uint16, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b, t.gen, t.at = append(t.b[:0], b...), gen, now
}

// again sends the last packets again if the peer has been silent since, because there may be a way now; and then at growing
// distances, for the peer may have to find its own way first.
func (p *remote) again() {
	for class := range classes {
		p.repeat(class, againFirst)
	}
}

func (p *remote) repeat(class Class, wait time.Duration) {
	t, now := &p.talks[class], p.hub.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	asked := t.asked.Load()
	if asked == 0 || t.at < asked || len(t.b) == 0 || time.Duration(now-t.used.Load()) > idleTimeout {
		return
	}
	_ = p.hub.route(p, class, t.gen, t.b, len(t.b), now, time.Duration(now-asked)) // at worst a lost packet
	t.timer = time.AfterFunc(wait, func() { p.repeat(class, min(2*wait, againMost)) })
}

func (t *talk) repeats() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.timer != nil
}

// batches has batches sent by one system call from now on, or each packet by its own.
func (h *hub) batches(on bool) {
	for _, s := range []udpx.Socket{h.v4, h.v6} {
		if c, ok := s.(*coalescer); ok {
			if s, ok := c.Socket.(interface{ Batches(bool) }); ok {
				s.Batches(on)
			}
		}
	}
}

// endTalks ends the repetitions.
func (p *remote) endTalks() {
	p.opening.close()
	for class := range classes {
		t := &p.talks[class]
		t.mu.Lock()
		if t.b = nil; t.timer != nil {
			t.timer.Stop()
		}
		t.mu.Unlock()
	}
}

// RelayGone is told when a relay says that it does not know a peer. Of one that is about to bind, what was said to it is said again; else it is
// reached by another relay for a while.
func (e *Endpoint) RelayGone(relay string, peer ident.Short) {
	p := e.hub.tables.Load().peers[peer]
	if p == nil || p.reopen() {
		return
	}
	now := e.hub.now()
	if home := p.relayID.Load(); home != nil && *home == relay && now >= p.shun.Load() {
		p.shun.Store(now + int64(goneFor))
		p.again()
	}
}

// RelayChanged is to be called when what Usable of a relay reports has changed. It calls Usable and Send of relays.
func (e *Endpoint) RelayChanged() { e.hub.again() }

// again has it said to all peers again what may be lost.
func (h *hub) again() {
	for _, p := range h.tables.Load().peers {
		p.again()
	}
}
