package suite

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/world"
)

// From what a set-up starts.
const (
	fromCold   = "cold"
	fromCalled = "called"
	fromWarm   = "warm"
)

func startingPoints() []string { return []string{fromCold, fromCalled, fromWarm} }

const linkedRounds = 5 // hand-overs on the link that was set up

// connect measures how long two functions take until a first state is there.
func connect() Experiment {
	return Experiment{
		Name: "connect",
		Summary: "fresh pairs of functions for each pair of NAT kinds, of which one may be late: time from the moment at which both are there until the receiver has the first byte of a small state, " +
			"and until the path is direct. cold: both processes run and have not joined, and it is joining that is late. called: likewise, but the sender names the receiver as it joins (fnlib.Config.Call). " +
			"warm: both have joined, without a link, and it is the call of Send or Receive that is late. linked_first_byte_ms is a hand-over on the link that there is then. One pair at a time; " +
			"later pairs know how earlier ones of the same kinds became direct, as in any job",
		Settings: []Setting{
			{"nats", "port-restricted:port-restricted,symmetric:port-restricted,symmetric:symmetric,sequential:symmetric,cgn:cgn,udp-blocked:port-restricted,https-only:port-restricted",
				"port-restricted:port-restricted,symmetric:port-restricted,https-only:port-restricted", "pairs of NAT kinds, the sender's first"},
			{"skews", "0s,100ms,1s,5s", "0s,1s", "how much later one begins"},
			{"late", "sender,receiver", "", "who begins later, or both in turn"},
			{"from", strings.Join(startingPoints(), ","), "cold,warm", "what a set-up starts from"},
			{"reps", "2", "1", "fresh pairs for each case, in alternating order"},
			{"bytes", "1KiB", "", "size of the state"},
			{"settle", "3s", "1s", "how long to wait for a direct path"},
			profileSetting(),
		},
		run: runConnect,
	}
}

func runConnect(ctx context.Context, r *run) error {
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	settle, err := r.duration("settle", 0)
	if err != nil {
		return err
	}
	size, err := r.bytes("bytes", 1, mostBytes)
	if err != nil {
		return err
	}
	cfg := r.o.World
	var nats []string
	if cfg.Hosts, nats, err = r.natPairs("nats"); err != nil {
		return err
	}
	cases, err := r.setUps(nats)
	if err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	small, err := r.realState(ctx, size)
	if err != nil {
		return err
	}
	w, err := r.raise(ctx, cfg)
	if err != nil {
		return err
	}
	defer w.Close()
	var names []string
	byName := make(map[string]setUp, len(cases))
	for _, c := range cases {
		c.setUp.state = small
		names, byName[c.name] = append(names, c.name), c.setUp
	}
	r.planned = reps * len(names)
	for rep := range reps {
		for _, name := range shuffled(names, r.o.Seed, rep) {
			err := r.measure(ctx, name, rep, func(ctx context.Context, rec *results.Record) error {
				rec.Work, rec.Way = "set-up, "+name, wayFnwire
				return byName[name].connect(ctx, w, rec, settle)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

const wayFnwire = "fnwire"

// namedSetUp is a case.
type namedSetUp struct {
	name  string
	setUp setUp
}

// setUps makes the cases.
func (r *run) setUps(nats []string) (out []namedSetUp, err error) {
	skews, err := r.skews("skews")
	if err != nil {
		return nil, err
	}
	for _, late := range r.list("late") {
		if late != "sender" && late != "receiver" {
			return nil, fmt.Errorf("%w: late: %q is neither sender nor receiver", ErrSettings, late)
		}
	}
	for _, from := range r.list("from") {
		if !slices.Contains(startingPoints(), from) {
			return nil, fmt.Errorf("%w: from: no %q: there are %v", ErrSettings, from, startingPoints())
		}
		for i, pair := range nats {
			base := setUp{hostA: fmt.Sprint("a", i), hostB: fmt.Sprint("b", i), joined: from == fromWarm, called: from == fromCalled}
			for _, d := range skews {
				if d == 0 {
					out = append(out, namedSetUp{from + " " + pair, base})
					continue
				}
				for _, late := range r.list("late") {
					s := base
					if late == "sender" {
						s.lateA = d
					} else {
						s.lateB = d
					}
					out = append(out, namedSetUp{fmt.Sprintf("%s %s, %s %v late", from, pair, late, d), s})
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: from, skews or late: none", ErrSettings)
	}
	return out, nil
}

// connect measures one set-up, and what is left to do once there is a link.
func (s setUp) connect(ctx context.Context, w *world.World, rec *results.Record, settle time.Duration) error {
	c, both, err := s.measure(ctx, w, rec)
	if err != nil {
		return err
	}
	defer c.part()
	if trip := max(roundTrip(w.Lab(), s.hostA), roundTrip(w.Lab(), s.hostB)); trip > 0 {
		rec.Measured["first_byte_round_trips"] = rec.Measured["first_byte_ms"] / ms(trip)
	}
	if err := c.becomeDirect(ctx, rec, both, settle); err != nil {
		return err
	}
	var firsts []float64
	for range linkedRounds {
		sent, got, err := c.handOver(ctx, "auto", s.state)
		if err != nil {
			return fmt.Errorf("on the link: %w", err)
		}
		firsts, rec.Path = append(firsts, since(sent.Began, got.First)), sent.Receipt.Path
	}
	rec.Samples["linked_first_byte_ms"], rec.Measured["linked_first_byte_ms"] = firsts, results.Median(firsts)
	return nil
}

// roundTrip is how long a packet of a host takes to the servers and back, by what its line and theirs are set to; 0 for cables.
func roundTrip(l *lab.Lab, host string) (d time.Duration) {
	for _, h := range l.Hosts() {
		if h.Name == host || h.Name == world.Public {
			d += h.Line.Up.Delay + h.Line.Down.Delay + (h.Line.Up.Jitter+h.Line.Down.Jitter)/2
		}
	}
	return d
}
