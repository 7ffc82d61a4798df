package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
)

const (
	faultPoll    = 10 * time.Millisecond
	faultTimeout = 100 * time.Second // from the end of a fault until everything is as before
	chatPace     = 25 * time.Millisecond
)

// faults breaks one thing at a time under an open stream and measures what the stream suffers.
func faults() Experiment {
	var names []string
	for _, f := range allFaults() {
		names = append(names, f.name)
	}
	return Experiment{
		Name: "faults",
		Summary: "one fault at a time under an open stream, which is a transfer (bulk) or small messages back and forth (chat), in a " +
			"fresh world each: every byte checked, longest gap at the receiver, time to recover, changes of path. Faults: " + strings.Join(names, ", "),
		Settings: []Setting{
			{"faults", "all", "", "which, separated by commas"},
			{"modes", "bulk,chat", "", "bulk, chat or both"},
			{"bytes", "200MB", "20MB", "at least this much goes over the stream of bulk"},
			{"rate", "20MB", "", "bytes per second at most, of bulk; 0: as fast as it goes"},
			{"long", "60s", "20s", "how long a process is frozen, and the rendezvous away"},
			{"calm", "1s", "500ms", "how long it is undisturbed before, and twice as long after"},
			{"parallel", "4", "", "worlds at a time"},
			{"reps", "3", "1", "repetitions"},
			profileSetting(),
		},
		run: runFaults,
	}
}

type faultsRun struct {
	r           *run
	bytes, rate int64
	long, calm  time.Duration
}

func runFaults(ctx context.Context, r *run) (err error) {
	f := &faultsRun{r: r}
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	parallel, err := r.count("parallel", 1, mostAtOnce)
	if err != nil {
		return err
	}
	if f.bytes, err = r.bytes("bytes", 0, mostFlow); err != nil {
		return err
	}
	if f.rate, err = r.bytes("rate", 0, mostFlow); err != nil {
		return err
	}
	if f.long, err = r.duration("long", 0); err != nil {
		return err
	}
	if f.calm, err = r.duration("calm", 0); err != nil {
		return err
	}
	chosen, err := f.choose()
	if err != nil {
		return err
	}
	modes := r.list("modes")
	for _, m := range modes {
		if m != "bulk" && m != "chat" {
			return fmt.Errorf("%w: modes: %q is neither bulk nor chat", ErrSettings, m)
		}
	}
	if len(modes) == 0 {
		return fmt.Errorf("%w: modes: none", ErrSettings)
	}
	if err := r.checked(); err != nil {
		return err
	}
	if err := r.calibrate(ctx); err != nil {
		return err
	}
	r.planned = reps * len(chosen) * len(modes)
	all, actx := errgroup.WithContext(ctx)
	all.SetLimit(parallel)
	for rep := range reps {
		for _, ft := range chosen {
			for _, mode := range modes {
				all.Go(func() error {
					return r.measure(actx, ft.name+"/"+mode, rep, func(ctx context.Context, rec *results.Record) error {
						return f.one(ctx, ft, mode, rec)
					})
				})
			}
		}
	}
	return all.Wait()
}

// choose returns the faults that are wanted, those that take longest first, so that the end is not spent waiting for one.
func (f *faultsRun) choose() ([]fault, error) {
	wanted := f.r.list("faults")
	var out []fault
	for _, ft := range allFaults() {
		if slices.Contains(wanted, "all") || slices.Contains(wanted, ft.name) {
			out = append(out, ft)
		}
		wanted = slices.DeleteFunc(wanted, func(s string) bool { return s == ft.name })
	}
	wanted = slices.DeleteFunc(wanted, func(s string) bool { return s == "all" })
	if len(wanted) > 0 || len(out) == 0 {
		return nil, fmt.Errorf("%w: faults: there is no %q", ErrSettings, wanted)
	}
	slices.SortStableFunc(out, func(a, b fault) int { return int(f.length(b) - f.length(a)) })
	return out, nil
}

func (f *faultsRun) length(ft fault) time.Duration {
	if ft.lasts < 0 {
		return f.long
	}
	return ft.lasts
}

