package faas

import (
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
)

// slot is a host of the pool. Its fields are guarded by Platform.mu.
type slot struct {
	host    lab.HostInfo
	inst    *instance     // nil: none
	taken   bool          // by an invocation, which runs or waits here
	changed chan struct{} // closed and replaced when inst or its state changes
}

type state int

const (
	busy     state = iota // starts, or has an event
	settling              // has answered, and is not done yet
	idle
	ending
)

// The ranks of slots for an event, the best first.
const (
	rankIdle     = iota // an instance of the function waits
	rankSettling        // one is about to
	rankFree            // no instance
	rankEnding          // one is about to end
	rankEvict           // one of another function waits
	rankEvictSoon
	unfit
)

func (s *slot) rank(f *function) int {
	fits := !s.taken && (f.NAT == "" || f.NAT == s.host.NAT)
	i := s.inst
	switch {
	case !fits || i != nil && i.state == busy:
		return unfit
	case i == nil:
		return rankFree
	case i.state == ending:
		return rankEnding
	case i.fn == f && i.state == idle:
		return rankIdle
	case i.fn == f:
		return rankSettling
	case i.state == idle:
		return rankEvict
	}
	return rankEvictSoon
}

// pick takes the best slot for an event of f. among says which of n that are as good. The error matches ErrThrottled.
func pick(pool []*slot, f *function, among func(n int) int) (*slot, error) {
	if f.Concurrency > 0 && f.active >= f.Concurrency {
		return nil, errReserved
	}
	best := unfit
	var as []*slot
	for _, s := range pool {
		r := s.rank(f)
		if r < best {
			best, as = r, as[:0]
		}
		if r == best {
			as = append(as, s)
		}
	}
	if best == unfit {
		return nil, errBusy
	}
	var s *slot
	switch best {
	case rankFree:
		s = as[among(len(as))]
	case rankIdle, rankSettling:
		s = extreme(as, time.Time.After)
	default:
		s = extreme(as, time.Time.Before)
	}
	s.taken = true
	f.active++
	return s, nil
}

// extreme returns the slot whose instance was used last, or first.
func extreme(slots []*slot, than func(a, b time.Time) bool) *slot {
	best := slots[0]
	for _, s := range slots[1:] {
		if than(s.inst.used, best.inst.used) {
			best = s
		}
	}
	return best
}

// tell tells who waits for the slot that something has changed.
func (s *slot) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}
