package fnlib

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Functions that get one state at the same time form a chain, in which each passes on what it has got: so the line of who has put the state
// carries it once, and not once for each of them. Who has put it knows who gets it, and tells each Get of the one that began before
// it, its lead, and of its own place (GOT; keeper.enter). The lead's blocks are asked for first, before the lead has them: they come on when they come in (pass.go). All else is as
// without a lead: the ref's digests tell whether a block is right, whoever sent it, and when the lead falls silent, fails or ends, holders are asked. A lead that waits
// for its own lead says so, or one that dies would have all behind it turn to the holder, and not the next one alone.
const (
	leadLeast    = 1 << 20                // bytes of a state for which there are leads: a smaller one is there as soon as a lead could be asked
	leadRTT      = 100 * time.Millisecond // to the holder, from which on there are none: asking somebody else costs several
	leadPatience = 50 * time.Millisecond  // and leadTrips, in which a lead has the first word, before holders are asked too
	leadTrips    = 4                      // round trips to the holder: a new link to the lead takes three
	leadRun      = 4                      // blocks that a holder is asked for at a time while there is a lead
	maxBehind    = 1000                   // places that count; see leadBehind
	leadPasses   = 3                      // times that a lead may have let go what was asked for: it is too far ahead

	// Ticks, each of stillEvery, that a lead is waited for. They are counted rather than measured, since this process may have been frozen.
	leadSilent = 5  // and leadTrips, in which it says nothing
	leadStuck  = 20 // and so many and leadBehind for each place in the chain, in which it says that it waits, and sends nothing:
	leadBehind = 3  // the first one that leaves helps all behind it
)

// lead is the function that a pull asks first.
type lead struct {
	name   string
	cancel context.CancelFunc
	first  int           // the first block that it has
	passes int           // times that it had let go one
	wait   time.Duration // how long it may be silent before holders are asked too
	most   int           // ticks that it may be silent, and
	worst  int           // ticks in which it may say that it waits

	asked  bool      // for blocks: before, it owes a link
	owes   time.Time // since when it has said nothing, of what it was asked for; zero: it owes nothing
	silent int       // ticks since then
	stuck  int       // ticks in which it has owed, and sent nothing of a block
}

// followLocked makes a function the lead, once. rtt is that to the holder who has named it.
func (p *pull) followLocked(name string, rtt time.Duration) {
	if p.led || name == p.n.cfg.Name || len(p.ref.holders) > 1 || p.ref.heldBy(name) { // several holders are quicker than one
		return
	}
	ctx, cancel := context.WithCancel(p.ctx)
	p.led = true
	p.lead = newLead(name, rtt, p.place, cancel)
	p.live++
	p.wg.Go(func() { p.watchLead(ctx) })
	p.wg.Go(func() {
		err := p.overLink(ctx, name)
		cancel()
		p.change(func() {
			p.leaveLocked()
			p.live--
		})
		p.n.log.Debug("fnlib: a state does not come from its other getter any more", "from", name, "state", p.ref.id, "error", err)
	})
}

func newLead(name string, rtt time.Duration, place uint32, cancel context.CancelFunc) *lead {
	trips := min(leadTrips*rtt, time.Minute)
	ticks := int(trips / stillEvery)
	return &lead{
		name: name, cancel: cancel, owes: time.Now(), wait: leadPatience + trips,
		most: leadSilent + ticks, worst: leadStuck + ticks + leadBehind*int(min(place, maxBehind)),
	}
}

// watchLead leaves the lead when that is silent.
func (p *pull) watchLead(ctx context.Context) {
	tick := time.NewTicker(stillEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		p.tickLocked()
		p.mu.Unlock()
	}
}

// tickLocked counts how long the lead has been silent.
func (p *pull) tickLocked() {
	l := p.lead
	if l == nil || l.owes.IsZero() {
		return
	}
	l.silent++
	l.stuck++
	if l.silent >= l.most || l.stuck >= l.worst {
		p.leaveLocked() // its lanes give back what they have claimed
	}
}

// leaveLocked has the lead asked no more.
func (p *pull) leaveLocked() {
	if p.lead != nil {
		p.lead.cancel()
		p.lead = nil
	}
}

// leads reports whether a source is the lead.
func (p *pull) leads(source string) bool { return p.lead != nil && p.lead.name == source }

// ledBy is leads for who does not have mu.
func (p *pull) ledBy(source string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leads(source)
}

// deferLocked tells a source that is not the lead what it may claim: blocks before end, and, if that is not all, when there may be more.
func (p *pull) deferLocked(source string, end int) (before int, wait time.Duration) {
	if p.lead == nil || p.leads(source) {
		return end, stealAfter
	}
	silent := time.Duration(0)
	if !p.lead.owes.IsZero() {
		silent = time.Since(p.lead.owes)
	}
	if silent >= p.lead.wait {
		return end, stealAfter
	}
	return min(end, p.lead.first), p.lead.wait - silent
}

// sign is what was heard of the lead.
type sign int

const (
	signNone  sign = iota
	signWaits      // it is well, and waits itself
	signBytes      // of a block
)

// oweLocked notes what the lead owes, after a claim, a sign, or the end of a request.
func (p *pull) oweLocked(heard sign) {
	l := p.lead
	if l == nil {
		return
	}
	owes := !l.asked
	for _, s := range p.slots {
		if s.by == l.name && s.block == nil {
			owes, l.asked = true, true
			break
		}
	}
	if !owes {
		l.owes, l.silent, l.stuck = time.Time{}, 0, 0
		return
	}
	if heard != signNone || l.owes.IsZero() {
		l.owes, l.silent = time.Now(), 0
	}
	if heard == signBytes {
		l.stuck = 0
	}
}

// hear notes what was heard of a source, if that is the lead.
func (p *pull) hear(source string, s sign) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leads(source) {
		p.oweLocked(s)
	}
}

// readComing delivers blocks as the lead gets them.
func (p *pull) readComing(source, way string, c claim, r io.Reader) error {
	bytes := &heard{p: p, source: source, r: r}
	for i := 0; i < c.count; {
		var mark [1]byte
		if _, err := io.ReadFull(r, mark[:]); err != nil {
			return unexpected(err)
		}
		switch mark[0] {
		case comingYet:
			p.hear(source, signWaits)
		case comingHere:
			if err := p.readBlock(source, way, c.first+i, bytes); err != nil {
				return err
			}
			i++
		default:
			return fmt.Errorf("%w: mark %d before a block", errWire, mark[0])
		}
	}
	return nil
}

// heard notes that bytes of blocks come, now and then: on a slow line a block takes seconds.
type heard struct {
	p      *pull
	source string
	r      io.Reader
	last   time.Time
}

// Read implements io.Reader.
func (h *heard) Read(b []byte) (int, error) {
	n, err := h.r.Read(b)
	if now := time.Now(); n > 0 && now.Sub(h.last) > stillEvery/2 {
		h.p.hear(h.source, signBytes)
		h.last = now
	}
	return n, err
}

// passed notes that the lead has let go what it was asked for, and from where on it has more.
func (p *pull) passed(c claim, first uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lead == nil {
		return errPassed
	}
	p.lead.passes++
	if int(first) <= c.first || int(first) > blocksOf(p.ref.size) || p.lead.passes == leadPasses {
		return errPassed
	}
	p.lead.first = int(first)
	return nil
}
