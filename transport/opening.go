package transport

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	reopenFirst = 2 * time.Millisecond // doubles
	reopenMost  = 7                    // times, in 254 ms: a bind that was lost is repeated after 100 ms
)

// opening is what was sent to a peer by a relay while nothing has come from it yet. A peer binds to the relay and answers an offer at the
// same time, so what its answer brings about may be at the relay before its bind is. The relay then says that it knows no such
// instance, and the packets go out again a little later, and again until something comes, rather than by QUIC's timer: from the second time on
// by another relay as well, for that one may have lost the peer for good. One such word is enough, since relays bound how often they say it.
type opening struct {
	over atomic.Bool // something came from the peer, or it has taken too long

	mu      sync.Mutex  // guards what follows
	packets []early     // at most stashPackets
	again   *time.Timer // nil if it is not to be sent again
	end     *time.Timer // nil if there are no packets
	tries   int
}

// keep adds packets that are about to be sent: the relay may answer before the call that sends them returns.
func (o *opening) keep(tag uint32, b []byte, seg int) {
	if o.over.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over.Load() {
		return
	}
	o.packets, _ = appendEarly(o.packets, tag, b, seg)
	if o.end == nil {
		o.end = time.AfterFunc(stashFor, o.close)
	}
}

// close lets the packets go.
func (o *opening) close() {
	if o.over.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over.Store(true)
	for _, t := range []*time.Timer{o.again, o.end} {
		if t != nil {
			t.Stop()
		}
	}
	o.packets, o.again, o.end = nil, nil, nil
}

// reopen has the opening sent again soon, and tells whether it will be.
func (p *remote) reopen() bool {
	o := &p.opening
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.again != nil {
		return true // told of another of the packets
	}
	if len(o.packets) == 0 || o.tries == reopenMost {
		return false
	}
	p.reopenLocked()
	return true
}

// reopenLocked runs under opening.mu.
func (p *remote) reopenLocked() {
	o := &p.opening
	o.again = time.AfterFunc(reopenFirst<<o.tries, p.openAgain)
	o.tries++
}

func (p *remote) openAgain() {
	o := &p.opening
	o.mu.Lock()
	defer o.mu.Unlock()
	o.again = nil
	if o.over.Load() {
		return
	}
	if leg := p.leg(); leg != nil {
		var other Relay
		if o.tries > 1 {
			other = p.hub.otherLeg(leg)
		}
		for _, e := range o.packets {
			for _, l := range []Relay{leg, other} {
				if l != nil {
					p.hub.relay(l, p, uint16(e.tag), e.b, len(e.b))
				}
			}
		}
	}
	if o.tries < reopenMost {
		p.reopenLocked()
	}
}
