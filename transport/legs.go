package transport

import (
	"sync"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
)

const (
	// asideAfter is the silence after which a second relay is tried as well: the peer's home may have lost it.
	asideAfter = 400 * time.Millisecond
	shunFor    = 30 * time.Second // a home relay through which the peer was silent, while it came by another
	goneFor    = 3 * time.Second  // a home relay that knows nothing of the peer
	// recallAfter is the silence after which what is sent is kept, to be sent again by another way.
	recallAfter = 20 * time.Millisecond
	// quietFor is the pause after which a send begins a new question: the last word of a conversation, an
	// acknowledgement, is never answered.
	quietFor = 5 * time.Second
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

// hear notes that something of the peer came at now, by a relay or directly (nil).
func (p *remote) hear(now int64, by Relay) {
	asked := p.asked.Load()
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
	p.asked.Store(0)
}

// ask notes that something is sent to the peer at now, and returns for how long it has been silent.
func (p *remote) ask(now int64) time.Duration {
	asked := p.asked.Load()
	if asked == 0 || time.Duration(now-p.used.Load()) > quietFor {
		p.asked.Store(now)
		asked = now
	}
	p.used.Store(now)
	return time.Duration(now - asked)
}

// recall keeps the last packet that was sent into a silence. When there is another way, or a way again, it is sent once more:
// QUIC, whose pauses between attempts double, would wait, and drops what it has twice.
type recall struct {
	mu    sync.Mutex // guards what follows
	b     []byte
	class Class
	gen   uint16
}

func (r *recall) keep(b []byte, class Class, gen uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.b, r.class, r.gen = append(r.b[:0], b...), class, gen
}

// again sends the last packet again if the peer has been silent since.
func (p *remote) again() {
	if p.asked.Load() == 0 {
		return
	}
	r := &p.recall
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.b) > 0 {
		_ = p.hub.route(p, r.class, r.gen, r.b, len(r.b), p.hub.now(), 0) // a lost packet
	}
}

// RelayGone is told when a relay says that it does not know a peer, which is then reached by another for a while.
func (e *Endpoint) RelayGone(relay string, peer ident.Short) {
	p := e.hub.tables.Load().peers[peer]
	if p == nil {
		return
	}
	if home := p.relayID.Load(); home != nil && *home == relay {
		p.shun.Store(e.hub.now() + int64(goneFor))
		p.again()
	}
}

// RelayChanged is to be called when what Usable of a relay reports has changed. It calls Usable and Send of relays.
func (e *Endpoint) RelayChanged() {
	for _, p := range e.hub.tables.Load().peers {
		p.again()
	}
}
