package suite

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/rpc"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
	"github.com/fnwire/fnwire/fnlib"
)

const (
	fanAtOnce = 8                     // processes that are started at a time
	fanLead   = 20 * time.Millisecond // from when a round is told to functions until it begins, and
	fanLead1  = time.Millisecond      // for each of them
	fanSample = 2 * time.Millisecond  // before that, the machine's CPU is looked at, which takes some itself
	fanSettle = 30 * time.Second

	fanLastWords = time.Second
	fanErrors    = 4 // that are shown of a round's
)

// fanGroup is the functions of one measurement.
type fanGroup struct {
	*fanRun
	c     fanCase
	store *worker.Store // nil: by fnwire
	procs []*world.Proc
	names []string
	bells []string
}

// gather starts the functions' processes.
func (g *fanGroup) gather(ctx context.Context) error {
	g.procs, g.names, g.bells = make([]*world.Proc, g.c.n), make([]string, g.c.n), make([]string, g.c.n)
	starting, sctx := errgroup.WithContext(ctx)
	starting.SetLimit(fanAtOnce)
	for i := range g.procs {
		g.names[i] = g.w.FreshName(memberName(i))
		g.bells[i] = path.Join(lab.Disk, g.names[i])
		starting.Go(func() (err error) {
			if g.procs[i], err = g.w.Function(ctx, memberName(i)); err != nil || g.store == nil {
				return err
			}
			return g.procs[i].Bell(sctx, g.bells[i])
		})
	}
	err := starting.Wait()
	if err != nil {
		g.part()
	}
	return err
}

// part ends them.
func (g *fanGroup) part() {
	var ending errgroup.Group
	for _, p := range g.procs {
		if p != nil {
			ending.Go(p.Stop)
		}
	}
	_ = ending.Wait() // the measurement is made
}

