package suite

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fnwire/fnwire/experiments/bill"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
)

// The patterns, and the ways that fan alone has.
const (
	fanIn    = "fan-in"
	fanOut   = "fan-out"
	allToAll = "all-to-all"

	waySend = "fnwire-send"
)

const (
	fanDistinct = 64 // states that differ, of each size
	fanShift    = 1 << 10
	fanBytes    = 64 << 20 // of all rounds of one measurement, about
	fanMost     = 20       // rounds
	fanRefLeast = 1 << 20  // bytes of a state from which on it is sent to many by ref, as README advises
)

func fanPatterns() []string { return []string{fanIn, fanOut, allToAll} }

func fanWays() []string {
	return []string{wayFnwire, waySend, wayRelay, wayRedis, wayS3, wayNATS}
}

// fan measures patterns of many functions that send to one another.
func fan() Experiment {
	return Experiment{
		Name: "fan",
		Summary: "fan-in (all others send to one), fan-out (one sends the same state to all others) and all-to-all (each sends each other one a state of its own) among functions, each on a host " +
			"behind a port-restricted NAT of its own: by fnwire, which links each pair directly, and in a fan-out of 1 MiB or more puts the state (fnlib's Put) and sends the ref, by which the others get it, and each passes on to the next what it has got; by fnwire-send, which sends " +
			"the state to each of them; and by stores. " +
			"done_ms is from the moment at which all begin until the last receiver has the last byte and a right digest, with functions that have joined and links that are up and direct, or connections to the " +
			"store that are open (states of 64 KiB at most are in memory, others are read from files meanwhile); cold_ms is the first round, of running processes that have not joined, in which by fnwire and fnwire-send states of 32 KiB at most go early (fnlib.Config.EarlyBytes), before there are links. By a store a state is put, once for all who want it, and got as soon as it is " +
			"there: receivers are told by a local datagram, as if they knew at once and for nothing",
		Settings: []Setting{
			{"patterns", strings.Join(fanPatterns(), ","), "", "which to measure"},
			{"functions", "4,16,64", "4,16", "how many"},
			{"bytes", "10KB,10MB", "", "of each state"},
			{"ways", "fnwire,fnwire-send,redis,s3,nats", "fnwire,fnwire-send,redis,s3", "which to measure: " + strings.Join(fanWays(), ", ")},
			{"parallel", "16", "", "requests that a function has under way at a store, each way"},
			{"most", "1GB", "200MB", "bytes that a round may move; cases that move more are left out"},
			{"edges", "1000", "300", "states that a round may have, each of which takes a link; cases that have more are left out, as all functions share the machine's cores"},
			{"reps", "3", "1", "repetitions of each case, in alternating order, each with new processes"},
			profileSetting(),
			serviceSetting(),
			compressSetting(),
		},
		run: runFan,
	}
}

// fanCase is one case.
type fanCase struct {
	pattern string
	n       int // functions
	size    int64
	way     string
}

func (c fanCase) edges() int {
	if c.pattern == allToAll {
		return c.n * (c.n - 1)
	}
	return c.n - 1
}

// direct tells whether it goes by direct links.
func (c fanCase) direct() bool { return c.way == wayFnwire || c.way == waySend }

// byRef tells whether it goes by ref.
func (c fanCase) byRef() bool {
	return c.way == wayFnwire && c.pattern == fanOut && c.size >= fanRefLeast
}

// puts is how many states there are to put.
func (c fanCase) puts() int {
	if c.pattern == fanOut {
		return 1
	}
	return c.edges()
}

func (c fanCase) bytes() int64 { return int64(c.edges()) * c.size }

// size is one of a state as the setting has it.
type fanSize struct {
	text  string
	bytes int64
}

type fanRun struct {
	r        *run
	w        *world.World
	states   map[int64][]state
	stores   *stores
	parallel int
	most     int64
	edges    int
	cases    map[string]fanCase
	names    []string
}

