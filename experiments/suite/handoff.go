package suite

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
)

const (
	handoffSpill  = 2 * time.Second // without a link a state is stored after so long
	handoffMost   = 100_000         // states
	handoffBytes  = 1 << 30
	handoffLimit  = 30 * time.Minute
	handoffCalm   = 20 * time.Second // for receivers to find what is stored, and for their successors again
	handoffShown  = 10               // of what is wrong
	joinPause     = 200 * time.Millisecond
	joinPatience  = 20 * time.Second
	natsMembers   = 3
	copies        = 2
	handoffRelays = 2
)

// handoff has functions hand over states while everything else is killed, frozen and restarted, and holds all receipts against all
// that the receivers have done.
func handoff() Experiment {
	return Experiment{
		Name: "handoff",
		Summary: "states between functions behind NATs of several kinds, while functions, relays, two copies of the rendezvous, the three members of " +
			"their NATS cluster and the store (Redis) are killed, frozen, told to end and restarted at random: every receipt is held against what " +
			"receivers have done with the states. A measurement is OK if every receipt is true, no state is lost, doubled or changed, and every failure was told in time",
		Settings: []Setting{
			{"transfers", "1000", "150", "states, the sizes spread evenly over their orders of magnitude"},
			{"functions", "20", "10", "functions"},
			{"bytes", "64MiB", "8MiB", "the largest state"},
			{"parallel", "16", "10", "states under way at a time"},
			{"within", "30s", "15s", "deadline of each"},
			{"every", "300ms", "", "mean time from one mishap to the next"},
			{"reps", "1", "", "runs, each with a seed of its own"},
			profileSetting(),
		},
		run: runHandoff,
	}
}

type handoffRun struct {
	r                              *run
	transfers, functions, parallel int
	largest                        int64
	within, every                  time.Duration
	source                         workload.Source
}

func runHandoff(ctx context.Context, r *run) (err error) {
	h := &handoffRun{r: r}
	r.limit = handoffLimit
	err = r.counts(bounded{"transfers", &h.transfers, 1, handoffMost}, bounded{"functions", &h.functions, 2, mostHosts}, bounded{"parallel", &h.parallel, 1, mostAtOnce})
	if err != nil {
		return err
	}
	if h.largest, err = r.bytes("bytes", 1, handoffBytes); err != nil {
		return err
	}
	for name, to := range map[string]*time.Duration{"within": &h.within, "every": &h.every} {
		if *to, err = r.duration(name, shortest); err != nil {
			return err
		}
	}
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	if h.source, err = workload.Real(ctx, 2*h.largest); err != nil {
		return err
	}
	if err := r.calibrate(ctx); err != nil {
		return err
	}
	for rep := range reps {
		if err := r.measure(ctx, "chaos", rep, h.one); err != nil {
			return err
		}
	}
	return nil
}

// planned is a transfer to be made.
type planned struct {
	from, to int // members
	state    handedOver
	args     worker.SendArgs
}

// plan draws the transfers.
func (h *handoffRun) plan(ctx context.Context, random *rand.Rand) ([]planned, error) {
	plans := make([]planned, 0, h.transfers)
	for i := range h.transfers {
		n := int64(math.Exp(random.Float64() * math.Log(float64(h.largest))))
		p := planned{from: random.IntN(h.functions), to: random.IntN(h.functions - 1)}
		if p.to >= p.from {
			p.to++
		}
		key := fmt.Sprintf("state-%04d", i)
		p.args = worker.SendArgs{
			To: memberName(p.to), Key: key, Path: "auto", Within: h.within, Once: random.IntN(4) == 0, NoStore: random.IntN(5) == 0,
			Source: h.source.Section(random.Int64N(h.largest), n),
		}
		if random.IntN(5) == 0 {
			p.args.Path = "relay"
		}
		digest, err := p.args.Source.SHA256(ctx)
		if err != nil {
			return nil, err
		}
		p.state = handedOver{key: key, from: memberName(p.from), to: p.args.To, bytes: n, digest: digest, within: h.within}
		plans = append(plans, p)
	}
	return plans, nil
}

func memberName(i int) string { return fmt.Sprintf("f%02d", i) }

// hosts gives the functions NATs of the kinds that the kernel has, and one in ten a network without UDP.
func (h *handoffRun) hosts() []lab.Host {
	kinds := []lab.Kind{lab.PortRestricted, lab.PortRestricted, lab.Symmetric, lab.FullCone, lab.PortRestricted, lab.UDPBlocked, lab.None, lab.PortRestricted, lab.Symmetric, lab.PortRestricted}
	hosts := make([]lab.Host, 0, h.functions)
	for i := range h.functions {
		hosts = append(hosts, lab.Host{Name: memberName(i), NAT: kinds[i%len(kinds)]})
	}
	return hosts
}

