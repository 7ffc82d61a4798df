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
	"github.com/fnwire/fnwire/fnlib"
)

// The ways of a transfer.
const (
	wayDirect = "direct" // as wayFnwire goes
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

// wayOf is the way of a record, by the path that a state goes.
func wayOf(path string) string {
	if path == wayDirect {
		return wayFnwire
	}
	return path
}

func transferWays() []string { return []string{wayDirect, wayRelay, wayRedis, wayS3, wayNATS} }

// transfer measures the hand-over of states of several sizes, by every way there is, side by side.
func transfer() Experiment {
	return Experiment{
		Name: "transfer",
		Summary: "states of several sizes between two functions behind port-restricted NATs: by fnwire directly and by relay, and by three stores, " +
			"Redis (in memory), S3 (versitygw on a disk in memory) and NATS (JetStream, likewise), each through its driver in fnlib/store. warm_ms is a hand-over between two that are " +
			"connected: from the call until the receiver has the last byte and a right digest. Of a store it is what putting and getting take, one after the other, as if " +
			"the receiver knew at once and for nothing when the state is there. cold_ms is the same from two processes that have not joined, or not connected, yet; directly, states of 32 KiB at most go early then, by the rendezvous (fnlib.Config.EarlyBytes), and the link is made after. " +
			"The bill is of one such hand-over (the median): two functions of 1,769 MB (one core, on Lambda), each for as long as it takes its end, requests to S3, and servers as if each were there for that time alone",
		Settings: []Setting{
			{"sizes", "1KiB,64KiB,1MiB,16MiB,256MiB", "1KiB,1MiB,16MiB", "of the states"},
			{"ways", strings.Join(transferWays(), ","), "", "which to measure"},
			{"reps", "5", "2", "repetitions of each case, in alternating order"},
			profileSetting(),
			serviceSetting(),
			compressSetting(),
		},
		run: runTransfer,
	}
}

type transferRun struct {
	*run
	w      *world.World
	stores *stores
	jobs   map[string]transferJob // by case
	states map[int64]state
}

type transferJob struct {
	way  string
	size int64
}

// cases returns the cases in order.
func (t *transferRun) cases() (cases []string, err error) {
	ways := t.list("ways")
	for _, way := range ways {
		if !slices.Contains(transferWays(), way) {
			return nil, fmt.Errorf("%w: ways: no %q: there are %v", ErrSettings, way, transferWays())
		}
	}
	for _, text := range t.list("sizes") {
		size, err := parseBytes("sizes", text, 1, mostBytes)
		if err != nil {
			return nil, err
		}
		for _, way := range ways {
			name := way + " " + strings.ReplaceAll(workload.FormatBytes(size), " ", "")
			t.jobs[name] = transferJob{way, size}
			cases = append(cases, name)
		}
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("%w: sizes or ways: none", ErrSettings)
	}
	return cases, nil
}

func runTransfer(ctx context.Context, r *run) error {
	r.limit = transferLimit
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	t := &transferRun{run: r, jobs: make(map[string]transferJob), states: make(map[int64]state)}
	if t.stores, err = r.stores(ctx); err != nil {
		return err
	}
	cases, err := t.cases()
	if err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	for _, j := range t.jobs {
		if _, there := t.states[j.size]; there {
			continue
		}
		if t.states[j.size], err = r.realState(ctx, j.size); err != nil {
			return err
		}
	}
	cfg := r.o.World
	cfg.Hosts = []lab.Host{{Name: "a", NAT: lab.PortRestricted}, {Name: "b", NAT: lab.PortRestricted}}
	if t.w, err = r.raise(ctx, cfg); err != nil {
		return err
	}
	defer t.w.Close()
	r.planned = reps * len(cases)
	for rep := range reps {
		for _, c := range shuffled(cases, r.o.Seed, rep) {
			err := r.measure(ctx, c, rep, func(mctx context.Context, rec *results.Record) error { return t.one(mctx, t.jobs[c], rec) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *transferRun) one(ctx context.Context, j transferJob, rec *results.Record) error {
	rec.Work, rec.Way = workload.FormatBytes(j.size), wayOf(j.way)
	if j.way == wayDirect || j.way == wayRelay {
		return t.fnwire(ctx, rec, j.way, t.states[j.size])
	}
	return t.store(ctx, rec, t.states[j.size])
}

// rounds is how many hand-overs a measurement has.
func rounds(s state) int { return int(min(max(roundBytes/s.Size(), fewestRounds), mostRounds)) }

// handed is one hand-over: how long each of its ends takes its function, and when its first and last byte is there, in milliseconds.
type handed struct{ sender, receiver, first, last float64 }

// fill notes hand-overs between two that were connected, and the first, between two that were not.
func (t *transferRun) fill(rec *results.Record, s state, cold handed, warm []handed) {
	rec.Samples = map[string][]float64{"cold_ms": {cold.last}, "first_byte_ms": {cold.first}}
	var ends []float64
	for _, h := range warm {
		rec.Samples["warm_ms"] = append(rec.Samples["warm_ms"], h.last)
		rec.Samples["warm_first_byte_ms"] = append(rec.Samples["warm_first_byte_ms"], h.first)
		ends = append(ends, h.sender+h.receiver)
	}
	for name, values := range rec.Samples {
		rec.Measured[name] = results.Median(values)
	}
	took := rec.Measured["warm_ms"]
	rec.Bytes, rec.Seconds, rec.OK = s.Size(), took/1e3, true
	rec.Measured["warm_ms_slowest"], rec.Measured["goodput_mbps"] = slices.Max(rec.Samples["warm_ms"]), mbps(s.Size(), rec.Seconds)
	billHandOver(rec, s.Size(), t.handOverUse(rec.Way, s.Size(), fromMS(took), fromMS(results.Median(ends))))
}

func (t *transferRun) fnwire(ctx context.Context, rec *results.Record, way string, s state) error {
	policy := map[string]string{wayDirect: "auto", wayRelay: "relay"}[way]
	c, began, ja, jb, err := meet(ctx, t.w, "a", "b", func(a *worker.JoinArgs) {
		if way == wayDirect { // else what is measured first would make the link
			a.EarlyBytes = fnlib.MaxEarly
		}
	})
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
	cold := handed{first: since(began, got.First), last: since(began, got.Last)}
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
	var warm []handed
	for range rounds(s) {
		if sent, got, err = c.handOver(ctx, policy, s); err != nil {
			return err
		}
		last := since(sent.Began, got.Last)
		warm = append(warm, handed{since(sent.Began, sent.Ended), last, since(sent.Began, got.First), last})
	}
	if err := l.stop(ctx, rec, s.Size()*int64(len(warm))); err != nil {
		return err
	}
	t.fill(rec, s, cold, warm)
	receipts := make([]float64, 0, len(warm))
	for _, h := range warm {
		receipts = append(receipts, h.sender)
	}
	rec.Measured["warm_receipt_ms"] = results.Median(receipts)
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

// store hands over by the store that is the record's way.
func (t *transferRun) store(ctx context.Context, rec *results.Record, s state) error {
	where, err := t.stores.open(t.w, rec, rec.Way)
	if err != nil {
		return err
	}
	a, b, err := t.w.Pair(ctx, "a", "b")
	if err != nil {
		return err
	}
	defer couple{a: a, b: b}.part()
	handOver := func() (h handed, err error) {
		key := t.w.FreshName("transfer/state")
		sent, err := a.Put(ctx, worker.PutArgs{Store: where, Key: key, Source: s.Source})
		if err != nil {
			return h, err
		}
		got, err := b.Get(ctx, worker.GetArgs{Store: where, Key: key, Delete: true})
		if err != nil {
			return h, err
		}
		put, get := since(sent.Began, sent.Ended), since(got.Began, got.Last)
		return handed{put, get, put + since(got.Began, got.First), put + get}, s.check(got, onestream.SHA256)
	}
	cold, err := handOver()
	if err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	l := t.loads(a, b)
	if err := l.start(ctx); err != nil {
		return err
	}
	var warm []handed
	for range rounds(s) {
		one, err := handOver()
		if err != nil {
			return err
		}
		warm = append(warm, one)
	}
	if err := l.stop(ctx, rec, s.Size()*int64(len(warm))); err != nil {
		return err
	}
	rec.Path = rec.Way
	t.fill(rec, s, cold, warm)
	return nil
}
