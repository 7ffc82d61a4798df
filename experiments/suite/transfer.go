package suite

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
)

// The ways of a transfer.
const (
	wayDirect = "direct"
	wayRelay  = "relay"
	wayRedis  = "redis"
	wayS3     = "s3"
	wayNATS   = "nats"
)

const (
	coldBytes     = 1 << 10 // of a state that is sent before one is measured
	directTimeout = 15 * time.Second
	transferLimit = 10 * time.Minute
	roundBytes    = 64 << 20 // of all hand-overs of one measurement, about
	fewestRounds  = 3
	mostRounds    = 50
)

func transferWays() []string { return []string{wayDirect, wayRelay, wayRedis, wayS3, wayNATS} }

// transfer measures the hand-over of states of several sizes, by every way there is, side by side.
func transfer() Experiment {
	return Experiment{
		Name: "transfer",
		Summary: "states of several sizes between two functions behind port-restricted NATs: by fnwire directly and by relay, and by three stores, " +
			"Redis (in memory), S3 (versitygw on a disk in memory) and NATS (JetStream, likewise), each through its driver in fnlib/store. warm_ms is a hand-over between two that are " +
			"connected: from the call until the receiver has the last byte and a right digest. Of a store it is what putting and getting take, one after the other, as if " +
			"the receiver knew at once and for nothing when the state is there. cold_ms is the same from two processes that have not joined, or not connected, yet",
		Settings: []Setting{
			{"sizes", "1KiB,64KiB,1MiB,16MiB,256MiB", "1KiB,1MiB,16MiB", "of the states"},
			{"ways", strings.Join(transferWays(), ","), "", "which to measure"},
			{"reps", "5", "2", "repetitions of each case, in alternating order"},
			profileSetting(),
		},
		run: runTransfer,
	}
}

type transferRun struct {
	w      *world.World
	states map[int64]state
	stores map[string]worker.Store
}

