package suite

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
)

// setUp is how two functions come together to hand over a first state: a's to b.
type setUp struct {
	hostA, hostB string
	lateA, lateB time.Duration // how much later each begins
	joined       bool          // both have joined, and it is sending and receiving that begins; else it is joining
	called       bool          // a names b as it joins (fnlib.Config.Call)
	state        state
}

// measure hands over, and notes what that took from the moment at which both had begun. Whoever measures must part the couple.
func (s setUp) measure(ctx context.Context, w *world.World, rec *results.Record) (c couple, both int64, err error) {
	var joinA, joinB worker.Joined
	if s.joined {
		c, _, joinA, joinB, err = meet(ctx, w, s.hostA, s.hostB)
	} else {
		c = couple{nameA: w.FreshName("a"), nameB: w.FreshName("b")}
		c.a, c.b, err = w.Pair(ctx, s.hostA, s.hostB)
	}
	if err != nil {
		return c, 0, err
	}
	sent, got, err := together(ctx,
		func(ctx context.Context) (sent worker.Sent, err error) {
			args := w.JoinArgsAt(s.hostA, c.nameA)
			if s.called {
				args.Call = []string{c.nameB}
			}
			if joinA, err = s.begin(ctx, s.lateA, c.a, args, joinA); err != nil {
				return sent, err
			}
			return c.a.Send(ctx, worker.SendArgs{To: c.nameB, Key: "state", Path: "auto", Source: s.state.Source})
		},
		func(ctx context.Context) (got worker.Received, err error) {
			if joinB, err = s.begin(ctx, s.lateB, c.b, w.JoinArgsAt(s.hostB, c.nameB), joinB); err != nil {
				return got, err
			}
			return c.b.Receive(ctx)
		}, s.state, onestream.SHA256)
	if err != nil {
		c.part()
		return c, 0, err
	}
	joinPhases(rec, "sender", joinA)
	joinPhases(rec, "receiver", joinB)
	callPhases(rec, sent)
	beganA, beganB := joinA.Began, joinB.Began
	if s.joined {
		beganA, beganB = sent.Began, got.Began
	}
	both = max(beganA, beganB)
	rec.Measured["skew_ms"] = since(beganA, beganB)
	rec.Measured["first_byte_ms"], rec.Measured["delivered_ms"] = since(both, got.First), since(both, got.Last)
	rec.Measured["receipt_ms"] = since(both, sent.Ended)
	rec.Samples = map[string][]float64{"first_byte_ms": {rec.Measured["first_byte_ms"]}}
	rec.Path, rec.Bytes, rec.Seconds, rec.OK = sent.Receipt.Path, got.Bytes, rec.Measured["delivered_ms"]/1e3, true
	return c, both, nil
}

// begin waits, and joins unless that is done.
func (s setUp) begin(ctx context.Context, late time.Duration, p *world.Proc, args worker.JoinArgs, j worker.Joined) (worker.Joined, error) {
	if err := pause(ctx, late); err != nil || s.joined {
		return j, err
	}
	return p.Join(ctx, args)
}

// becomeDirect waits for a direct path, at most for the time given, and notes when it was found, looking every two milliseconds
// since the first state was there.
func (c couple) becomeDirect(ctx context.Context, rec *results.Record, both int64, wait time.Duration) error {
	path, err := c.direct(ctx, wait)
	if err != nil {
		return err
	}
	if path.Path == "direct" {
		rec.Measured["direct_ms"] = since(both, path.At)
	}
	rec.Measured["rtt_ms"], rec.Reason = ms(path.RTT), path.Reason
	return nil
}

// natPairs reads a setting of pairs of NAT kinds: the hosts "a0" and "b0" of the first pair, and so on, and what to call the pairs.
func (r *run) natPairs(name string) (hosts []lab.Host, names []string, err error) {
	for i, nats := range r.list(name) {
		a, b, _ := strings.Cut(nats, ":")
		if a == "" || b == "" {
			return nil, nil, wrong(name, nats, "want two kinds, as in symmetric:none")
		}
		for j, kind := range []string{a, b} {
			k, err := lab.ParseKind(kind)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %s: %w", ErrSettings, name, err)
			}
			hosts = append(hosts, lab.Host{Name: fmt.Sprintf("%c%d", 'a'+j, i), NAT: k})
		}
		names = append(names, strings.Replace(nats, ":", " x ", 1))
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("%w: %s: none", ErrSettings, name)
	}
	return hosts, names, nil
}

// skews reads a setting of how much later one function begins than the other.
func (r *run) skews(name string) (out []time.Duration, err error) {
	for _, s := range r.list(name) {
		d, err := parseDuration(name, s, 0)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: %s: none", ErrSettings, name)
	}
	return out, nil
}
