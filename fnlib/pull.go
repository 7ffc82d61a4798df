package fnlib

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A pull brings the blocks of a state from all who hold it at once. Each source has lanes that claim runs of blocks, the first ones that nobody has
// claimed, and deliver them in any order; the application takes them in theirs. The window bounds what is in memory.
const (
	pullWindow = 64 // blocks that are under way, or here and not handed out: 8 MiB
	pullLanes  = 2  // of a holder: while one's blocks come, the other's request is under way
	stealAfter = 500 * time.Millisecond
)

// slot is a block of the window.
type slot struct {
	claims int       // lanes that fetch it, two at most
	by     string    // the source of the last
	since  time.Time // when it claimed
	block  *block    // nil: not here yet
}

// pull is one Get under way.
type pull struct {
	n    *Node
	ref  refInfo
	by   stateID
	path Path

	ctx    context.Context //nolint:containedctx // of the Get, which its goroutines end with
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex    // guards what follows
	changed chan struct{} // closed and replaced when any of it has
	digests []Digest      // nil: not known yet
	left    uint32        // how many Gets may still end well, as the source has said that was asked last
	next    int           // the block that the application is at
	slots   map[int]*slot
	moved   time.Time // when next was, or became, the one that is waited for
	live    int       // sources that may still deliver
	present int       // of them, those that seem to be there
	failed  error     // why sources have ended
	over    error     // why there is no point in asking anybody
	from    map[string]int64
	way     string // of the last block
	place   uint32 // in the chain; 0: none, or not known yet
	led     bool   // there is a lead, or was
	lead    *lead  // nil: none is asked

	past       []*block  // which the application was given last, the last one at the end
	serving    int       // requests of followers under way
	followed   bool      // there was one
	stopped    time.Time // since when nothing comes any more; zero: it does
	forgotten  bool      // and nobody may ask for what has come
	registered bool      // others may find it
	flushed    func()    // for Flush, when the last of them is answered; nil: it need not know
}

