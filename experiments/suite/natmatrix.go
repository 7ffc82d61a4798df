package suite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/natmatrix"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
)

// natMatrix measures every pair of NAT kinds.
func natMatrix() Experiment {
	return Experiment{
		Name: natmatrix.Experiment,
		Summary: "fresh pairs of functions for every pair of NAT kinds, and for two behind one NAT: whether state is delivered, " +
			"whether the path becomes direct, how long the first byte and the direct path take; beside what RFC 4787 lets one " +
			"expect. Fails if a pair misses its target",
		Settings: []Setting{
			{"nats", strings.Join([]string{
				"none", "full-cone", "full-cone+remap", "address-restricted", "address-restricted+remap", "port-restricted",
				"port-restricted+remap", "port-restricted+timeout=10s", "port-restricted+timeout=30s", "port-restricted+mtu=1460",
				"port-restricted+mtu=1280", "cgn", "sequential", "symmetric", "ipv6-firewall", "udp-blocked",
				"https-only",
			}, ","), "full-cone,port-restricted,sequential,symmetric,udp-blocked", "NAT kinds, of which all pairs are made"},
			{"shared", "port-restricted,symmetric,cgn,cgn+hairpin", "cgn,cgn+hairpin", "NAT kinds that two functions share"},
			{"reps", "10", "2", "fresh pairs for each"},
			{"bytes", "16KiB", "", "size of the state that is sent at once, and again at the end"},
			{"traffic", "10s", "5s", "how long there is light traffic for, unless the path becomes direct"},
			{"silence", "1.2", "0", "in the first repetition functions are silent for so many times the NATs' mapping time-out, before they send again"},
			{"parallel", "0", "", "pairs of kinds at work at a time, each in a lab of its own; 0 is six for each core"},
			profileSetting(),
			{"peer", peerFnwire, "", "what the functions use: " + strings.Join(slices.Sorted(maps.Keys(matrixPeers())), ", ")},
		},
		run: runNATMatrix,
	}
}

const peerFnwire = "fnwire"

// matrixPeer has two functions that nobody knows of yet find each other and exchange state, and fills the record in. The
// outcome need not be direct. The hosts of w are world.Public, hostA and hostB.
type matrixPeer func(ctx context.Context, m *matrix, w *world.World, rec *results.Record) error

func matrixPeers() map[string]matrixPeer {
	return map[string]matrixPeer{peerFnwire: fnwirePair, peerLibp2p: libp2pPairs()}
}

// The hosts of a cell's world.
const (
	hostA = "a"
	hostB = "b"
)

// matrix is the experiment under way.
type matrix struct {
	*run
	peer    matrixPeer
	reps    int
	state   state
	traffic time.Duration
	silence float64 // in mapping time-outs
}

func runNATMatrix(ctx context.Context, r *run) (err error) {
	m := &matrix{run: r}
	if m.reps, err = r.count("reps", 1, mostReps); err != nil {
		return err
	}
	if m.traffic, err = r.duration("traffic", 0); err != nil {
		return err
	}
	size, err := r.bytes("bytes", 1, mostBytes)
	if err != nil {
		return err
	}
	if m.silence, err = setting(r, "silence", parseFactor); err != nil {
		return err
	}
	parallel, err := r.count("parallel", 0, mostAtOnce)
	if err != nil {
		return err
	}
	if parallel == 0 {
		parallel = 6 * runtime.NumCPU()
	}
	if m.peer = matrixPeers()[r.settings["peer"]]; m.peer == nil {
		return fmt.Errorf("%w: peer: no %q: there are %v", ErrSettings, r.settings["peer"], slices.Sorted(maps.Keys(matrixPeers())))
	}
	cells, err := m.cells()
	if err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	if m.state, err = r.realState(ctx, size); err != nil {
		return err
	}
	if err := r.calibrate(ctx); err != nil {
		return err
	}
	r.planned = len(cells) * m.reps
	// In any order, so that the time that is left can be told from what is done.
	rng := rand.New(rand.NewPCG(r.o.Seed, 0))
	rng.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
	working, wctx := errgroup.WithContext(ctx)
	working.SetLimit(parallel)
	for _, c := range cells {
		working.Go(func() error { return m.cell(wctx, c) })
	}
	if err := working.Wait(); err != nil {
		return err
	}
	if r.settings["peer"] != peerFnwire {
		return nil // the targets are fnwire's
	}
	return natmatrix.Judge(r.made)
}

func parseFactor(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 10) {
		return 0, fmt.Errorf("%q: want a number from 0 to 10", s)
	}
	return f, nil
}

