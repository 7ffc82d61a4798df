package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fnwire/fnwire/experiments/dag"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/workload"
)

const (
	treeNumbers = 1024
	dagLimit    = 10 * time.Minute
	dagMost     = 1 << 30 // bytes of all leaves
	dagSeed     = 1       // of the matrix, so that all measure with the same
)

// dagOf measures graphs of tasks that functions run on a platform, over every way to hand over.
func dagOf() Experiment {
	return Experiment{
		Name: "dag",
		Summary: "graphs of tasks on the function platform (package experiments/faas), over fnwire, stores, and the punching of the literature (wukong3), with one static " +
			"schedule: a function is invoked for each leaf, goes on with what needs its output alone, and at a fan-in the last to arrive goes on; or, over fnwire, where much data flows, the one who takes in least (package experiments/dag). tree: the sum of " +
			"the numbers 0 to 1,023, where each task takes a delay longer; vectors: the same with vectors, so that data is what takes time; tsqr: the singular values of a tall matrix. " +
			"done_ms is from the first invocation until the function that has made the result has it all, and the result is compared with one found another way. cold: functions are started for it; " +
			"warm: they have run before and are frozen",
		Settings: []Setting{
			{"works", "tree,vectors,tsqr", "", "which graphs"},
			{"ways", "fnwire,redis,s3,nats,wukong3", "fnwire,redis,wukong3", "by which to hand over: fnwire (outputs up to 32 KiB early, by the rendezvous, up to 64 KiB by relay), last (fnwire with the last to arrive at every fan-in), auto (all links seek a direct path), lazy (fnwire without links made ahead), relay, redis, s3, nats; " + wukongHelp() + "; ladder (that with less and less of them)"},
			{"starts", "warm,cold", "warm", "of the functions"},
			{"functions", "16", "8", "as many leaves, each on a host of its own"},
			{"fanin", "2", "", "inputs of a task, at most"},
			{"delays", "0s,100ms,500ms", "0s,100ms", "of each task of the tree"},
			{"bytes", "1MiB,16MiB", "1MiB", "of each vector"},
			{"cols", "64,256", "64", "columns of the matrix"},
			{"rows", "1024", "", "rows of the matrix for each leaf"},
			{"nat", string(lab.PortRestricted), "", "of the hosts"},
			{"reps", "5", "2", "repetitions of each case, in rotating order"},
			profileSetting(),
			serviceSetting(),
		},
		run: runDAG,
	}
}

// dagWork is a graph, and how it is called.
type dagWork struct {
	name      string
	graph     *dag.Graph
	want      []float64
	tolerance float64
	bytes     int64 // of an output
}

