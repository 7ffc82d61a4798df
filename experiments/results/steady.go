package results

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	steadyPause  = 10 * time.Millisecond // between two probes
	steadyProbe  = 20_000                // rounds of scramble: some 40 us
	steadyWindow = 10                    // probes, of whose times the median counts: an interrupt may be on the account of the thread that it hits
	steadyKept   = 6000                  // slow windows that are remembered
	steadySlow   = 2                     // times what probes take at best. A busy sibling of the core (SMT) makes it 1.3 to 1.6
)

// Steady tells how often the machine is slower than it can be, for a reason that lies outside it: a fixed piece of work takes longer by the CPU
// time of the thread that does it, which does not count what else the machine does. On a virtual machine this is the host, which need not
// own up to it as stolen time. Its methods may be called from several goroutines.
type Steady struct {
	mu    sync.Mutex // guards what follows
	slow  []span     // windows in which the machine was slow, the last steadyKept
	slows int64      // how many there were
	all   int64      // windows
}

type span struct{ from, to time.Time }

// WatchSteady watches the machine until ctx ends. It takes 0.4 % of a core. Where threads' CPU time is not known, it sees nothing.
func WatchSteady(ctx context.Context) *Steady {
	s := new(Steady)
	if _, ok := threadTime(); ok {
		go s.watch(ctx)
	}
	return s
}

// Windows returns how many windows of 100 ms or more there were so far, and in how many the machine had less than half its speed.
func (s *Steady) Windows() (slow, all int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slows, s.all
}

// Slow tells whether the machine had less than half its speed at some time between two, of the last ten minutes. What happens in a window
// is known when it has ended.
func (s *Steady) Slow(from, to time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range slices.Backward(s.slow) {
		if w.to.Before(from) {
			return false
		}
		if !w.from.After(to) {
			return true
		}
	}
	return false
}

// note counts a window.
func (s *Steady) note(w span, slow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all++; !slow {
		return
	}
	s.slows++
	if len(s.slow) == steadyKept {
		s.slow = append(s.slow[:0], s.slow[1:]...)
	}
	s.slow = append(s.slow, w)
}

func (s *Steady) watch(ctx context.Context) {
	runtime.LockOSThread() // the thread ends with the goroutine
	tick := time.NewTicker(steadyPause)
	defer tick.Stop()
	var p pace
	took := make([]time.Duration, 0, steadyWindow)
	began := time.Now()
	for x := uint64(1); ; {
		before, _ := threadTime()
		x = scramble(x)
		after, _ := threadTime()
		if took = append(took, after-before); len(took) == steadyWindow {
			now := time.Now()
			s.note(span{began, now}, p.slow(took))
			took, began = took[:0], now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// pace is what the machine can do: the best median of a window so far. Not the best probe: the kernel's account of a thread that
// changes cores may be short of some microseconds.
type pace struct{ best time.Duration }

// slow tells whether the machine had less than half its speed during a window. It changes the order of the times.
func (p *pace) slow(took []time.Duration) bool {
	slices.Sort(took)
	median := took[len(took)/2]
	if p.best == 0 || median < p.best {
		p.best = median
	}
	return median > steadySlow*p.best
}

// scramble is the fixed piece of work: a xorshift generator (Marsaglia 2003), which needs no memory.
//
//go:noinline
func scramble(x uint64) uint64 {
	for range steadyProbe {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}
