package suite

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
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
	reps, err := r.count("reps")
	if err != nil {
		return err
	}
	size, err := r.bytes("bytes")
	if err != nil {
		return err
	}
	settle, err := r.duration("settle")
	if err != nil {
		return err
	}
	p := &pairsRun{settle: settle}
	if p.big, err = realState(ctx, max(size, coldBytes)); err != nil {
		return err
	}
	if p.small, err = p.big.cut(coldBytes); err != nil {
		return err
	}
	cfg := r.o.World
	var names []string
	for i, nats := range r.list("nats") {
		a, b, _ := strings.Cut(nats, ":")
		for j, kind := range []string{a, b} {
			k, err := lab.ParseKind(kind)
			if err != nil {
				return fmt.Errorf("%w: nats: %w", ErrSettings, err)
			}
			cfg.Hosts = append(cfg.Hosts, lab.Host{Name: fmt.Sprintf("%c%d", 'a'+j, i), NAT: k})
		}
		names = append(names, strings.Replace(nats, ":", " x ", 1))
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
	c, began, ja, jb, err := meet(ctx, p.w, hostA, hostB)
	if err != nil {
		return err
	}
	defer c.part()
	joinPhases(rec, "sender", ja)
	joinPhases(rec, "receiver", jb)
	sent, got, err := c.handOver(ctx, "auto", p.small)
	if err != nil {
		return err
	}
	callPhases(rec, sent)
	rec.Measured["first_byte_ms"] = since(began, got.First)
	rec.Measured["receipt_ms"] = since(began, sent.Ended)
	path, err := c.direct(ctx, p.settle)
	if err != nil {
		return err
	}
	if path.Path == "direct" {
		rec.Measured["direct_ms"] = since(began, path.At)
	}
	rec.Measured["rtt_ms"] = ms(path.RTT)
	rec.Reason = path.Reason
	if sent, got, err = c.handOver(ctx, "auto", p.big); err != nil {
		return err
	}
	rec.Path, rec.Bytes, rec.OK = sent.Receipt.Path, got.Bytes, true
	rec.Seconds = since(sent.Began, got.Last) / 1e3
	return nil
}