func runDAG(ctx context.Context, r *run) error {
	r.limit, r.divided = dagLimit, true
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	works, err := r.dagWorks()
	if err != nil {
		return err
	}
	ways, err := r.dagWays()
	if err != nil {
		return err
	}
	starts := r.list("starts")
	for _, s := range starts {
		if s != startCold && s != startWarm {
			return fmt.Errorf("%w: starts: %q is neither cold nor warm", ErrSettings, s)
		}
	}
	if len(works) == 0 || len(ways) == 0 || len(starts) == 0 {
		return fmt.Errorf("%w: works, ways or starts: none", ErrSettings)
	}
	d := &dagRun{r: r, life: ctx, cold: slices.Contains(starts, startCold), warm: slices.Contains(starts, startWarm)}
	if err := d.open(ctx, ways); err != nil {
		return err
	}
	defer d.close()
	for i, w := range works {
		if works[i].want, works[i].tolerance, err = w.graph.Expected(); err != nil {
			return err
		}
		w.graph.DelayMS *= r.slow()
	}
	r.planned = reps * len(works) * len(ways) * len(starts)
	for rep := range reps {
		for _, way := range shuffled(ways, r.o.Seed, rep) {
			for _, w := range works {
				if err := d.one(ctx, way, w, rep); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// The starts of functions.
const (
	startCold = "cold"
	startWarm = "warm"
)

// dagWorks are the graphs of the settings.
func (r *run) dagWorks() (works []dagWork, err error) {
	leaves, err := r.count("functions", 1, mostHosts)
	if err != nil {
		return nil, err
	}
	fanIn, err := r.count("fanin", 2, treeNumbers)
	if err != nil {
		return nil, err
	}
	kinds := map[string]func(leaves, fanIn int) ([]dagWork, error){"tree": r.trees, "vectors": r.vectors, "tsqr": r.tsqrs}
	for _, name := range r.list("works") {
		make := kinds[name]
		if make == nil {
			return nil, fmt.Errorf("%w: works: %q is none of tree, vectors and tsqr", ErrSettings, name)
		}
		some, err := make(leaves, fanIn)
		if err != nil {
			if !errors.Is(err, ErrSettings) {
				err = fmt.Errorf("%w: %s: %w", ErrSettings, name, err)
			}
			return nil, err
		}
		works = append(works, some...)
	}
	return works, nil
}

// numbers is a tree of treeNumbers numbers, or vectors.
func numbers(name string, leaves, fanIn int, bytes int64, delay time.Duration) (dagWork, error) {
	g, err := dag.Tree(treeNumbers, (treeNumbers+leaves-1)/leaves, fanIn, int(bytes/numberBytes))
	if err != nil {
		return dagWork{}, err
	}
	g.DelayMS = int(delay.Milliseconds())
	return dagWork{name: name, graph: g, bytes: bytes}, nil
}

func (r *run) trees(leaves, fanIn int) (works []dagWork, err error) {
	for _, text := range r.list("delays") {
		delay, err := parseDuration("delays", text, 0)
		if err != nil {
			return nil, err
		}
		w, err := numbers(fmt.Sprintf("tree, %v a task", delay), leaves, fanIn, numberBytes, delay)
		if err != nil {
			return nil, err
		}
		works = append(works, w)
	}
	return works, nil
}

func (r *run) vectors(leaves, fanIn int) (works []dagWork, err error) {
	for _, text := range r.list("bytes") {
		size, err := parseBytes("bytes", text, numberBytes, dagMost/int64(leaves))
		if err != nil {
			return nil, err
		}
		w, err := numbers("vectors of "+workload.FormatBytes(size), leaves, fanIn, size, 0)
		if err != nil {
			return nil, err
		}
		works = append(works, w)
	}
	return works, nil
}

func (r *run) tsqrs(leaves, fanIn int) (works []dagWork, err error) {
	rows, err := r.count("rows", 1, dagMost/numberBytes/leaves)
	if err != nil {
		return nil, err
	}
	for _, text := range r.list("cols") {
		cols, err := parseCount("cols", text, 1, min(rows, dagMost/numberBytes/leaves/rows))
		if err != nil {
			return nil, err
		}
		g, err := dag.TSQR(leaves, rows, cols, fanIn, dagSeed)
		if err != nil {
			return nil, err
		}
		works = append(works, dagWork{name: fmt.Sprintf("tsqr, %d x %d", leaves*rows, cols), graph: g, bytes: int64(cols * (cols + 1) / 2 * numberBytes)})
	}
	return works, nil
}

const numberBytes = 8

// one measures a graph over a way, cold and warm as is asked for.
func (d *dagRun) one(ctx context.Context, way string, w dagWork, rep int) error {
	for _, start := range []string{startCold, startWarm} {
		if start == startCold && !d.cold || start == startWarm && !d.warm {
			continue
		}
		work := w.name + ", " + start
		err := d.r.measure(ctx, work+" "+way, rep, func(mctx context.Context, rec *results.Record) error {
			rec.Work, rec.Way, rec.Path, rec.Bytes = work, way, way, w.bytes
			if err := d.prepare(mctx, way, w, start); err != nil {
				return err
			}
			return d.measure(mctx, way, w, start, rec)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
