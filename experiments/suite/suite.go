// Package suite is the experiments: what each does, with which settings, and the frame that runs them. An experiment raises
// a world (package world), has its functions do something, and emits one record a measurement. It draws no conclusions.
package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/wan"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
)

// Setting is something that can be set for an experiment.
type Setting struct {
	Name    string
	Default string
	Quick   string // with --quick; "" is Default
	Help    string
}

// Experiment is one of All.
type Experiment struct {
	Name     string
	Summary  string
	Settings []Setting // "reps" is among them
	run      func(context.Context, *run) error
}

// All returns the experiments.
func All() []Experiment {
	return []Experiment{
		transfer(), connect(), pairs(), skew(), flap(),
		faults(),
		fan(), dagOf(),
		throughput(), attack(), rendezvousOf(), relayOf(),
		natMatrix(),
		handoff(),
		footprintOf(),
	}
}

// Find returns the experiment of a name.
func Find(name string) (Experiment, error) {
	names := make([]string, 0, len(All()))
	for _, e := range All() {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	return Experiment{}, fmt.Errorf("no experiment %q: there are %s", name, strings.Join(names, ", "))
}

// Options say how to run an experiment.
type Options struct {
	Quick    bool
	Seed     uint64
	Set      map[string]string // other values of settings
	Commit   string            // of the program, for the records, as Program
	Program  string
	World    world.Config // its hosts are set by the experiment
	Progress func(string) // told what goes on; may be nil
	// Has tells whether a measurement was made before and need not be made again; may be nil.
	Has func(results.Record) bool
	// Before is those measurements, for an experiment that judges all of them together.
	Before []results.Record
	// Emit takes each measurement as it is made.
	Emit func(results.Record) error
}

// ErrSettings is wrapped by the error of Run when Options.Set is wrong.
var ErrSettings = errors.New("wrong setting")

// Run runs the experiment. A measurement that failed is emitted with its error, and the others go on; the
// error of Run tells how many failed. lab.Enter must have been called.
func (e Experiment) Run(ctx context.Context, o Options) error {
	r, err := e.prepare(o)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	r.steady = results.WatchSteady(watching)
	if err := e.run(ctx, r); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	if r.emitted+r.passed == 0 {
		return fmt.Errorf("%s: %w: they leave nothing to measure", e.Name, ErrSettings)
	}
	if r.failed > 0 {
		return fmt.Errorf("%s: %d of %d measurements failed, the first with: %s", e.Name, r.failed, r.emitted, r.first)
	}
	return nil
}

// Check tells whether Options.Set is right, without running the experiment.
func (e Experiment) Check(ctx context.Context, o Options) error {
	o.Progress = nil
	r, err := e.prepare(o)
	if err != nil {
		return err
	}
	r.checking = true
	if err := e.run(ctx, r); !errors.Is(err, errChecked) {
		return fmt.Errorf("%s: %w", e.Name, err)
	}
	return nil
}

// errChecked ends an experiment whose settings are right and which is only checked.
var errChecked = errors.New("checked")

// checked is called by an experiment when it has read its settings, before it does anything.
func (r *run) checked() error {
	if _, there := r.settings[settingProfile]; there {
		if _, err := setting(r, settingProfile, wan.FindProfile); err != nil {
			return err
		}
	}
	if _, there := r.settings[settingCompress]; there {
		if _, err := setting(r, settingCompress, strconv.ParseBool); err != nil {
			return err
		}
	}
	if r.checking {
		return errChecked
	}
	return nil
}

// prepare has the settings as they are said to be.
func (e Experiment) prepare(o Options) (*run, error) {
	r := &run{e: e, o: o, settings: make(map[string]string), machine: results.ThisMachine(), began: time.Now()}
	if o.Progress == nil {
		r.o.Progress = func(string) {}
	}
	if o.Has == nil {
		r.o.Has = func(results.Record) bool { return false }
	}
	for _, s := range e.Settings {
		r.settings[s.Name] = s.Default
		if o.Quick && s.Quick != "" {
			r.settings[s.Name] = s.Quick
		}
	}
	for name, value := range o.Set {
		if _, ok := r.settings[name]; !ok {
			known := slices.Sorted(maps.Keys(r.settings))
			return nil, fmt.Errorf("%w: %s has no %q: there are %s", ErrSettings, e.Name, name, strings.Join(known, ", "))
		}
		r.settings[name] = value
	}
	return r, nil
}

// run is an experiment under way.
type run struct {
	e        Experiment
	o        Options
	settings map[string]string
	machine  results.Machine
	steady   *results.Steady
	began    time.Time
	checking bool          // nothing but the settings
	planned  int           // measurements, if known
	limit    time.Duration // of one measurement; 0 is 4 min

	calibration []results.Check // of the network; none if that is not emulated
	watched     *world.World    // of all measurements, whose network is; nil if none

	divided bool // times are divided by slow

	mu              sync.Mutex // guards what follows, and the calls of Options.Has, Progress and Emit
	passed          int        // measurements that were there already
	emitted, failed int
	first           string           // error
	made            []results.Record // by this run, and before by one with the same settings
}

// setting parses the value of a setting.
func setting[T any](r *run, name string, parse func(string) (T, error)) (T, error) {
	v, err := parse(r.settings[name])
	if err != nil {
		return v, fmt.Errorf("%w: %s: %w", ErrSettings, name, err)
	}
	return v, nil
}

// wrong is the error of a setting with a value that cannot be.
func wrong(name, value, want string, args ...any) error {
	return fmt.Errorf("%w: %s=%s: %s", ErrSettings, name, value, fmt.Sprintf(want, args...))
}

func (r *run) count(name string, least, most int) (int, error) {
	return parseCount(name, r.settings[name], least, most)
}

// bounded is a count among several that are read together.
type bounded struct {
	name        string
	to          *int
	least, most int
}

func (r *run) counts(all ...bounded) (err error) {
	for _, c := range all {
		if *c.to, err = r.count(c.name, c.least, c.most); err != nil {
			return err
		}
	}
	return nil
}

func parseCount(name, value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, wrong(name, value, "want %d to %d", least, most)
	}
	return n, nil
}

