package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/results"
)

// takes is how long experiments took on two cores, in seconds: in full, and with --quick.
var takes = map[string][2]int{
	"transfer": {120, 15}, "connect": {800, 27}, "pairs": {45, 7}, "skew": {80, 8}, "flap": {45, 5}, "faults": {300, 115},
	"throughput": {200, 35}, "attack": {45, 22}, "rendezvous": {200, 15}, "relay": {200, 16}, "nat-matrix": {200, 12}, "handoff": {200, 30}, "footprint": {350, 30},
	"fan": {250, 45}, "dag": {450, 18},
}

// Takes returns about how long the experiment takes on two cores with little else to do.
func (e Experiment) Takes(quick bool) time.Duration {
	t, ok := takes[e.Name]
	if !ok {
		t = [2]int{300, 30}
	}
	if quick {
		return time.Duration(t[1]) * time.Second
	}
	return time.Duration(t[0]) * time.Second
}

// quickBuild is how long a peer's program is built with --quick: libp2p takes minutes if nothing of it is in Go's cache.
const quickBuild = 30 * time.Second

// build builds a peer's program.
func (r *run) build(ctx context.Context, module string) (string, error) {
	if r.o.Quick {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, quickBuild)
		defer cancel()
	}
	return peer.Build(ctx, module)
}

// whole is all experiments under way.
type whole struct {
	quick    bool
	todo     []Experiment
	at       int // in todo
	began    time.Time
	expected time.Duration // of those that were measured anew
	took     time.Duration
}

// left returns about how long it is until all are done. How much longer than Takes the ones before took, those to come are taken to take.
func (w *whole) left() time.Duration {
	var sum time.Duration
	for i, e := range w.todo[w.at:] {
		t := e.Takes(w.quick)
		if w.expected > 0 {
			t = time.Duration(float64(t) * float64(w.took) / float64(w.expected))
		}
		if i == 0 {
			t = max(0, t-time.Since(w.began))
		}
		sum += t
	}
	return sum.Round(time.Second)
}

// RunAll runs all experiments one after the other, with the settings that set returns, of which all are checked first. One that fails does not stop
// the others, unless a measurement cannot be stored: its error is joined to those of the others. What was left out because something is missing is no
// error. The summary says what became of each, in lines.
func RunAll(ctx context.Context, o Options, set func(Experiment) map[string]string) (summary []string, err error) {
	return runAll(ctx, All(), o, set)
}

func runAll(ctx context.Context, todo []Experiment, o Options, set func(Experiment) map[string]string) (summary []string, failed error) {
	w := &whole{quick: o.Quick, todo: todo}
	show := o.Progress
	if show == nil {
		show = func(string) {}
	}
	var wrong error
	for _, e := range todo {
		eo := o
		eo.Set = set(e)
		wrong = errors.Join(wrong, e.Check(ctx, eo))
	}
	if wrong != nil {
		return nil, wrong
	}
	for i, e := range todo {
		made, missing, lost := 0, []string(nil), error(nil)
		eo := o
		eo.Set = set(e)
		eo.Progress = func(what string) {
			show(fmt.Sprintf("[%d of %d, about %v left] %s", i+1, len(todo), w.left(), what))
		}
		eo.Emit = func(r results.Record) error {
			if err := o.Emit(r); err != nil {
				lost = err
				return err
			}
			if r.Skipped {
				missing = append(missing, r.Error)
			} else {
				made++
			}
			return nil
		}
		w.at, w.began = i, time.Now()
		err := e.Run(ctx, eo)
		took := time.Since(w.began)
		switch {
		case ctx.Err() != nil:
			return summary, errors.Join(failed, ctx.Err())
		case skipped(err):
			missing = append(missing, err.Error())
		case err != nil:
			failed = errors.Join(failed, err)
		}
		if made > 0 {
			w.expected, w.took = w.expected+e.Takes(o.Quick), w.took+took
		}
		summary = append(summary, became(e.Name, made, took, missing, err)...)
		if lost != nil { // nor could what comes next be stored
			return summary, failed
		}
	}
	return summary, failed
}

// became says in lines what became of an experiment.
func became(name string, made int, took time.Duration, missing []string, err error) []string {
	what := "done"
	switch {
	case err != nil && !skipped(err):
		what = "failed"
	case len(missing) > 0 && made == 0:
		what = "left out"
	}
	lines := []string{fmt.Sprintf("%s: %s, %d measurements in %v", name, what, made, took.Round(time.Second))}
	slices.Sort(missing)
	for _, m := range slices.Compact(missing) {
		lines = append(lines, "  left out: "+cmp.Or(strings.TrimSpace(m), "no reason given"))
	}
	return lines
}