// one raises a world, has a stream flow in it, breaks something, and mends it.
func (f *faultsRun) one(ctx context.Context, ft fault, mode string, rec *results.Record) error {
	cfg := f.r.o.World
	cfg.Hosts, cfg.Relays = ft.hosts(), ft.relays
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends what a fault has started again
	w, err := f.r.world(ctx, cfg)
	if err != nil {
		return err
	}
	defer w.Close()
	defer f.r.watch(rec, w)()
	c, _, _, _, err := meet(ctx, w, "a", "b")
	if err != nil {
		return err
	}
	s := &scene{couple: c, w: w, bulk: mode == "bulk"}
	began := time.Now()
	var sent, got worker.Poured
	flow, fctx := errgroup.WithContext(ctx)
	flow.Go(func() (err error) {
		if s.bulk {
			got, err = c.b.Drain(fctx)
		} else {
			got, err = c.b.Echo(fctx)
		}
		return err
	})
	flow.Go(func() (err error) {
		for {
			if _, err := c.b.Poured(fctx); err == nil { // it listens
				break
			}
			if err := pause(fctx, faultPoll); err != nil {
				return err
			}
		}
		if s.bulk {
			sent, err = c.a.Pour(fctx, worker.PourArgs{To: c.nameB, Seed: rec.Seed, BytesPerSecond: f.rate})
		} else {
			sent, err = c.a.Chat(fctx, worker.ChatArgs{To: c.nameB, Seed: rec.Seed, Pace: chatPace})
		}
		return err
	})
	var t faultTimes
	flow.Go(func() (err error) {
		if t, err = f.disturb(fctx, ft, s); err != nil {
			return err
		}
		return c.a.StopPour(fctx)
	})
	err = flow.Wait()
	rec.Seconds = time.Since(began).Seconds()
	rec.Path, rec.Bytes = "direct", got.Bytes
	if !ft.direct() {
		rec.Path = "relay"
	}
	rec.Reason = strings.Join(sent.Changes, "; ")
	if err != nil {
		return err
	}
	rec.OK = sent.Bytes > 0 && got.Bytes == sent.Bytes && got.Digest == sent.Digest
	t.note(rec, got, sent)
	return nil
}

// faultTimes are times of day in nanoseconds; mended is 0 if the fault is not mended, direct if the path was not looked for at once
// or did not have to be direct.
type faultTimes struct{ broken, mended, direct int64 }

// disturb breaks something when the stream flows, mends it, and returns when the stream flows again, by the path that it should.
func (f *faultsRun) disturb(ctx context.Context, ft fault, s *scene) (t faultTimes, err error) {
	if _, err := s.flows(ctx, ft.direct()); err != nil {
		return t, fmt.Errorf("before the fault: %w", err)
	}
	if err := pause(ctx, f.calm); err != nil {
		return t, err
	}
	t.broken = time.Now().UnixNano()
	mend, err := ft.do(ctx, s)
	if err == nil {
		err = pause(ctx, f.length(ft))
	}
	if mend != nil {
		err = errors.Join(err, mend())
		t.mended = time.Now().UnixNano()
	}
	if err != nil {
		return t, err
	}
	at, err := s.flows(ctx, ft.direct())
	if err != nil {
		return t, fmt.Errorf("after the fault: %w", err)
	}
	if ft.direct() && (mend != nil || ft.lasts == 0) {
		t.direct = at
	}
	if err := pause(ctx, 2*f.calm); err != nil {
		return t, err
	}
	for s.bulk {
		p, err := s.a.Poured(ctx)
		if err != nil || p.Bytes >= f.bytes {
			return t, err
		}
		if err := pause(ctx, faultPoll); err != nil {
			return t, err
		}
	}
	return t, nil
}

// flows waits until the receiver gets something that it had not when asked, and until the sender's path is direct if it should
// be. It returns when that was.
func (s *scene) flows(ctx context.Context, direct bool) (int64, error) {
	at, last := int64(-1), "nothing is received"
	for until := time.Now().Add(faultTimeout); time.Now().Before(until); {
		b, errB := s.b.Poured(ctx)
		a, errA := s.a.Poured(ctx)
		switch {
		case errA != nil || errB != nil: // before the stream is open there is none to ask about
			last = fmt.Sprint(errors.Join(errA, errB))
		case at < 0:
			at = b.Bytes
		case b.Bytes > at && (!direct || a.Path.Path == "direct"):
			return a.Path.At, nil
		case b.Bytes > at:
			last = "it flows, but the path is " + a.Path.Path + ": " + a.Path.Reason
		}
		if err := pause(ctx, faultPoll); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("not in order within %v: %s", faultTimeout, last)
}

// note tells the longest gap that the receiver saw from the fault on, when it was over, and how often the path changed.
func (t faultTimes) note(rec *results.Record, got, sent worker.Poured) {
	var longest worker.Gap
	for _, g := range got.Gaps {
		if g.Began+int64(g.Took) >= t.broken && g.Took > longest.Took {
			longest = g
		}
	}
	rec.Measured["gap_ms"] = ms(longest.Took)
	over := longest.Began + int64(longest.Took)
	if longest.Took > 0 {
		rec.Measured["recovered_ms"] = since(t.broken, over)
		if t.mended > 0 {
			rec.Measured["recovered_after_mending_ms"] = max(since(t.mended, over), 0)
		}
	}
	if t.direct > 0 {
		rec.Measured["direct_again_ms"] = max(since(max(t.broken, t.mended), t.direct), 0)
	}
	rec.Measured["paths"] = float64(max(sent.Generation, got.Generation))
	rec.Measured["changes"] = float64(len(sent.Changes))
}