// beSilent waits for longer than a mapping of the pair's NATs lasts, in the first repetition. Time-outs of minutes, which
// most kinds have, are not waited for.
func (m *matrix) beSilent(ctx context.Context, rec *results.Record) error {
	pair, err := natmatrix.ParseCase(rec.Case)
	if err != nil {
		return err
	}
	var longest time.Duration
	for _, k := range []lab.Kind{pair.A, pair.B} {
		t, err := k.Traits()
		if err != nil {
			return err
		}
		longest = max(longest, t.UDP.Timeout)
	}
	silence := time.Duration(float64(longest) * m.silence)
	if rec.Rep > 0 || longest > time.Minute || silence == 0 {
		return nil
	}
	rec.Measured["silence_s"] = silence.Seconds()
	return pause(ctx, silence)
}

// cells returns all pairs of kinds in the order of the setting, each once.
func (m *matrix) cells() ([]natmatrix.Pair, error) {
	parse := func(setting string) ([]lab.Kind, error) {
		var kinds []lab.Kind
		for _, s := range m.list(setting) {
			k, err := lab.ParseKind(s)
			if err != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrSettings, setting, err)
			}
			if slices.Contains(kinds, k) {
				return nil, fmt.Errorf("%w: %s: %s is there twice", ErrSettings, setting, k)
			}
			kinds = append(kinds, k)
		}
		return kinds, nil
	}
	kinds, err := parse("nats")
	if err != nil {
		return nil, err
	}
	shared, err := parse("shared")
	if err != nil {
		return nil, err
	}
	var cells []natmatrix.Pair
	for i, a := range kinds {
		for _, b := range kinds[i:] {
			cells = append(cells, natmatrix.Pair{A: a, B: b})
		}
	}
	for _, k := range shared {
		cells = append(cells, natmatrix.Pair{A: k, B: k, Shared: true})
	}
	for _, c := range cells {
		if _, err := c.Way(); err != nil {
			return nil, fmt.Errorf("%w: shared: %w", ErrSettings, err)
		}
	}
	if len(cells) == 0 {
		return nil, fmt.Errorf("%w: no NAT kinds", ErrSettings)
	}
	return cells, nil
}

// cell makes the pairs of one cell, one after the other, in a world that is made for the first that is not there already.
func (m *matrix) cell(ctx context.Context, c natmatrix.Pair) error {
	way, err := c.Way()
	if err != nil {
		return err
	}
	raise := sync.OnceValues(func() (*world.World, error) {
		cfg := m.o.World
		cfg.Hosts = []lab.Host{{Name: hostA, NAT: c.A}, {Name: hostB, NAT: c.B}}
		if c.Shared {
			cfg.Hosts[1].With = hostA
		}
		return m.world(ctx, cfg)
	})
	raised := false
	defer func() {
		if raised {
			if w, err := raise(); err == nil {
				_ = w.Close()
			}
		}
	}()
	for rep := range m.reps {
		err := m.measure(ctx, c.Case(), rep, func(ctx context.Context, rec *results.Record) error {
			rec.Expected = string(way)
			raised = true
			w, err := raise()
			if err != nil {
				return err
			}
			defer m.watch(rec, w)()
			return m.peer(ctx, m, w, rec)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lightPace is the time between two pings: the light traffic.
const lightPace = 20 * time.Millisecond

// fnwirePair is the matrixPeer of this project.
func fnwirePair(ctx context.Context, m *matrix, w *world.World, rec *results.Record) error {
	c, began, ja, jb, err := meet(ctx, w, hostA, hostB)
	if err != nil {
		return err
	}
	defer c.part()
	joinPhases(rec, "sender", ja)
	joinPhases(rec, "receiver", jb)
	first, got, err := c.handOver(ctx, "auto", m.state)
	if err != nil {
		return err
	}
	callPhases(rec, first)
	rec.Measured["first_byte_ms"] = since(began, got.First)
	rec.Measured["receipt_ms"] = since(began, first.Ended)
	p, err := c.a.Path(ctx, worker.PathArgs{Peer: c.nameB, Want: "direct", Wait: m.traffic, Pace: lightPace})
	if err != nil {
		return fmt.Errorf("light traffic: %w", err)
	}
	rec.Reason = p.Reason
	if p.Path == "direct" {
		rec.Measured["direct_ms"] = since(began, p.At)
	}
	rec.Measured["rtt_ms"] = ms(p.RTT)
	if err := m.beSilent(ctx, rec); err != nil {
		return err
	}
	last, got, err := c.handOver(ctx, "auto", m.state)
	if err != nil {
		return fmt.Errorf("second state: %w", err)
	}
	q, err := c.b.Path(ctx, worker.PathArgs{Peer: c.nameA})
	if err != nil {
		return fmt.Errorf("path at the receiver: %w", err)
	}
	// What the second state went over is the outcome: a direct path that was lost again, maybe by being silent, is none.
	rec.Path, rec.Bytes, rec.OK = last.Receipt.Path, 2*got.Bytes, true
	rec.Via = p.Via + "/" + q.Via
	rec.Seconds = since(began, last.Ended) / 1e3
	if rec.Path != p.Path {
		rec.Reason = errors.Join(errors.New(p.Path+" when the second state was sent"), errors.New(last.Receipt.Reason)).Error()
	}
	return nil
}
