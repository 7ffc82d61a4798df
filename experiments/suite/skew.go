package suite

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
)

// skew measures what it costs that a function starts later than the other, and that a sender ends before its receiver starts.
func skew() Experiment {
	return Experiment{
		Name: "skew",
		Summary: "the receiver starts later than the sender, or the sender than the receiver: time from the moment at which both run until the state is " +
			"there; a polling interval anywhere would show. Or the sender ends so long before the receiver starts: what storing the state and finding it take, as multiples of what " +
			"its store (Redis) and joining take by themselves",
		Settings: []Setting{
			{"skews", "0s,500ms,5s", "0s,1s", "how much later"},
			{"cases", "receiver,sender,gone", "", "who is later, or that the sender is gone"},
			{"reps", "5", "2", "repetitions of each"},
			{"bytes", "1MiB", "", "size of the state"},
			profileSetting(),
			serviceSetting(),
		},
		run: runSkew,
	}
}

func runSkew(ctx context.Context, r *run) error {
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	size, err := r.bytes("bytes", 1, mostBytes)
	if err != nil {
		return err
	}
	skews, err := r.skews("skews")
	if err != nil {
		return err
	}
	stores, err := r.stores(ctx)
	if err != nil {
		return err
	}
	k := &skewRun{run: r, stores: stores}
	cases, err := k.cases(r)
	if err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	if k.s, err = r.realState(ctx, size); err != nil {
		return err
	}
	cfg := r.o.World
	cfg.Hosts = []lab.Host{{Name: "a", NAT: lab.PortRestricted}, {Name: "b", NAT: lab.PortRestricted}}
	if k.w, err = r.raise(ctx, cfg); err != nil {
		return err
	}
	defer k.w.Close()
	for rep := range reps {
		for _, d := range skews {
			for _, c := range cases {
				err := r.measure(ctx, fmt.Sprintf(c.name, d), rep, func(mctx context.Context, rec *results.Record) error {
					rec.Work = workload.FormatBytes(size) + ", " + rec.Case
					return c.one(mctx, d, rec)
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

type skewRun struct {
	*run
	w      *world.World
	s      state
	stores *stores
}

// skewCase is one of who is later; its name has a place for how much.
type skewCase struct {
	name string
	one  func(context.Context, time.Duration, *results.Record) error
}

func (k *skewRun) cases(r *run) (out []skewCase, err error) {
	all := map[string]skewCase{
		"receiver": {"receiver %v later", k.receiverLater}, "sender": {"sender %v later", k.senderLater}, "gone": {"sender gone %v before", k.senderGone},
	}
	for _, name := range r.list("cases") {
		c, ok := all[name]
		if !ok {
			return nil, fmt.Errorf("%w: cases: %q is none of receiver, sender and gone", ErrSettings, name)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: cases: none", ErrSettings)
	}
	return out, nil
}

func (k *skewRun) receiverLater(ctx context.Context, d time.Duration, rec *results.Record) error {
	return k.apart(ctx, setUp{lateB: d}, rec)
}

func (k *skewRun) senderLater(ctx context.Context, d time.Duration, rec *results.Record) error {
	return k.apart(ctx, setUp{lateA: d}, rec)
}

func (k *skewRun) apart(ctx context.Context, s setUp, rec *results.Record) error {
	s.hostA, s.hostB, s.state = "a", "b", k.s
	c, _, err := s.measure(ctx, k.w, rec)
	if err != nil {
		return err
	}
	c.part()
	rec.Way = wayFnwire
	early := math.Abs(rec.Measured["skew_ms"]) // for which one of the functions was alone
	took := early + rec.Measured["delivered_ms"]
	u := k.handOverUse(wayOf(rec.Path), rec.Bytes, fromMS(took), fromMS(took+rec.Measured["receipt_ms"]))
	u.Way = rec.Way
	billHandOver(rec, rec.Bytes, u)
	return nil
}

// senderGone has the sender end while nobody is there, and the receiver start later.
func (k *skewRun) senderGone(ctx context.Context, d time.Duration, rec *results.Record) error {
	a, b, err := k.w.Pair(ctx, "a", "b")
	if err != nil {
		return err
	}
	defer couple{a: a, b: b}.part()
	where, err := k.stores.open(k.w, rec, wayRedis)
	if err != nil {
		return err
	}
	join := func(p *world.Proc, name string) (worker.Joined, error) {
		args := k.w.JoinArgs(name)
		args.Store = &where
		return p.Join(ctx, args)
	}
	nameB := k.w.FreshName("b")
	if _, err := join(a, k.w.FreshName("a")); err != nil {
		return err
	}
	// What the store takes by itself, on a connection that is warm.
	for range 2 {
		put, err := a.Put(ctx, worker.PutArgs{Store: where, Key: "skew/state", Source: k.s.Source})
		if err != nil {
			return err
		}
		rec.Measured["put_ms"] = since(put.Began, put.Ended)
	}
	sent, err := k.endWhileSending(ctx, a, nameB, rec)
	if err != nil {
		return err
	}
	if sent.Receipt.Stored == "" {
		return fmt.Errorf("not stored, but %+v", sent.Receipt)
	}
	if err := pause(ctx, d); err != nil {
		return err
	}
	joined, err := join(b, nameB)
	if err != nil {
		return err
	}
	got, err := b.Receive(ctx)
	if err != nil {
		return err
	}
	if err := k.s.check(got, onestream.SHA256); err != nil {
		return err
	}
	alone, err := b.Get(ctx, worker.GetArgs{Store: where, Key: "skew/state"})
	if err != nil {
		return err
	}
	rec.Path, rec.Bytes, rec.OK = got.Path, got.Bytes, true
	rec.Measured["join_ms"], rec.Measured["get_ms"] = ms(joined.Timings.Total), since(alone.Began, alone.Last)
	rec.Measured["delivered_ms"] = since(joined.Began, got.Last)
	rec.Seconds = rec.Measured["delivered_ms"] / 1e3
	rec.Way, rec.Samples = wayRedis, map[string][]float64{"delivered_ms": {rec.Measured["delivered_ms"]}}
	functions := fromMS(since(sent.Began, sent.Ended) + rec.Measured["delivered_ms"])
	u := k.handOverUse(wayRedis, k.s.Size(), fromMS(since(sent.Began, got.Last)), functions)
	u.Relay, u.Rendezvous = functions, functions // while one of the functions is there
	billHandOver(rec, k.s.Size(), u)
	rec.Measured["store_to_put"] = rec.Measured["stored_ms"] / rec.Measured["put_ms"]
	rec.Measured["deliver_to_join_and_get"] = rec.Measured["delivered_ms"] / (rec.Measured["join_ms"] + rec.Measured["get_ms"])
	return nil
}

// endWhileSending has a function close its node while it sends to somebody who is not there.
func (k *skewRun) endWhileSending(ctx context.Context, a *world.Proc, to string, rec *results.Record) (sent worker.Sent, err error) {
	sending := make(chan error, 1)
	go func() {
		sent, err = a.Send(ctx, worker.SendArgs{To: to, Key: "state", Path: "auto", Source: k.s.Source})
		sending <- err
	}()
	if err := pause(ctx, sendingFor); err != nil {
		return sent, err
	}
	began := time.Now()
	if err := a.Leave(ctx); err != nil {
		return sent, err
	}
	err = <-sending
	rec.Measured["stored_ms"] = since(began.UnixNano(), sent.Ended)
	return sent, err
}

const sendingFor = 100 * time.Millisecond // until the offer is parked, so that the call is waiting for its receiver