func runFan(ctx context.Context, r *run) (err error) {
	r.divided = true
	f := &fanRun{r: r, states: make(map[int64][]state), cases: make(map[string]fanCase)}
	err = r.counts(bounded{"parallel", &f.parallel, 1, mostAtOnce}, bounded{"edges", &f.edges, 1, mostHosts * mostHosts})
	if err != nil {
		return err
	}
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	if f.most, err = r.bytes("most", 1, mostFlow); err != nil {
		return err
	}
	if f.stores, err = r.stores(ctx); err != nil {
		return err
	}
	hosts, err := f.plan()
	if err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	if err := f.makeStates(ctx); err != nil {
		return err
	}
	cfg := r.o.World
	for i := range hosts {
		cfg.Hosts = append(cfg.Hosts, lab.Host{Name: memberName(i), NAT: lab.PortRestricted})
	}
	if f.w, err = r.raise(ctx, cfg); err != nil {
		return err
	}
	defer f.w.Close()
	r.planned = reps * len(f.names)
	for rep := range reps {
		for _, name := range shuffled(f.names, r.o.Seed, rep) {
			if err := r.measure(ctx, name, rep, func(ctx context.Context, rec *results.Record) error {
				return f.one(ctx, rec, f.cases[name])
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// plan reads the settings that make the cases, and returns how many hosts it takes.
func (f *fanRun) plan() (hosts int, err error) {
	for name, all := range map[string][]string{"patterns": fanPatterns(), "ways": fanWays()} {
		for _, v := range f.r.list(name) {
			if !slices.Contains(all, v) {
				return 0, fmt.Errorf("%w: %s: no %q: there are %v", ErrSettings, name, v, all)
			}
		}
	}
	sizes, err := f.sizes()
	if err != nil {
		return 0, err
	}
	for _, text := range f.r.list("functions") {
		n, err := parseCount("functions", text, 2, mostHosts)
		if err != nil {
			return 0, err
		}
		hosts = max(hosts, n)
		for _, pattern := range f.r.list("patterns") {
			for _, size := range sizes {
				f.planWays(fanCase{pattern: pattern, n: n, size: size.bytes}, size.text)
			}
		}
	}
	if len(f.names) == 0 {
		return 0, fmt.Errorf("%w: patterns, functions, bytes or ways: none, or all are left out because of most or edges", ErrSettings)
	}
	return hosts, nil
}

func (f *fanRun) sizes() (sizes []fanSize, err error) {
	for _, text := range f.r.list("bytes") {
		size, err := parseBytes("bytes", text, 1, mostBytes)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, fanSize{text, size})
	}
	return sizes, nil
}

// makeStates makes those of all cases.
func (f *fanRun) makeStates(ctx context.Context) error {
	for _, c := range f.cases {
		if f.states[c.size] != nil {
			continue
		}
		f.r.say(fmt.Sprintf("%s: reading states of %s", f.r.e.Name, sizeName(c.size)))
		all, err := workload.Real(ctx, c.size+fanDistinct*fanShift)
		if err != nil {
			return err
		}
		for i := range int64(fanDistinct) {
			s, err := newState(ctx, all.Section(i*fanShift, c.size))
			if err != nil {
				return err
			}
			f.states[c.size] = append(f.states[c.size], s)
		}
	}
	return nil
}

// planWays plans a pattern by all ways.
func (f *fanRun) planWays(c fanCase, size string) {
	work := fmt.Sprintf("%s %d %s", c.pattern, c.n, size)
	if c.bytes() > f.most || c.edges() > f.edges {
		f.r.say(fmt.Sprintf("%s: %s is left out: a round moves %s in %d states, more than the settings most and edges allow",
			f.r.e.Name, work, sizeName(c.bytes()), c.edges()))
		return
	}
	for _, way := range f.r.list("ways") {
		if c.way = way; way == waySend && (c.pattern != fanOut || c.size < fanRefLeast) {
			continue
		}
		f.cases[way+" "+work] = c
		f.names = append(f.names, way+" "+work)
	}
}

// rounds is how many rounds a measurement has.
func (c fanCase) rounds() int { return int(min(max(fanBytes/c.bytes(), 1), fanMost)) }

// one makes a measurement.
func (f *fanRun) one(ctx context.Context, rec *results.Record, c fanCase) error {
	rec.Work = fmt.Sprintf("%s of %d, %s", c.pattern, c.n, sizeName(c.size))
	rec.Way, rec.Bytes = c.way, c.bytes()
	g := &fanGroup{fanRun: f, c: c}
	if !c.direct() && c.way != wayRelay {
		where, err := f.stores.open(f.w, rec, c.way)
		if err != nil {
			return err
		}
		g.store = &where
	}
	if err := g.gather(ctx); err != nil {
		return err
	}
	defer g.part()
	if err := g.cold(ctx, rec); err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	if err := g.settle(ctx, rec); err != nil {
		return err
	}
	before, err := g.usage(ctx)
	if err != nil {
		return err
	}
	var all fanRounds
	for range c.rounds() {
		one, err := g.round(ctx, false)
		if err != nil {
			return err
		}
		all = append(all, one)
	}
	after, err := g.usage(ctx)
	if err != nil {
		return err
	}
	all.fill(rec, c)
	rec.Bill = bill.Default().Charges(f.use(c, all))
	rec.Measured["cpu_s_per_gb_functions"] = (after.CPU - before.CPU).Seconds() / (float64(c.bytes()*int64(len(all))) / 1e9)
	rec.Measured["max_rss_mb_function"] = float64(after.MaxRSSBytes) / 1e6
	rec.OK = true
	return nil
}

// cold makes the first round.
func (g *fanGroup) cold(ctx context.Context, rec *results.Record) error {
	before, err := g.usage(ctx)
	if err != nil {
		return err
	}
	one, err := g.round(ctx, true)
	if err != nil {
		return err
	}
	after, err := g.usage(ctx)
	rec.Measured["cold_ms"], rec.Measured["cold_cpu_ms_functions"] = one.done, ms(after.CPU-before.CPU)
	return err
}

// sizeName writes a size with the decimal unit that it has, or as it is.
func sizeName(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}} {
		if n >= u.bytes && n%u.bytes == 0 {
			return fmt.Sprintf("%d %s", n/u.bytes, u.name)
		}
	}
	return workload.FormatBytes(n)
}

// fanRounds are the warm rounds of a measurement.
type fanRounds []fanRound

// fill notes what they took.
func (all fanRounds) fill(rec *results.Record, c fanCase) {
	var done, edges, slowest, late []float64
	var idle, ticks int64
	notDirect := 0
	for _, one := range all {
		done, late = append(done, one.done), append(late, one.late)
		edges, slowest = append(edges, one.edges...), append(slowest, slices.Max(one.edges))
		idle, ticks = idle+one.idle, ticks+one.ticks
		notDirect += one.notDirect
	}
	rec.Seconds = results.Median(done) / 1e3
	rec.Samples = map[string][]float64{"done_ms": done}
	rec.Measured["done_ms"], rec.Measured["done_ms_slowest"] = rec.Seconds*1e3, slices.Max(done)
	rec.Measured["edge_ms"], rec.Measured["edge_ms_slowest"] = results.Median(edges), results.Median(slowest)
	rec.Measured["goodput_mbps"] = mbps(c.bytes(), rec.Seconds)
	rec.Measured["began_late_ms"] = results.Median(late)
	rec.Path = c.way
	if c.direct() {
		rec.Path = wayDirect
		if rec.Measured["not_direct"] = float64(notDirect); notDirect > 0 {
			rec.Marks = append(rec.Marks, fmt.Sprintf("%d of %d states did not come by a direct path alone", notDirect, len(edges)))
		}
	}
	markBusy(rec, idle, ticks)
}

// use is what a round costs: its functions, each for as long as it takes its share, requests to S3, and servers as if each were there for that time alone.
func (f *fanRun) use(c fanCase, all fanRounds) bill.Use {
	var done, busy []float64
	for _, one := range all {
		done, busy = append(done, one.done), append(busy, one.busy)
	}
	way := c.way
	if way == waySend {
		way = wayFnwire
	}
	u := f.r.handOverUse(way, c.bytes(), fromMS(results.Median(done)), fromMS(results.Median(busy)))
	u.Way = c.way
	switch puts, gets := bill.S3Requests(c.size); c.way {
	case wayS3:
		u.Puts, u.Gets = puts*c.puts(), gets*c.edges()
	case wayNATS:
		u.Public = c.size * int64(c.puts()+c.edges())
	}
	return u
}

// fanLimit bounds one round.
const fanLimit = 2 * time.Minute
