package suite

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
)

// skew measures what it costs that a receiver starts later than its sender.
func skew() Experiment {
	return Experiment{
		Name: "skew",
		Summary: "the receiver starts later than the sender: time from the moment at which both run until the state is " +
			"there; a polling interval anywhere would show",
		Settings: []Setting{
			{"skews", "0s,500ms,5s", "", "how much later"},
			{"reps", "5", "2", "repetitions of each"},
			{"bytes", "1MiB", "", "size of the state"},
		},
		run: runSkew,
	}
}

func runSkew(ctx context.Context, r *run) error {
	reps, err := r.count("reps")
	if err != nil {
		return err
	}
	size, err := r.bytes("bytes")
	if err != nil {
		return err
	}
	var skews []time.Duration
	for _, s := range r.list("skews") {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return fmt.Errorf("%w: skews: %q", ErrSettings, s)
		}
		skews = append(skews, d)
	}
	s, err := realState(ctx, max(size, 1))
	if err != nil {
		return err
	}
	cfg := r.o.World
	cfg.Hosts = []lab.Host{{Name: "a", NAT: lab.PortRestricted}, {Name: "b", NAT: lab.PortRestricted}}
	w, err := world.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer w.Close()
	for rep := range reps {
		for _, d := range skews {
			err := r.measure(ctx, fmt.Sprintf("receiver %v later", d), rep, func(ctx context.Context, rec *results.Record) error {
				return skewOne(ctx, w, s, d, rec)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func skewOne(ctx context.Context, w *world.World, s state, d time.Duration, rec *results.Record) error {
	c := couple{nameA: w.FreshName("a"), nameB: w.FreshName("b")}
	var err error
	if c.a, c.b, err = w.Pair(ctx, "a", "b"); err != nil {
		return err
	}
	defer c.part()
	var joinA, joinB worker.Joined
	var sent worker.Sent
	var got worker.Received
	both, bctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		if joinA, err = c.a.Join(bctx, w.JoinArgs(c.nameA)); err != nil {
			return err
		}
		sent, err = c.a.Send(bctx, worker.SendArgs{To: c.nameB, Key: "state", Path: "auto", Source: s.Source})
		return err
	})
	both.Go(func() (err error) {
		select {
		case <-time.After(d):
		case <-bctx.Done():
			return bctx.Err()
		}
		if joinB, err = c.b.Join(bctx, w.JoinArgs(c.nameB)); err != nil {
			return err
		}
		got, err = c.b.Receive(bctx)
		return err
	})
	if err := both.Wait(); err != nil {
		return err
	}
	if err := s.check(got, onestream.SHA256); err != nil {
		return err
	}
	joinPhases(rec, "sender", joinA)
	joinPhases(rec, "receiver", joinB)
	callPhases(rec, sent)
	there := max(joinA.Began, joinB.Began) // both run from here on
	rec.Path, rec.Bytes, rec.OK = sent.Receipt.Path, got.Bytes, true
	rec.Seconds = since(there, got.Last) / 1e3
	rec.Measured["skew_ms"] = since(joinA.Began, joinB.Began)
	rec.Measured["first_byte_ms"] = since(there, got.First)
	rec.Measured["delivered_ms"] = since(there, got.Last)
	return nil
}
