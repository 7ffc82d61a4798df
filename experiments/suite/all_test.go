package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/results"
)

// fake is an experiment with two measurements, each of which takes a while and ends with err.
func fake(name string, each time.Duration, err error) Experiment {
	return Experiment{Name: name, Settings: []Setting{{Name: "bytes", Default: "1KiB"}}, run: func(ctx context.Context, r *run) error {
		if _, err := r.bytes("bytes", 0, mostBytes); err != nil {
			return err
		}
		if err := r.checked(); err != nil {
			return err
		}
		for rep := range 2 {
			if err := r.measure(ctx, "c", rep, func(_ context.Context, rec *results.Record) error {
				time.Sleep(each)
				rec.OK = true
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	}}
}

// TestAll: all go on whatever becomes of one, are told apart at the end, and the time left follows from how long those before took.
func TestAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		missing := fmt.Errorf("tool: %w: install it with: apt-get install tool", peer.ErrMissing)
		todo := []Experiment{
			fake("good", 30*time.Second, nil), fake("bad", time.Second, errors.New("broken")), fake("lacks", time.Second, missing),
			{Name: "never", run: func(_ context.Context, r *run) error { return cmp.Or(r.checked(), missing) }}, fake("last", 2*time.Second, nil),
		}
		var said []string
		var emitted int
		o := Options{
			Quick: true, Progress: func(s string) { said = append(said, s) }, Emit: func(results.Record) error { emitted++; return nil },
		}
		summary, err := runAll(t.Context(), todo, o, func(Experiment) map[string]string { return nil })
		if err == nil || !strings.Contains(err.Error(), "bad: 2 of 2") || strings.Contains(err.Error(), "lacks") || emitted != 8 {
			t.Errorf("%d emitted, %v", emitted, err)
		}
		if got, want := strings.Join(summary, "\n"), `good: done, 2 measurements in 1m0s
bad: failed, 2 measurements in 2s
lacks: left out, 0 measurements in 2s
  left out: tool: not available here: install it with: apt-get install tool
never: left out, 0 measurements in 0s
  left out: never: tool: not available here: install it with: apt-get install tool
last: done, 2 measurements in 4s`; got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
		// Each is expected to take 30 s; good took twice as long, and bad made it 62 s for 60.
		for _, want := range []string{
			"[1 of 5, about 2m30s left] good: c, repetition 1", "[1 of 5, about 2m0s left] good: c, repetition 2",
			"[2 of 5, about 4m0s left] bad: c, repetition 1", "[5 of 5, about 31s left] last: c, repetition 1",
		} {
			if !slices.Contains(said, want) {
				t.Errorf("never said %q: %q", want, said)
			}
		}
	})
}

func TestAllEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{Emit: func(results.Record) error { cancel(); return nil }}
	if _, err := runAll(ctx, []Experiment{fake("a", 0, nil), fake("b", 0, nil)}, o, func(Experiment) map[string]string { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	full, emitted := errors.New("no space left"), 0
	o.Emit = func(results.Record) error { emitted++; return full }
	summary, err := runAll(t.Context(), []Experiment{fake("a", 0, nil), fake("b", 0, nil)}, o, func(Experiment) map[string]string { return nil })
	if !errors.Is(err, full) || emitted != 1 || len(summary) != 1 {
		t.Errorf("nothing can be stored: %v, %d measured, %q", err, emitted, summary)
	}
	o.Emit = func(results.Record) error { return nil }
	// A wrong setting of the last is found before the first, and an error of the first is not forgotten when the second ends.
	emitted, o.Emit = 0, func(results.Record) error { emitted++; return nil }
	set := func(e Experiment) map[string]string {
		return map[string]string{"bytes": map[string]string{"a": "1", "b": "many"}[e.Name]}
	}
	if _, err := runAll(t.Context(), []Experiment{fake("a", 0, nil), fake("b", 0, nil)}, o, set); !errors.Is(err, ErrSettings) || emitted > 0 {
		t.Errorf("%d measured, %v", emitted, err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	o.Emit = func(r results.Record) error {
		if r.Experiment == "b" {
			cancel()
		}
		return nil
	}
	broken := fake("a", 0, errors.New("broken"))
	if _, err := runAll(ctx, []Experiment{broken, fake("b", 0, nil)}, o, func(Experiment) map[string]string { return nil }); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "broken") {
		t.Error(err)
	}
}

// TestNothing: an experiment that measures nothing says so.
func TestNothing(t *testing.T) {
	e := Experiment{Name: "empty", run: func(context.Context, *run) error { return nil }}
	if err := e.Run(t.Context(), Options{}); !errors.Is(err, ErrSettings) {
		t.Error(err)
	}
}

// TestTakes: of each experiment it is known how long it takes, and of none that there is not.
func TestTakes(t *testing.T) {
	known := 0
	for _, e := range All() {
		if _, ok := takes[e.Name]; ok {
			known++
		} else {
			t.Errorf("how long does %s take?", e.Name)
		}
	}
	if known != len(takes) {
		t.Errorf("%d experiments, %d times", known, len(takes))
	}
}
