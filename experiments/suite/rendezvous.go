package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/crowd"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/world"
)

const (
	crowdMost        = 5000  // instances of one process
	rendezvousMost   = 15000 // instances: the rendezvous takes 16,384 names of a job, and those that offers wait for are among them
	rendezvousLimit  = 10 * time.Minute
	rendezvousSettle = 5 * time.Second // until what joining took is collected
	rendezvousPoll   = 50 * time.Millisecond
	rendezvousCalm   = 200 * time.Millisecond // before an offer, for what has piled up
	machineBusy      = 5                      // percent that is idle: below it, times are of what else runs
)

// rendezvousOf measures what a rendezvous carries.
func rendezvousOf() Experiment {
	return Experiment{
		Name: "rendezvous",
		Summary: "many instances without links, each with a key, a connection and a name that it renews, join one rendezvous with embedded NATS on the same machine; then nothing happens, and then they " +
			"make offers at a steady rate to one another and to names that nobody holds: joins a second, latency of an offer from when it was due, and the same (calm_) of those made while the machine had its speed, " +
			"which the host of a virtual one may take from it, memory of the rendezvous for each " +
			"instance, and its CPU in each phase",
		Settings: []Setting{
			{"instances", "1000,10000", "200", "how many join, for each case; the rendezvous needs a file descriptor for each (ulimit -n)"},
			{"idle", "30s", "5s", "how long nothing is done: each renews its name whenever half of the lease has passed, 30 s among up to 3,000, 100 s among 10,000"},
			{"rate", "500", "", "offers a second"},
			{"for", "10s", "5s", "how long offers are made"},
			{"parked", "10", "", "percent of them that go to names that nobody holds"},
			{"reps", "3", "1", "repetitions of each case, each with a new rendezvous"},
			profileSetting(),
		},
		run: runRendezvous,
	}
}

type rendezvousRun struct {
	r      *run
	idle   time.Duration
	offers crowd.OfferArgs // of all processes
}