func newPull(ctx context.Context, n *Node, ref refInfo, path Path) *pull {
	p := &pull{
		n: n, ref: ref, by: newStateID(), path: path, changed: make(chan struct{}), left: noLimit,
		slots: make(map[int]*slot), moved: time.Now(), from: make(map[string]int64),
	}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// end stops everything.
func (p *pull) end() {
	p.cancel()
	p.wg.Wait()
	p.stop()
}

// change runs a function under mu and tells those who wait.
func (p *pull) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// begin adds sources before they run.
func (p *pull) begin(sources int) { p.live, p.present = sources, sources }

// ended notes that a source delivers no more, and why.
func (p *pull) ended(err error) {
	p.change(func() {
		p.live--
		switch {
		case p.failed == nil:
			p.failed = err
		case err != nil:
			p.failed = fmt.Errorf("%w; %w", p.failed, err)
		}
	})
}

// claim is a run of blocks that a lane is to fetch.
type claim struct {
	first, count int
	digests      bool // they are wanted first
}

// claim waits until there is something to fetch; false: the pull has ended. A source's first lane asks for the digests while they are not known, and the others
// wait for them.
func (p *pull) claim(ctx context.Context, source string, lane int) (claim, bool) {
	timer := time.NewTimer(stealAfter)
	defer timer.Stop()
	for {
		p.mu.Lock()
		changed := p.changed
		c, wait, ok := p.claimLocked(source, lane)
		if !ok {
			var steal time.Duration
			c, steal = p.stealLocked(source)
			wait = min(wait, steal)
		}
		p.mu.Unlock()
		if ok || c.count > 0 {
			return c, true
		}
		timer.Reset(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			return c, false
		}
	}
}

// claimLocked claims what nobody has claimed, or tells when there may be something.
func (p *pull) claimLocked(source string, lane int) (c claim, wait time.Duration, ok bool) {
	if p.digests == nil {
		if lane > 0 {
			return c, stealAfter, false
		}
		c.digests = true
	}
	total := blocksOf(p.ref.size)
	window := min(p.next+pullWindow, total)
	end, wait := p.deferLocked(source, window)
	most := p.mostLocked(source)
	c.first = p.next
	if p.leads(source) {
		c.first = max(c.first, p.lead.first)
	}
	for c.first < end && p.slots[c.first] != nil {
		c.first++
	}
	for c.count < most && c.first+c.count < end && p.slots[c.first+c.count] == nil {
		c.count++
	}
	if c.count < most && c.first > p.next && c.first+c.count == window && window < total {
		c.count = 0 // a request takes a round trip, so it waits until there is room for a whole run
	}
	if c.count == 0 {
		c.first = 0
	}
	for i := range c.count {
		p.slots[c.first+i] = &slot{claims: 1, by: source, since: time.Now()}
	}
	p.oweLocked(signNone)
	return c, wait, c.count > 0 || c.digests
}

// mostLocked is how many blocks a claim may have.
func (p *pull) mostLocked(source string) int {
	switch {
	case p.leads(source):
		return pullWindow / pullLanes
	case p.lead != nil && p.lead.first < p.next+pullWindow:
		return leadRun
	}
	return max(1, pullWindow/(pullLanes*max(1, p.present)))
}

// stealLocked claims the first blocks that another source is slow with, or tells when there may be some. A lead that is slow is left instead.
func (p *pull) stealLocked(source string) (c claim, wait time.Duration) {
	wait = stealAfter
	if p.leads(source) {
		return c, wait // it may be what it has let go
	}
	for i := p.next; i < p.next+pullWindow && c.count < p.mostLocked(source); i++ {
		s := p.slots[i]
		slow := s != nil && s.block == nil && s.claims == 1 && s.by != source && !p.leads(s.by)
		if slow {
			if age := time.Since(s.since); age < stealAfter {
				wait, slow = min(wait, stealAfter-age), false
			}
		}
		switch {
		case slow:
			if c.count == 0 {
				c.first = i
			}
			c.count++
			s.claims, s.by, s.since = 2, source, time.Now()
		case c.count > 0:
			return c, 0
		}
	}
	return c, wait
}

// unclaim gives back what was not delivered.
func (p *pull) unclaim(c claim) {
	p.change(func() {
		for i := c.first; i < c.first+c.count; i++ {
			if s := p.slots[i]; s != nil {
				if s.claims--; s.claims == 0 && s.block == nil {
					delete(p.slots, i)
				}
			}
		}
		p.oweLocked(signNone)
	})
}

// deliver takes block i, whose digest is right.
func (p *pull) deliver(source, way string, i int, b *block) {
	p.change(func() {
		s := p.slots[i]
		if s == nil || s.block != nil {
			b.release()
			return
		}
		s.block = b
		p.from[source] += int64(len(b.data))
		p.way = way
		if i == p.next {
			p.moved = time.Now()
		}
		if p.leads(source) {
			p.oweLocked(signBytes)
		}
	})
}

// take waits for the block that the application is at, which stays until it was taken.
func (p *pull) take() ([]byte, error) {
	for {
		p.mu.Lock()
		changed, here := p.changed, p.hereLocked()
		live, over, failed := p.live, p.over, p.failed
		p.mu.Unlock()
		switch {
		case here != nil:
			return here.data, nil
		case over != nil:
			return nil, over
		case live == 0:
			return nil, failed
		}
		if err := p.await(changed); err != nil {
			return nil, err
		}
	}
}

// hereLocked is the block that the application is at, or nil if that has not come.
func (p *pull) hereLocked() *block { return p.haveLocked(p.next) }

// await waits for a change, or for the end of the context or the node.
func (p *pull) await(changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-p.n.ctx.Done():
		return p.n.Err()
	}
}

// taken moves the application on by a block.
func (p *pull) taken() {
	p.change(func() {
		p.keepPastLocked(p.slots[p.next].block)
		delete(p.slots, p.next)
		p.next++
		p.moved = time.Now()
	})
}

func (p *pull) dropLocked(i int) {
	if b := p.slots[i].block; b != nil {
		b.release()
	}
	delete(p.slots, i)
}

// known waits until the digests are.
func (p *pull) known() error {
	for {
		p.mu.Lock()
		changed, digests := p.changed, p.digests
		live, over, failed := p.live, p.over, p.failed
		p.mu.Unlock()
		switch {
		case digests != nil:
			return nil
		case over != nil:
			return over
		case live == 0:
			return failed
		}
		if err := p.await(changed); err != nil {
			return err
		}
	}
}

// counted tells whether reads of the state are, and last whether this one is the last that is allowed.
func (p *pull) counted() bool { return p.allowed() != noLimit }
func (p *pull) last() bool    { return p.allowed() == 1 }

func (p *pull) allowed() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left
}

// learn takes what a source says of the state as a whole; digests may be nil. The first one that brings them has first run too, optional, before anybody claims.
func (p *pull) learn(source, way string, left uint32, digests []Digest, first func()) {
	p.change(func() {
		p.left, p.way = left, way
		p.from[source] += 0 // it is one
		if p.digests != nil || digests == nil {
			return
		}
		if p.digests = digests; first != nil {
			first()
		}
	})
}
