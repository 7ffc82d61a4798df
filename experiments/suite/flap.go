package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
)

const (
	flapPoll    = 2 * time.Millisecond
	flapTimeout = 30 * time.Second
)

// flap measures what a stream suffers when the direct path under it goes away and comes back.
func flap() Experiment {
	return Experiment{
		Name: "flap",
		Summary: "an open stream while its path goes from direct to relay and back, because the network between the two " +
			"drops their packets for a while: digest, longest gap at each change, time to notice",
		Settings: []Setting{
			{"bytes", "200MB", "", "at least this much goes over the stream"},
			{"cycles", "3", "1", "how often the direct path goes away and comes back"},
			{"outage", "3s", "1s", "how long it is away"},
			{"calm", "1s", "500ms", "how long it is undisturbed in between"},
			{"rate", "0", "", "bytes per second at most; 0: as fast as it goes"},
			{"reps", "1", "", "repetitions"},
			profileSetting(),
		},
		run: runFlap,
	}
}

type flapRun struct {
	w            *world.World
	bytes, rate  int64
	cycles       int
	outage, calm time.Duration
	seed         uint64
}

func runFlap(ctx context.Context, r *run) (err error) {
	f := &flapRun{seed: r.o.Seed}
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	if f.bytes, err = r.bytes("bytes", 0, mostFlow); err != nil {
		return err
	}
	if f.rate, err = r.bytes("rate", 0, mostFlow); err != nil {
		return err
	}
	if f.cycles, err = r.count("cycles", 1, mostAtOnce); err != nil {
		return err
	}
	if f.outage, err = r.duration("outage", 0); err != nil {
		return err
	}
	if f.calm, err = r.duration("calm", 0); err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	cfg := r.o.World
	cfg.Hosts = []lab.Host{{Name: "a", NAT: lab.PortRestricted}, {Name: "b", NAT: lab.PortRestricted}}
	if f.w, err = r.raise(ctx, cfg); err != nil {
		return err
	}
	defer f.w.Close()
	for rep := range reps {
		if err := r.measure(ctx, "direct-relay-direct", rep, f.one); err != nil {
			return err
		}
	}
	return nil
}

func (f *flapRun) one(ctx context.Context, rec *results.Record) error {
	c, _, _, _, err := meet(ctx, f.w, "a", "b")
	if err != nil {
		return err
	}
	defer c.part()
	var poured, drained worker.Poured
	began := time.Now()
	flow, fctx := errgroup.WithContext(ctx)
	flow.Go(func() (err error) { drained, err = c.b.Drain(fctx); return err })
	flow.Go(func() (err error) {
		poured, err = c.a.Pour(fctx, worker.PourArgs{To: c.nameB, Seed: f.seed, BytesPerSecond: f.rate})
		return err
	})
	var changes []change
	flow.Go(func() (err error) {
		if changes, err = f.disturb(fctx, c); err != nil {
			return err
		}
		return c.a.StopPour(fctx)
	})
	if err := flow.Wait(); err != nil {
		return err
	}
	rec.Seconds = time.Since(began).Seconds()
	rec.Path, rec.Bytes = "direct+relay", drained.Bytes
	rec.OK = drained.Bytes >= f.bytes && drained.Bytes == poured.Bytes && drained.Digest == poured.Digest
	rec.Measured["goodput_mbps"] = mbps(rec.Bytes, rec.Seconds)
	rec.Measured["changes"] = float64(len(changes))
	note(rec, changes, drained.Gaps)
	return nil
}

// change is a change of path: what was done to the network, and when the sender's link had followed.
type change struct {
	to          string // direct or relay
	done, found int64
}

// disturb takes the direct path away and gives it back, and returns when enough has been sent.
func (f *flapRun) disturb(ctx context.Context, c couple) (changes []change, err error) {
	if _, err := f.follow(ctx, c, "direct"); err != nil {
		return nil, err
	}
	for range f.cycles {
		if err := pause(ctx, f.calm); err != nil {
			return nil, err
		}
		cut := time.Now().UnixNano()
		unblock, err := f.w.Lab().Block("a", "b")
		if err != nil {
			return nil, err
		}
		found, err := f.follow(ctx, c, "relay")
		if err != nil {
			return nil, errors.Join(err, unblock())
		}
		changes = append(changes, change{"relay", cut, found})
		if err := pause(ctx, f.outage); err != nil {
			return nil, errors.Join(err, unblock())
		}
		mended := time.Now().UnixNano()
		if err := unblock(); err != nil {
			return nil, err
		}
		if found, err = f.follow(ctx, c, "direct"); err != nil {
			return nil, err
		}
		changes = append(changes, change{"direct", mended, found})
	}
	if err := pause(ctx, f.calm); err != nil {
		return nil, err
	}
	for {
		p, err := c.a.Poured(ctx)
		if err != nil || p.Bytes >= f.bytes {
			return changes, err
		}
		if err := pause(ctx, flapPoll); err != nil {
			return nil, err
		}
	}
}

// follow waits until the sender's link has the path wanted, and tells when that was seen.
func (f *flapRun) follow(ctx context.Context, c couple, want string) (int64, error) {
	last := ""
	for until := time.Now().Add(flapTimeout); time.Now().Before(until); {
		p, err := c.a.Poured(ctx)
		if err == nil && p.Path.Path == want {
			return p.Path.At, nil
		}
		if err == nil { // before the stream is open there is none to ask about
			last = p.Path.Path + ": " + p.Path.Reason
		}
		if err := pause(ctx, flapPoll); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("the path is not %s within %v, but %s", want, flapTimeout, last)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note tells the longest gaps that the reader saw: of all, and of those that overlap with a change of each kind, from
// what was done to the network until a second after the link had followed.
func note(rec *results.Record, changes []change, gaps []worker.Gap) {
	longest := func(overlaps func(from, to int64) bool) float64 {
		var most time.Duration
		for _, g := range gaps {
			if overlaps(g.Began, g.Began+int64(g.Took)) {
				most = max(most, g.Took)
			}
		}
		return ms(most)
	}
	rec.Measured["gap_longest_ms"] = longest(func(int64, int64) bool { return true })
	near := func(kind string) func(from, to int64) bool {
		return func(from, to int64) bool {
			return slices.ContainsFunc(changes, func(c change) bool {
				return c.to == kind && to >= c.done && from <= c.found+int64(time.Second)
			})
		}
	}
	for kind, name := range map[string]string{"relay": "downgrade", "direct": "upgrade"} {
		rec.Measured["gap_"+name+"_ms"] = longest(near(kind))
		var took float64
		for _, c := range changes {
			if c.to == kind {
				took = max(took, since(c.done, c.found))
			}
		}
		rec.Measured[name+"_noticed_ms"] = took
	}
	rec.Measured["gap_calm_ms"] = longest(func(from, to int64) bool {
		return !near("relay")(from, to) && !near("direct")(from, to)
	})
}
