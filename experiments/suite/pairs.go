package suite

import (
	"context"
	"fmt"
	"time"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/world"
)

// pairs measures which path fresh pairs of functions end on, for pairs of NATs.
func pairs() Experiment {
	return Experiment{
		Name: "pairs",
		Summary: "fresh pairs of functions for each pair of NAT kinds: on which path they end, how long the first byte and " +
			"the direct path take",
		Settings: []Setting{
			{"nats", "port-restricted:port-restricted,symmetric:symmetric", "", "pairs of NAT kinds"},
			{"reps", "20", "5", "fresh pairs for each"},
			{"bytes", "1MiB", "", "size of the state that is sent when the path has settled"},
			{"settle", "2s", "1s", "how long to wait for a direct path"},
			profileSetting(),
		},
		run: runPairs,
	}
}

func runPairs(ctx context.Context, r *run) error {
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	size, err := r.bytes("bytes", coldBytes, mostBytes)
	if err != nil {
		return err
	}
	settle, err := r.duration("settle", 0)
	if err != nil {
		return err
	}
	cfg := r.o.World
	var names []string
	if cfg.Hosts, names, err = r.natPairs("nats"); err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	p := &pairsRun{settle: settle}
	if p.big, err = r.realState(ctx, size); err != nil {
		return err
	}
	if p.small, err = p.big.cut(ctx, coldBytes); err != nil {
		return err
	}
	if p.w, err = r.raise(ctx, cfg); err != nil {
		return err
	}
	defer p.w.Close()
	for rep := range reps {
		for i, name := range names {
			err := r.measure(ctx, name, rep, func(ctx context.Context, rec *results.Record) error {
				return p.one(ctx, rec, fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i))
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

type pairsRun struct {
	w          *world.World
	small, big state
	settle     time.Duration
}

func (p *pairsRun) one(ctx context.Context, rec *results.Record, hostA, hostB string) error {
	c, both, err := setUp{hostA: hostA, hostB: hostB, state: p.small}.measure(ctx, p.w, rec)
	if err != nil {
		return err
	}
	defer c.part()
	if err := c.becomeDirect(ctx, rec, both, p.settle); err != nil {
		return err
	}
	sent, got, err := c.handOver(ctx, "auto", p.big)
	if err != nil {
		return err
	}
	rec.Path, rec.Bytes = sent.Receipt.Path, got.Bytes
	rec.Seconds = since(sent.Began, got.Last) / 1e3
	return nil
}