// each calls f for all functions at once. When one has failed the others have a moment to say what they have seen of it.
func (g *fanGroup) each(ctx context.Context, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex // guards errs
	var errs []error
	for i := range g.procs {
		all.Go(func() {
			err := f(ctx, i)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if len(errs) == 0 {
				time.AfterFunc(fanLastWords, cancel)
			}
			if len(errs) < fanErrors {
				errs = append(errs, fmt.Errorf("%s: %w", g.names[i], err))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// receivers are those to whom a function sends.
func (g *fanGroup) receivers(i int) (to []int) {
	switch {
	case g.c.pattern == fanIn:
		if i > 0 {
			to = []int{0}
		}
	case g.c.pattern == allToAll:
		for j := 1; j < g.c.n; j++ {
			to = append(to, (i+j)%g.c.n) // so that not all begin with the same one
		}
	case i == 0:
		for j := 1; j < g.c.n; j++ {
			to = append(to, j)
		}
	}
	return to
}

// incoming is how many states a function receives.
func (g *fanGroup) incoming(i int) int {
	switch {
	case g.c.pattern == allToAll, g.c.pattern == fanIn && i == 0:
		return g.c.n - 1
	case g.c.pattern == fanOut && i > 0:
		return 1
	}
	return 0
}

// settle waits until all links are direct that the pattern uses, and marks that some are not.
func (g *fanGroup) settle(ctx context.Context, rec *results.Record) error {
	if !g.c.direct() {
		return nil
	}
	began := time.Now()
	relayed := make([][]string, g.c.n)
	err := g.each(ctx, func(ctx context.Context, i int) (err error) {
		var peers []string
		for _, j := range g.receivers(i) {
			if g.c.pattern != allToAll || j > i {
				peers = append(peers, g.names[j])
			}
		}
		if len(peers) == 0 {
			return nil
		}
		relayed[i], err = g.procs[i].Settle(ctx, worker.SettleArgs{Peers: peers, Wait: fanSettle})
		return err
	})
	rec.Measured["settled_ms"] = ms(time.Since(began)) / float64(g.r.slow())
	if all := slices.Concat(relayed...); len(all) > 0 {
		rec.Marks = append(rec.Marks, fmt.Sprintf("%d links were not direct after %v: one %s", len(all), fanSettle, all[0]))
	}
	return err
}

// usage is what all functions have used: the CPU of all, and the peak of the one with the most memory.
func (g *fanGroup) usage(ctx context.Context) (all rpc.Usage, err error) {
	used := make([]rpc.Usage, len(g.procs))
	err = g.each(ctx, func(ctx context.Context, i int) (err error) { used[i], err = g.procs[i].Usage(ctx); return err })
	for _, u := range used {
		all.CPU += u.CPU
		all.MaxRSSBytes = max(all.MaxRSSBytes, u.MaxRSSBytes)
	}
	return all, err
}

// fanRound is what a round took, in milliseconds.
type fanRound struct {
	done  float64
	edges []float64 // from when a state was begun to be sent or put, until it was there
	late  float64   // the last function to begin, after the moment that was set
	busy  float64   // of all functions, each until it has done its share

	notDirect   int
	idle, ticks int64 // of the machine
}

// round has all functions do their share.
func (g *fanGroup) round(ctx context.Context, cold bool) (one fanRound, err error) {
	ctx, cancel := context.WithTimeout(ctx, fanLimit)
	defer cancel()
	prefix := g.w.FreshName("fan")
	args, want := g.shares(prefix, cold)
	done := make([]worker.Exchanged, len(g.procs))
	at := time.Now().Add(fanLead + time.Duration(g.c.n)*fanLead1)
	sampled := make(chan [2]int64, 1) // idle, ticks
	sampling := time.AfterFunc(time.Until(at)-fanSample, func() {
		idle, ticks := results.CPUTime()
		sampled <- [2]int64{idle, ticks}
	})
	defer sampling.Stop()
	err = g.each(ctx, func(ctx context.Context, i int) (err error) {
		args[i].At = at.UnixNano()
		done[i], err = g.procs[i].Exchange(ctx, args[i])
		return err
	})
	if err != nil {
		return one, err
	}
	idleAfter, ticksAfter := results.CPUTime()
	one, err = g.judge(at.UnixNano(), done, want)
	one.divide(float64(g.r.slow()))
	before := <-sampled
	one.idle, one.ticks = idleAfter-before[0], ticksAfter-before[1]
	return one, errors.Join(err, g.clean(ctx, args))
}

// divide makes times those of a network that is so many times faster; see wan.Profile.Slowed.
func (f *fanRound) divide(by float64) {
	for _, t := range []*float64{&f.done, &f.busy, &f.late} {
		*t /= by
	}
	for i := range f.edges {
		f.edges[i] /= by
	}
}

// shares returns what each function is to do, and the states by their keys.
func (g *fanGroup) shares(prefix string, cold bool) ([]worker.ExchangeArgs, map[string]state) {
	args, want := make([]worker.ExchangeArgs, g.c.n), make(map[string]state)
	states := g.states[g.c.size]
	for i := range args {
		a := &args[i]
		a.Receive, a.ByRef, a.Path, a.Store, a.Parallel = g.incoming(i), g.c.byRef(), "auto", g.store, g.parallel
		if g.c.way == wayRelay {
			a.Path = "relay"
		}
		if cold && g.store == nil {
			join := g.w.JoinArgsAt(memberName(i), g.names[i])
			if g.c.direct() {
				join.EarlyBytes = fnlib.MaxEarly
			}
			a.Join = &join
		}
		var to []string
		for _, j := range g.receivers(i) {
			if to = append(to, g.nameFor(j)); g.c.pattern == allToAll {
				key := fmt.Sprintf("%s/%d-%d", prefix, i, j)
				want[key] = states[(i+j)%len(states)]
				a.Send = append(a.Send, worker.Load{Key: key, To: to, Source: want[key].Source})
				to = nil
			}
		}
		if len(to) > 0 {
			key := fmt.Sprintf("%s/%d", prefix, i)
			want[key] = states[i%len(states)]
			a.Send = append(a.Send, worker.Load{Key: key, To: to, Source: want[key].Source})
		}
	}
	return args, want
}

// nameFor is what a function is addressed by.
func (g *fanGroup) nameFor(i int) string {
	if g.store != nil {
		return g.bells[i]
	}
	return g.names[i]
}

// judge holds what has come against what was to come.
func (g *fanGroup) judge(at int64, done []worker.Exchanged, want map[string]state) (one fanRound, err error) {
	type edge struct{ key, to string }
	began := make(map[edge]int64)
	for _, d := range done {
		one.late = max(one.late, since(at, d.Began))
		ended := d.Began
		for _, e := range d.Sent {
			began[edge{e.Key, e.Peer}] = e.Began
			ended = max(ended, e.Ended)
		}
		for _, e := range d.Got {
			ended = max(ended, e.Ended)
		}
		one.busy += since(at, ended)
	}
	for i, d := range done {
		if n := g.incoming(i); len(d.Got) != n {
			return one, fmt.Errorf("%s has got %d states, want %d", g.names[i], len(d.Got), n)
		}
		seen := make(map[string]bool)
		for _, e := range d.Got {
			s, ok := want[e.Key]
			if !ok || seen[e.Key] {
				return one, fmt.Errorf("%s has got %q, which is not for it, or twice", g.names[i], e.Key)
			}
			seen[e.Key] = true
			if err := s.check(worker.Received{Bytes: e.Bytes, Digest: e.Digest}, onestream.SHA256); err != nil {
				return one, err
			}
			from := edge{key: e.Key}
			if g.store == nil {
				from.to = g.names[i]
				if e.Path != wayDirect {
					one.notDirect++
				}
			}
			one.done = max(one.done, since(at, e.Ended))
			one.edges = append(one.edges, since(began[from], e.Ended))
		}
	}
	return one, nil
}

// clean deletes what was stored.
func (g *fanGroup) clean(ctx context.Context, args []worker.ExchangeArgs) error {
	if g.store == nil {
		return nil
	}
	return g.each(ctx, func(ctx context.Context, i int) error {
		var keys []string
		for _, l := range args[i].Send {
			keys = append(keys, l.Key)
		}
		if len(keys) == 0 {
			return nil
		}
		return g.procs[i].Drop(ctx, worker.DropArgs{Store: *g.store, Keys: keys, Parallel: g.parallel})
	})
}
