package results

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

const (
	steadyPause  = 10 * time.Millisecond // between two probes
	steadyProbe  = 20_000                // rounds of scramble: some 40 us
	steadyWindow = 10                    // probes, of whose times the median counts: an interrupt may be on the account of the thread that it hits
	steadySlow   = 2                     // times what a probe takes at best. A busy sibling of the core (SMT) makes it 1.3 to 1.6
)

// Steady tells how often the machine is slower than it can be, for a reason that lies outside it: a fixed piece of work takes longer by the CPU
// time of the thread that does it, which does not count what else the machine does. On a virtual machine this is the host, which need not
// own up to it as stolen time. Its methods may be called from several goroutines.
type Steady struct{ slow, all atomic.Int64 }

// WatchSteady watches the machine until ctx ends. It takes 0.4 % of a core. Where threads' CPU time is not known, it sees nothing.
func WatchSteady(ctx context.Context) *Steady {
	s := new(Steady)
	if _, ok := threadTime(); ok {
		go s.watch(ctx)
	}
	return s
}

// Windows returns how many windows of 100 ms or more there were so far, and in how many the machine had less than half its speed.
func (s *Steady) Windows() (slow, all int64) { return s.slow.Load(), s.all.Load() }

func (s *Steady) watch(ctx context.Context) {
	runtime.LockOSThread() // the thread ends with the goroutine
	tick := time.NewTicker(steadyPause)
	defer tick.Stop()
	var best time.Duration
	took := make([]time.Duration, 0, steadyWindow)
	for x := uint64(1); ; {
		before, _ := threadTime()
		x = scramble(x)
		after, _ := threadTime()
		if took = append(took, after-before); best == 0 || after-before < best {
			best = after - before
		}
		if len(took) == steadyWindow {
			s.all.Add(1)
			if slowed(took, best) {
				s.slow.Add(1)
			}
			took = took[:0]
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// slowed tells whether the machine had less than half its speed during a window. It changes the order of the times.
func slowed(took []time.Duration, best time.Duration) bool {
	slices.Sort(took)
	return took[len(took)/2] > steadySlow*best
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
