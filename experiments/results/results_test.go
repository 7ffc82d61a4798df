package results_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/results"
)

func Example() {
	dir, err := os.MkdirTemp("", "results")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	w, err := results.Open(dir)
	if err != nil {
		panic(err)
	}
	r := results.Record{Experiment: "transfer", Case: "direct", Bytes: 1000, Seconds: 0.5, OK: true, Time: time.Now()}
	if err := w.Write(r); err != nil {
		panic(err)
	}
	fmt.Println(w.Has(r), w.Close())
	all, err := results.Load(dir)
	fmt.Println(len(all), all[0].Seconds, err)
	// Output:
	// true <nil>
	// 1 0.5 <nil>
}

func record(rep int, ok bool) results.Record {
	return results.Record{
		Experiment: "e", Case: "c", Path: "direct", Bytes: 5, Seconds: 1.5, OK: ok, Rep: rep,
		Measured: map[string]float64{"x": 1}, Settings: map[string]string{"a": "1", "b": "2"},
		Time: time.Unix(1, 0).UTC(), Commit: "abc", Machine: results.ThisMachine(),
	}
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dir")
	w, err := results.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []results.Record{record(0, true), record(1, false)}
	for _, r := range want {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, results.FileName)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"experiment": "cut o`); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()

	w, err = results.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for rep, has := range []bool{true, false, false} {
		if got := w.Has(record(rep, true)); got != has {
			t.Errorf("rep %d is there: %v, want %v", rep, got, has)
		}
	}
	other := record(0, true)
	other.Settings["a"] = "other"
	if w.Has(other) {
		t.Error("a record with other settings counts as done")
	}
	other = record(0, true)
	other.Program = "another"
	if w.Has(other) {
		t.Error("a record of another program counts as done")
	}
	want = append(want, record(1, true))
	if err := w.Write(want[2]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := results.Load(dir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("loaded %+v, %v, want %+v", got, err, want)
	}
}

// What is no measurement is neither loaded nor appended to, and the error says where it is and what to do.
func TestForeign(t *testing.T) {
	for _, line := range []string{"garbage", "{}", "null", `{"experiment":"e"}`, `{"time":"2026-01-02T03:04:05Z"}`} {
		dir := t.TempDir()
		path := filepath.Join(dir, results.FileName)
		good := `{"experiment":"e","time":"2026-01-02T03:04:05Z"}`
		if err := os.WriteFile(path, []byte(good+"\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, loaded := results.Load(dir)
		_, opened := results.Open(dir)
		for _, err := range []error{loaded, opened} {
			if err == nil || !strings.Contains(err.Error(), path+": line 2") || !strings.Contains(err.Error(), "take that line out") {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{[]float64{3}, 0.5, 3}, {[]float64{3, 1}, 0.5, 2}, {[]float64{5, 1, 3}, 0.5, 3}, {[]float64{5, 1, 3}, 0, 1}, {[]float64{5, 1, 3}, 1, 5},
		{[]float64{4, 1, 2, 3, 5}, 0.25, 2}, {[]float64{0, 10}, 0.9, 9},
	} {
		if got := results.Quantile(c.values, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("quantile %v of %v is %v, want %v", c.q, c.values, got, c.want)
		}
	}
	if !math.IsNaN(results.Median(nil)) {
		t.Error("nothing has a median")
	}
}

func TestThisMachine(t *testing.T) {
	if m := results.ThisMachine(); m.Cores < 1 || m.Go == "" || m.System == "" {
		t.Errorf("%+v", m)
	}
	commit, program, err := results.ThisProgram()
	if err != nil || commit == "" || len(program) != 16 {
		t.Errorf("commit %q, program %q, %v", commit, program, err)
	}
}

func TestCheckBad(t *testing.T) {
	for _, c := range []struct {
		check results.Check
		bad   bool
	}{
		{results.Check{Set: 10, Measured: 10.9}, false}, {results.Check{Set: 10, Measured: 11.1}, true}, {results.Check{Set: 10, Measured: 8.9}, true},
		{results.Check{Set: 10, Measured: 13, Chance: 0.25}, false}, {results.Check{Set: 10}, true}, {results.Check{}, true},
	} {
		if c.check.Bad() != c.bad {
			t.Errorf("%+v: off by %v, bad: %v", c.check, c.check.Off(), c.check.Bad())
		}
	}
}

func TestCPUTime(t *testing.T) {
	if _, err := os.Stat("/proc/stat"); err != nil {
		t.Skip("the system has no /proc/stat")
	}
	if idle, all := results.CPUTime(); idle < 0 || all <= idle {
		t.Errorf("idle for %d of %d ticks", idle, all)
	}
}

// One probe that was interrupted makes no slow window, one that seems faster than the machine is makes none of those after it, and most that took long do.
func TestPace(t *testing.T) {
	var p results.Pace
	for _, c := range []struct {
		name string
		took []time.Duration
		want bool
	}{
		{"first", []time.Duration{30, 31, 30, 33, 30}, false},
		{"best", []time.Duration{10, 11, 10, 12, 10}, false},
		{"sibling", []time.Duration{16, 15, 16, 10, 16}, false},
		{"interrupted", []time.Duration{10, 11, 900, 12, 300}, false},
		{"short account", []time.Duration{10, 2, 10, 12, 10}, false},
		{"steady again", []time.Duration{10, 11, 10, 12, 10}, false},
		{"slowed", []time.Duration{50, 60, 10, 12, 70}, true},
	} {
		if got := p.SlowWindow(c.took); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// What overlaps a slow window was slow.
func TestSlowSpans(t *testing.T) {
	var s results.Steady
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	for i, slow := range []bool{false, true, false, false, true} {
		s.NoteWindow(at(100*i), at(100*i+100), slow)
	}
	for _, c := range []struct {
		from, to int
		want     bool
	}{{0, 50, false}, {50, 120, true}, {120, 130, true}, {150, 350, true}, {210, 390, false}, {350, 450, true}, {501, 600, false}, {-50, 1000, true}} {
		if got := s.Slow(at(c.from), at(c.to)); got != c.want {
			t.Errorf("%d to %d ms: %v", c.from, c.to, got)
		}
	}
	if slow, all := s.Windows(); slow != 2 || all != 5 {
		t.Errorf("%d of %d", slow, all)
	}
}

// Windows are counted, while the machine is watched.
func TestSteady(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := results.WatchSteady(ctx)
	if runtime.GOOS != "linux" {
		t.Skip("threads' CPU time is known on Linux alone")
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		slow, all := s.Windows()
		if slow < 0 || slow > all {
			t.Fatalf("%d of %d windows are slow", slow, all)
		}
		if all >= 3 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no windows")
		}
	}
}