func (h *handoffRun) one(ctx context.Context, rec *results.Record) error {
	random := rand.New(rand.NewPCG(rec.Seed, uint64(rec.Rep)))
	plans, err := h.plan(ctx, random)
	if err != nil {
		return err
	}
	cfg := h.r.o.World
	cfg.Hosts, cfg.NATS, cfg.Copies, cfg.Relays = h.hosts(), natsMembers, copies, handoffRelays
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends what was started again
	w, err := h.r.world(ctx, cfg)
	if err != nil {
		return err
	}
	defer w.Close()
	defer h.r.watch(rec, w)()
	c, err := newChaos(ctx, w, h.functions)
	if err != nil {
		return err
	}
	began := time.Now()
	states, err := h.transferAll(ctx, c, plans, random)
	if err != nil {
		return err
	}
	rec.Seconds = time.Since(began).Seconds()
	h.r.say("mishaps are over; receivers look for what is stored")
	found, err := c.settle(ctx, states)
	if err != nil {
		return err
	}
	v := judge(states, c.done())
	v.fill(rec, states)
	rec.Measured["found_by_next_instance"] = float64(found)
	rec.Path, rec.Reason = "any", fmt.Sprintf("seed %d, repetition %d: %s; errors: %s", rec.Seed, rec.Rep+1, c.tally(), commonErrors(states))
	for what, n := range c.counts {
		rec.Measured[strings.ReplaceAll(what, " ", "_")] = float64(n)
	}
	if len(v.wrong) > 0 {
		return fmt.Errorf("seed %d: %d things are wrong: %s", rec.Seed, len(v.wrong), strings.Join(v.wrong[:min(len(v.wrong), handoffShown)], "; "))
	}
	rec.OK = true
	return nil
}

// transferAll makes all transfers while mishaps happen, and returns when all that broke is mended.
func (h *handoffRun) transferAll(ctx context.Context, c *chaos, plans []planned, random *rand.Rand) ([]handedOver, error) {
	mishaps := make(chan error, 1)
	over, end := context.WithCancel(ctx)
	defer end()
	sendCtx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() {
		err := c.run(ctx, over.Done(), random, h.every)
		if err != nil { // a function that cannot be started again would be waited for
			giveUp()
		}
		mishaps <- err
	}()
	var sending errgroup.Group
	sending.SetLimit(h.parallel)
	states := make([]handedOver, len(plans))
	var mu sync.Mutex // guards finished
	finished := 0
	for i, p := range plans {
		sending.Go(func() error {
			s, err := c.members[p.from].send(sendCtx, p)
			states[i] = s
			mu.Lock()
			defer mu.Unlock()
			if finished++; finished%max(len(plans)/20, 1) == 0 {
				h.r.say(fmt.Sprintf("handoff: %d of %d states, %s", finished, len(plans), c.tally()))
			}
			return err
		})
	}
	err := sending.Wait()
	end()
	if merr := <-mishaps; merr != nil {
		return states, merr
	}
	return states, err
}

// fill notes what came out.
func (v verdict) fill(rec *results.Record, states []handedOver) {
	for _, s := range states {
		if s.outcome == accepted || s.outcome == stored {
			rec.Bytes += s.bytes
		}
	}
	rec.Measured["wrong"] = float64(len(v.wrong))
	for _, o := range []outcome{accepted, stored, refused, died} {
		rec.Measured[string(o)] = float64(v.outcomes[o])
	}
	rec.Measured["delivered"] = float64(v.delivered)
	rec.Measured["worked_on_again"] = float64(v.again)
	rec.Measured["there_without_receipt"] = float64(v.silent)
	rec.Measured["told_late_ms"] = ms(v.latest)
}

// commonErrors tells what the senders that failed were told most often, without names and numbers.
func commonErrors(states []handedOver) string {
	counts := make(map[string]int)
	for _, s := range states {
		if s.outcome == refused {
			counts[digits.ReplaceAllString(s.said, "#")]++
		}
	}
	texts := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
	var out []string
	for _, t := range texts[:min(len(texts), handoffShown)] {
		out = append(out, fmt.Sprintf("%d x %q", counts[t], t))
	}
	return strings.Join(out, ", ")
}

var digits = regexp.MustCompile(`[0-9]+`)