func runRendezvous(ctx context.Context, r *run) error {
	r.limit = rendezvousLimit
	t := &rendezvousRun{r: r, offers: crowd.OfferArgs{Seed: r.o.Seed}}
	cases, err := r.crowds("instances")
	if err != nil {
		return err
	}
	if t.idle, err = r.duration("idle", shortest); err != nil {
		return err
	}
	if t.offers.Rate, err = r.count("rate", 1, mostRate); err != nil {
		return err
	}
	if t.offers.For, err = r.duration("for", 0); err != nil {
		return err
	}
	if t.offers.Parked, err = r.count("parked", 0, 100); err != nil {
		return err
	}
	t.offers.All = 2
	if err := t.offers.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrSettings, err)
	}
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	if err := r.calibrate(ctx); err != nil {
		return err
	}
	r.planned = reps * len(cases)
	for rep := range reps {
		for _, c := range shuffled(cases, r.o.Seed, rep) {
			if err := r.measure(ctx, c, rep, func(ctx context.Context, rec *results.Record) error {
				n, _ := strconv.Atoi(c) // checked above
				return t.one(ctx, rec, n)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// crowds is a list of how many instances there are in each case.
func (r *run) crowds(name string) ([]string, error) {
	cases := r.list(name)
	for _, c := range cases {
		if _, err := parseCount(name, c, 2, rendezvousMost); err != nil {
			return nil, err
		}
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("%w: %s: none", ErrSettings, name)
	}
	return cases, nil
}

// shares splits n among the fewest processes, but at least some, as evenly as can be.
func shares(n, least int) []int {
	out := make([]int, max((n+crowdMost-1)/crowdMost, least))
	for i := range out {
		out[i] = n*(i+1)/len(out) - n*i/len(out)
	}
	return out
}

// rates splits the offers among processes that have a share of the instances each.
func rates(a crowd.OfferArgs, shares []int) []crowd.OfferArgs {
	out := make([]crowd.OfferArgs, len(shares))
	for i := range out {
		out[i] = a
		out[i].Rate = a.Rate*(i+1)/len(out) - a.Rate*i/len(out)
		out[i].Seed = a.Seed*uint64(len(out)) + uint64(i)
	}
	return out
}

// gathering is the instances of a measurement, and their servers.
type gathering struct {
	w      *world.World
	shares []int
	crowds []*world.Proc
}

// gather makes a world with processes for n instances, each on a host of its own. It is to be closed.
func (r *run) gather(ctx context.Context, n, processes int, raise func(context.Context, world.Config) (*world.World, error)) (g *gathering, err error) {
	g = &gathering{shares: shares(n, processes)}
	cfg := r.o.World
	for i := range g.shares {
		cfg.Hosts = append(cfg.Hosts, lab.Host{Name: fmt.Sprint("crowd-", i+1)})
	}
	if g.w, err = raise(ctx, cfg); err != nil {
		return nil, err
	}
	for _, h := range cfg.Hosts {
		p, err := g.w.Crowd(ctx, h.Name)
		if err != nil {
			return nil, errors.Join(err, g.w.Close())
		}
		g.crowds = append(g.crowds, p)
	}
	return g, nil
}

func (t *rendezvousRun) one(ctx context.Context, rec *results.Record, n int) error {
	g, err := t.r.gather(ctx, n, 1, t.r.world)
	if err != nil {
		return err
	}
	defer g.w.Close()
	defer t.r.watch(rec, g.w)()
	empty, err := memory(g.w.Rendezvous().Pid(), "VmRSS")
	if err != nil {
		return err
	}
	if err := g.joinTimed(ctx, rec, n); err != nil {
		return err
	}
	if err := pause(ctx, rendezvousSettle); err != nil {
		return err
	}
	full, err := memory(g.w.Rendezvous().Pid(), "VmRSS")
	if err != nil {
		return err
	}
	rec.Measured["rendezvous_empty_rss_mib"], rec.Measured["rendezvous_rss_mib"] = empty, full
	rec.Measured["rss_kib_per_instance"] = (full - empty) * 1024 / float64(n)
	if err := phase(ctx, rec, "idle", g.w.Rendezvous(), func() error { return pause(ctx, t.idle) }); err != nil {
		return err
	}
	a := t.offers
	a.All = n
	delivered, err := g.offer(ctx, rec, a, t.r.steady)
	if err != nil {
		return err
	}
	return g.judge(ctx, rec, n, delivered)
}

// phase notes the CPU of a server, and what is left of the machine's, while something is done.
func phase(ctx context.Context, rec *results.Record, name string, server *world.Proc, do func() error) error {
	before, err := server.Usage(ctx)
	if err != nil {
		return err
	}
	idle, all := results.CPUTime()
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := server.Usage(ctx)
	if err != nil {
		return err
	}
	rec.Phases[name] = ms(took)
	rec.Measured[name+"_cpu_percent"] = 100 * (after.CPU - before.CPU).Seconds() / took.Seconds()
	if idleNow, allNow := results.CPUTime(); allNow > all {
		left := 100 * float64(idleNow-idle) / float64(allNow-all)
		rec.Measured[name+"_machine_idle_percent"] = left
		if left < machineBusy {
			rec.Marks = append(rec.Marks, fmt.Sprintf("bound by the machine: less than %d %% of it was idle during %s", machineBusy, name))
		}
	}
	return nil
}

// join has all instances join at once, and returns how long each of them took.
func (g *gathering) join(ctx context.Context) ([]time.Duration, error) {
	took := make([][]time.Duration, len(g.crowds))
	world := g.w.JoinArgs("")
	all, ctx := errgroup.WithContext(ctx)
	first := 0
	for i, p := range g.crowds {
		a := crowd.JoinArgs{URL: world.URL, Key: world.Key, First: first, Count: g.shares[i]}
		first += a.Count
		all.Go(func() (err error) { took[i], err = p.CrowdJoin(ctx, a); return err })
	}
	err := all.Wait()
	return slices.Concat(took...), err
}

func (g *gathering) joinTimed(ctx context.Context, rec *results.Record, n int) error {
	var took []time.Duration
	if err := phase(ctx, rec, "join", g.w.Rendezvous(), func() (err error) { took, err = g.join(ctx); return err }); err != nil {
		return err
	}
	rec.Measured["joins_per_s"] = float64(n) / (rec.Phases["join"] / 1e3)
	if cpu := rec.Measured["join_cpu_percent"]; cpu > 0 { // what it would take if it had a core to itself
		rec.Measured["joins_per_s_per_core"] = 100 * rec.Measured["joins_per_s"] / cpu
	}
	noteLatency(rec, "join_ms", took)
	return nil
}

// offer has all make offers, and returns how many were delivered.
func (g *gathering) offer(ctx context.Context, rec *results.Record, a crowd.OfferArgs, steady *results.Steady) (int, error) {
	came := make([]crowd.Offered, len(g.crowds))
	err := phase(ctx, rec, "offers", g.w.Rendezvous(), func() error {
		all, ctx := errgroup.WithContext(ctx)
		for i, mine := range rates(a, g.shares) {
			if mine.Rate > 0 {
				all.Go(func() (err error) { came[i], err = g.crowds[i].CrowdOffer(ctx, mine); return err })
			}
		}
		return all.Wait()
	})
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, rendezvousCalm); err != nil { // until what steady sees of the last has ended
		return 0, err
	}
	var delivered, parked, late []crowd.Made
	var failed int
	var why string
	for _, o := range came {
		delivered, parked, late = append(delivered, o.Delivered...), append(parked, o.Parked...), append(late, o.Late...)
		rec.Bytes += o.Bytes
		rec.Seconds = max(rec.Seconds, o.Took.Seconds())
		if failed += o.Failed; o.Failed > 0 {
			why = o.Error
		}
	}
	rec.Measured["offers_delivered"], rec.Measured["offers_parked"], rec.Measured["offers_failed"] = float64(len(delivered)), float64(len(parked)), float64(failed)
	rec.Measured["offers_late"] = float64(len(late))
	all := slices.Concat(delivered, parked, late)
	rec.Measured["offers_per_s"] = float64(len(all)) / rec.Seconds
	calm := slices.DeleteFunc(slices.Clone(all), func(m crowd.Made) bool { return steady.Slow(m.Due.Add(-rendezvousCalm), m.Due.Add(m.Took)) })
	rec.Measured["offers_calm"] = float64(len(calm))
	for name, made := range map[string][]crowd.Made{"offer_ms": all, "calm_offer_ms": calm, "delivered_ms": delivered, "parked_ms": parked} {
		took := make([]time.Duration, len(made))
		for i, m := range made {
			took[i] = m.Took
		}
		noteLatency(rec, name, took)
	}
	if failed > 0 {
		return 0, fmt.Errorf("%d offers failed, one with: %s", failed, why)
	}
	return len(delivered), nil
}

// judge waits for all that was delivered to be opened, and wants all names still held.
func (g *gathering) judge(ctx context.Context, rec *results.Record, n, delivered int) error {
	for {
		all, err := g.state(ctx)
		if err != nil {
			return err
		}
		switch {
		case all.Joined != n || all.Lost > 0 || all.Refused > 0:
			return fmt.Errorf("of %d instances %d joined and %d lost their names; %d offers could not be opened", n, all.Joined, all.Lost, all.Refused)
		case all.Arrived >= int64(delivered):
			rec.OK = true
			return nil
		}
		if err := pause(ctx, rendezvousPoll); err != nil {
			return errors.Join(err, fmt.Errorf("of %d offers that were acknowledged, %d have arrived", delivered, all.Arrived))
		}
	}
}

// state is that of all instances.
func (g *gathering) state(ctx context.Context) (all crowd.State, err error) {
	for _, p := range g.crowds {
		s, err := p.CrowdState(ctx)
		if err != nil {
			return all, err
		}
		all.Joined, all.Lost = all.Joined+s.Joined, all.Lost+s.Lost
		all.Arrived, all.Refused, all.Packets = all.Arrived+s.Arrived, all.Refused+s.Refused, all.Packets+s.Packets
	}
	return all, nil
}

// noteLatency notes the median, the 99th percentile and the longest of some times, if there are any.
func noteLatency(rec *results.Record, name string, took []time.Duration) {
	if len(took) == 0 {
		return
	}
	v := make([]float64, len(took))
	for i, d := range took {
		v[i] = ms(d)
	}
	rec.Measured[name+"_p50"], rec.Measured[name+"_p99"], rec.Measured[name+"_max"] = results.Median(v), results.Quantile(v, 0.99), slices.Max(v)
}