func runTransfer(ctx context.Context, r *run) error {
	r.limit = transferLimit
	reps, err := r.count("reps")
	if err != nil {
		return err
	}
	ways := r.list("ways")
	for _, way := range ways {
		if !slices.Contains(transferWays(), way) {
			return fmt.Errorf("%w: ways: no %q: there are %v", ErrSettings, way, transferWays())
		}
	}
	t := &transferRun{states: make(map[int64]state), stores: make(map[string]worker.Store)}
	type job struct {
		way  string
		size int64
	}
	jobs := make(map[string]job)
	var cases []string
	for _, text := range r.list("sizes") {
		size, err := workload.ParseBytes(text)
		if err != nil || size < 1 {
			return fmt.Errorf("%w: sizes: %q is no size of a state", ErrSettings, text)
		}
		if t.states[size], err = realState(ctx, size); err != nil {
			return err
		}
		for _, way := range ways {
			name := way + " " + strings.ReplaceAll(workload.FormatBytes(size), " ", "")
			jobs[name] = job{way, size}
			cases = append(cases, name)
		}
	}
	if len(cases) == 0 {
		return fmt.Errorf("%w: sizes or ways: none", ErrSettings)
	}
	cfg := r.o.World
	cfg.Hosts = []lab.Host{{Name: "a", NAT: lab.PortRestricted}, {Name: "b", NAT: lab.PortRestricted}}
	if t.w, err = r.raise(ctx, cfg); err != nil {
		return err
	}
	defer t.w.Close()
	r.planned = reps * len(cases)
	for rep := range reps {
		for _, c := range rotated(cases, r.o.Seed, rep) {
			err := r.measure(ctx, c, rep, func(mctx context.Context, rec *results.Record) error {
				j := jobs[c]
				if j.way == wayDirect || j.way == wayRelay {
					return t.fnwire(mctx, rec, j.way, t.states[j.size])
				}
				return t.store(ctx, mctx, rec, j.way, t.states[j.size])
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// rounds is how many hand-overs a measurement has.
func rounds(s state) int { return int(min(max(roundBytes/s.Size(), fewestRounds), mostRounds)) }

// fill notes hand-overs, of which each took so many milliseconds, between two that were connected.
func (t *transferRun) fill(rec *results.Record, s state, took []float64) {
	warm := results.Median(took)
	rec.Bytes, rec.Seconds, rec.OK = s.Size(), warm/1e3, true
	rec.Measured["warm_ms"], rec.Measured["warm_ms_slowest"] = warm, slices.Max(took)
	rec.Measured["goodput_mbps"] = mbps(s.Size(), rec.Seconds)
}

func (t *transferRun) fnwire(ctx context.Context, rec *results.Record, way string, s state) error {
	policy := map[string]string{wayDirect: "auto", wayRelay: "relay"}[way]
	c, began, ja, jb, err := meet(ctx, t.w, "a", "b")
	if err != nil {
		return err
	}
	defer c.part()
	joinPhases(rec, "sender", ja)
	joinPhases(rec, "receiver", jb)
	sent, got, err := c.handOver(ctx, policy, s)
	if err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	callPhases(rec, sent)
	rec.Measured["first_byte_ms"], rec.Measured["cold_ms"] = since(began, got.First), since(began, got.Last)
	if way == wayDirect {
		p, err := c.direct(ctx, directTimeout)
		if err != nil {
			return err
		}
		if p.Path != way {
			return fmt.Errorf("the path is %s after %v: %s", p.Path, directTimeout, p.Reason)
		}
		rec.Measured["direct_ms"], rec.Measured["rtt_ms"] = since(began, p.At), ms(p.RTT)
	}
	l := t.loads(c.a, c.b)
	if err := l.start(ctx); err != nil {
		return err
	}
	var took, firsts, receipts []float64
	for range rounds(s) {
		if sent, got, err = c.handOver(ctx, policy, s); err != nil {
			return err
		}
		took, firsts = append(took, since(sent.Began, got.Last)), append(firsts, since(sent.Began, got.First))
		receipts = append(receipts, since(sent.Began, sent.Ended))
	}
	if err := l.stop(ctx, rec, s.Size()*int64(len(took))); err != nil {
		return err
	}
	t.fill(rec, s, took)
	rec.Measured["warm_first_byte_ms"], rec.Measured["warm_receipt_ms"] = results.Median(firsts), results.Median(receipts)
	if rec.Path = sent.Receipt.Path; rec.Path != way {
		return fmt.Errorf("went over %s, want %s: %s", rec.Path, way, sent.Receipt.Reason)
	}
	return nil
}

func (t *transferRun) loads(a, b *world.Proc) *load {
	l := &load{}
	l.add("sender", a)
	l.add("receiver", b)
	return l
}

// open starts a store when it is first asked for. It ends with ctx.
func (t *transferRun) open(ctx context.Context, way string) (worker.Store, error) {
	if s, ok := t.stores[way]; ok {
		return s, nil
	}
	var s *world.Store
	var err error
	switch way {
	case wayRedis:
		s, err = t.w.StartRedis(ctx, world.InMemory)
	case wayS3:
		s, err = t.w.StartS3(ctx)
	default:
		t.stores[way] = t.w.NATSStore()
		return t.stores[way], nil
	}
	if err != nil {
		return worker.Store{}, err
	}
	t.stores[way] = s.Opened()
	return t.stores[way], nil
}

// store hands over by a store, which ends with life.
func (t *transferRun) store(life, ctx context.Context, rec *results.Record, way string, s state) error {
	where, err := t.open(life, way)
	if err != nil {
		return err
	}
	a, b, err := t.w.Pair(ctx, "a", "b")
	if err != nil {
		return err
	}
	defer couple{a: a, b: b}.part()
	handOver := func() (took float64, err error) {
		key := t.w.FreshName("transfer/state")
		sent, err := a.Put(ctx, worker.PutArgs{Store: where, Key: key, Source: s.Source})
		if err != nil {
			return 0, err
		}
		got, err := b.Get(ctx, worker.GetArgs{Store: where, Key: key, Delete: true})
		if err != nil {
			return 0, err
		}
		return since(sent.Began, sent.Ended) + since(got.Began, got.Last), s.check(got, onestream.SHA256)
	}
	cold, err := handOver()
	if err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	rec.Measured["cold_ms"] = cold
	l := t.loads(a, b)
	if err := l.start(ctx); err != nil {
		return err
	}
	var took []float64
	for range rounds(s) {
		one, err := handOver()
		if err != nil {
			return err
		}
		took = append(took, one)
	}
	if err := l.stop(ctx, rec, s.Size()*int64(len(took))); err != nil {
		return err
	}
	rec.Path = way
	t.fill(rec, s, took)
	return nil
}