func (r *run) bytes(name string, least, most int64) (int64, error) {
	return parseBytes(name, r.settings[name], least, most)
}

func parseBytes(name, value string, least, most int64) (int64, error) {
	n, err := workload.ParseBytes(value)
	if err != nil || n < least || n > most {
		return 0, wrong(name, value, "want %s to %s", workload.FormatBytes(least), workload.FormatBytes(most))
	}
	return n, nil
}

// Bounds of settings.
const (
	shortest   = time.Millisecond // that something is divided by
	mostReps   = 10_000
	mostAtOnce = 1000
	mostHosts  = 128
	mostRate   = 10_000_000 // packets a second
	mostBytes  = 1 << 36    // of a state
	mostFlow   = 1 << 40    // bytes of a stream, or of its second
)

func (r *run) duration(name string, least time.Duration) (time.Duration, error) {
	return parseDuration(name, r.settings[name], least)
}

func parseDuration(name, value string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < least {
		return 0, wrong(name, value, "want %v or more", least)
	}
	return d, nil
}

// list splits a setting at commas.
func (r *run) list(name string) []string {
	var out []string
	for s := range strings.SplitSeq(r.settings[name], ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// measure makes one measurement unless it was made before, and emits it. f fills the record in; its error becomes that
// of the record. Only the end of ctx, or records that cannot be written, end the experiment.
func (r *run) measure(ctx context.Context, c string, rep int, f func(context.Context, *results.Record) error) error {
	rec := results.Record{
		Experiment: r.e.Name, Case: c, Rep: rep, Seed: r.o.Seed, Quick: r.o.Quick, Settings: maps.Clone(r.settings),
		Commit: r.o.Commit, Program: r.o.Program, Machine: r.machine, Measured: make(map[string]float64), Phases: make(map[string]float64),
	}
	if r.has(rec) {
		return nil
	}
	mctx, cancel := context.WithTimeout(ctx, cmp.Or(r.limit, measureTimeout))
	defer cancel()
	rec.Time = time.Now().UTC()
	r.dilated(&rec)
	rec.Calibration = r.calibration
	done := r.watch(&rec, r.watched)
	slow, windows := r.steady.Windows()
	err := f(mctx, &rec)
	done()
	r.judgeSteady(&rec, slow, windows)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && !rec.OK {
		err = errors.New("delivered, but not as it should have been")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.emitted++
	if err != nil {
		rec.OK, rec.Error, rec.Skipped = false, err.Error(), skipped(err)
		if rec.Skipped {
			r.o.Progress("skipped: " + rec.Error)
		} else if r.failed++; r.failed == 1 {
			r.first = fmt.Sprintf("%s, repetition %d: %v", c, rep+1, err)
		}
	}
	r.made = append(r.made, rec)
	return r.o.Emit(rec)
}

// say shows what a measurement is at.
func (r *run) say(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.o.Progress(what)
}

// has tells whether a measurement was made before, and shows progress.
func (r *run) has(rec results.Record) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	has := r.o.Has(rec)
	note := ""
	if has {
		r.passed++
		key := rec.Key()
		if i := slices.IndexFunc(r.o.Before, func(b results.Record) bool { return b.OK && b.Case == rec.Case && b.Rep == rec.Rep && b.Key() == key }); i >= 0 {
			r.made = append(r.made, r.o.Before[i])
		}
		note = ": there already"
	} else if left := r.planned - r.passed - r.emitted; r.planned > 0 {
		note = fmt.Sprintf(" (%d of %d done", r.planned-left, r.planned)
		if r.emitted > 0 {
			note += fmt.Sprintf(", about %v left", (time.Since(r.began) / time.Duration(r.emitted) * time.Duration(left)).Round(time.Second))
		}
		note += ")"
	}
	r.o.Progress(fmt.Sprintf("%s: %s, repetition %d%s", r.e.Name, rec.Case, rec.Rep+1, note))
	return has
}

const measureTimeout = 4 * time.Minute

// shuffled returns the cases in an order of their own for each repetition, so that none has the same neighbour's heat, or the first
// place, every time.
func shuffled(cases []string, seed uint64, rep int) []string {
	out := slices.Clone(cases)
	rand.New(rand.NewPCG(seed, uint64(rep))).Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// ms is a duration in milliseconds.
func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// since is the time from one time of day to another, in milliseconds.
func since(from, to int64) float64 { return float64(to-from) / 1e6 }

func mbps(bytes int64, seconds float64) float64 { return float64(bytes) * 8 / seconds / 1e6 }
