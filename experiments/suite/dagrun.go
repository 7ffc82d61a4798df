package suite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fnwire/fnwire/experiments/bill"
	"github.com/fnwire/fnwire/experiments/dag"
	"github.com/fnwire/fnwire/experiments/faas"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/wukong3"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/wan"
	"github.com/fnwire/fnwire/experiments/world"
)

const (
	dagMemory  = 1769 // MB, which on Lambda comes with one core
	dagTimeout = 5 * time.Minute
)

// dagRun is a platform with a function for each way, and the board of its runs.
type dagRun struct {
	r          *run
	life       context.Context //nolint:containedctx // of stores, which outlive a measurement
	cold, warm bool

	w           *world.World
	stores      *stores
	platform    *faas.Platform
	board       *dag.Board
	coordinator *wukong3.Coordinator // of wukong3

	serving sync.WaitGroup
	stops   []func() // of what is served
	serial  int
	last    string // way that has run last, whose instances are there

	mu      sync.Mutex // guards what follows
	records []faas.Invocation
	more    chan struct{} // closed and replaced when there is one more
}

// open raises the world, and a platform in it.
func (d *dagRun) open(ctx context.Context, ways []string) error {
	hosts, err := d.r.count("functions", 1, mostHosts)
	if err != nil {
		return err
	}
	kind, err := lab.ParseKind(d.r.settings["nat"])
	if err == nil && d.r.settings["nat"] == "" {
		err = errors.New("none")
	}
	if err != nil {
		return fmt.Errorf("%w: nat: %w", ErrSettings, err)
	}
	cfg := d.r.o.World
	pool := make([]string, 0, hosts)
	for i := range hosts {
		name := fmt.Sprint("f", i+1)
		pool = append(pool, name)
		cfg.Hosts = append(cfg.Hosts, lab.Host{Name: name, NAT: kind})
	}
	line, err := d.home()
	if err != nil {
		return err
	}
	cfg.Hosts = append(cfg.Hosts, lab.Host{Name: homeHost, Line: line})
	if d.stores, err = d.r.stores(d.life); err != nil {
		return err
	}
	if err := d.r.checked(); err != nil {
		return err
	}
	if d.coordinator, err = wukong3.NewCoordinator(); err != nil {
		return err
	}
	if d.w, err = d.r.raise(ctx, cfg); err != nil {
		return err
	}
	program, err := peer.BuildAt(ctx, filepath.Join("experiments", "dag", "function"), "bootstrap")
	if err != nil {
		return errors.Join(err, d.w.Close())
	}
	functions := make([]faas.Function, 0, len(ways))
	for _, way := range ways {
		env, err := d.env(way)
		if err != nil {
			return errors.Join(err, d.w.Close())
		}
		functions = append(functions, faas.Function{
			Name: way, Dir: filepath.Dir(program), Env: env, MemoryMB: dagMemory, Timeout: dagTimeout,
		})
	}
	d.platform, err = faas.New(faas.Config{
		Lab: d.w.Lab(), Hosts: pool, Functions: functions, Seed: d.r.o.Seed, Record: d.record, Idle: dagIdle,
	})
	if err == nil {
		d.board, d.more = dag.NewBoard(), make(chan struct{})
		err = d.serve()
	}
	if err != nil {
		d.close()
	}
	return err
}

// home is the line of a host at home, of the profile home.
func (d *dagRun) home() (wan.Line, error) {
	p, err := wan.FindProfile("home")
	if slow := d.r.slow(); slow > 1 {
		p = p.Slowed(slow)
	}
	return p.Function(0), err
}

const dagIdle = time.Hour // until an instance is reclaimed: not before the experiment says so

func (d *dagRun) close() {
	if d.platform != nil {
		_ = d.platform.Close()
	}
	for _, stop := range d.stops {
		stop()
	}
	d.serving.Wait()
	_ = d.w.Close()
}

func (d *dagRun) record(r faas.Record) {
	if r.Invocation == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records = append(d.records, *r.Invocation)
	close(d.more)
	d.more = make(chan struct{})
}

// recorded waits until the platform has recorded so many invocations.
func (d *dagRun) recorded(ctx context.Context, n int) ([]faas.Invocation, error) {
	for {
		d.mu.Lock()
		records, more := d.records, d.more
		d.mu.Unlock()
		if len(records) >= n {
			return records, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d invocations are recorded: %w", len(records), n, ctx.Err())
		}
	}
}

// prepare has the functions be as a run is to find them.
func (d *dagRun) prepare(ctx context.Context, way string, w dagWork, start string) error {
	if start == startWarm && d.last == way {
		return nil
	}
	if _, err := d.platform.Reclaim(ctx, ""); err != nil {
		return err
	}
	d.last = ""
	if start == startWarm {
		_, err := d.run(ctx, way, w)
		return err
	}
	return nil
}

// dagOutcome is what came of a run.
type dagOutcome struct {
	dag.Outcome
	began       time.Time
	invocations []faas.Invocation
}

// run runs a graph, and checks the result.
func (d *dagRun) run(ctx context.Context, way string, w dagWork) (o dagOutcome, err error) {
	d.mu.Lock()
	d.records, d.more = nil, make(chan struct{})
	d.mu.Unlock()
	d.serial++
	d.last = "" // if it fails, functions may have ended
	id := fmt.Sprint("run-", d.serial)
	g := w.graph
	if !isStore(way) && !isWukong(way) && way != dag.Last {
		g = g.Placed()
	}
	d.board.Begin(id, g)
	invoke := fmt.Sprintf("%s/2015-03-31/functions/%s/invocations", d.url(platformPort), way)
	var payloads [][]byte
	for _, leaf := range g.Leaves() {
		b, err := json.Marshal(dag.Event{Run: id, Board: d.url(boardPort), Invoke: invoke, Schedule: g.Schedule(leaf.ID), Start: leaf.ID})
		if err != nil {
			return o, err
		}
		payloads = append(payloads, b)
	}
	var all sync.WaitGroup
	defer all.Wait()
	o.began = time.Now()
	for _, p := range payloads {
		all.Go(func() {
			resp, err := d.platform.Invoke(ctx, faas.Request{Function: way, Payload: p, Tail: true})
			if err == nil && resp.FunctionError != "" {
				err = fmt.Errorf("%s; it said: %s", resp.Payload, lastSaid(resp.Log))
			}
			if err != nil {
				d.board.Fail(id, err)
			}
		})
	}
	if o.Outcome, err = d.board.Wait(ctx); err != nil {
		return o, err
	}
	all.Wait()
	d.last = way
	if o.invocations, err = d.recorded(ctx, o.Calls); err != nil {
		return o, err
	}
	return o, dag.Same(dag.Decode(o.Result), w.want, w.tolerance)
}

// lastSaid is the last line of a function's log that is its own.
func lastSaid(log []byte) string {
	said := ""
	for line := range strings.Lines(string(log)) {
		if !strings.HasPrefix(line, "START ") && !strings.HasPrefix(line, "END ") && !strings.HasPrefix(line, "REPORT ") && strings.TrimSpace(line) != "" {
			said = strings.TrimSpace(line)
		}
	}
	return said
}

// measure runs a graph, and notes what came of it.
func (d *dagRun) measure(ctx context.Context, way string, w dagWork, start string, rec *results.Record) error {
	idle, ticks := results.CPUTime()
	o, err := d.run(ctx, way, w)
	if err != nil {
		return err
	}
	if idleNow, ticksNow := results.CPUTime(); !d.r.emulated() { // else its network's watch does
		markBusy(rec, idleNow-idle, ticksNow-ticks)
	}
	slow := float64(d.r.slow())
	took := since(o.began.UnixNano(), o.At) / slow
	rec.OK, rec.Seconds, rec.Measured["done_ms"] = true, took/1e3, took
	rec.Spans = relative(o.Spans, o.began, slow)
	rec.Samples = make(map[string][]float64)
	for _, s := range rec.Spans {
		rec.Measured[s.Kind+"_s"] += (s.To - s.From) / 1e3
		if s.Kind == spanReceive {
			rec.Samples["receive_ms"] = append(rec.Samples["receive_ms"], s.To-s.From)
		}
	}
	for _, v := range o.invocations {
		rec.Measured["starts_"+string(v.Start)]++
	}
	if cold := rec.Measured["starts_"+string(faas.Cold)]; start == startWarm && cold > 0 {
		rec.Marks = append(rec.Marks, fmt.Sprintf("%.0f functions were started anew", cold))
	}
	d.charge(way, w, rec, o)
	if isStore(way) {
		if _, err := d.stores.open(d.w, rec, way); err != nil { // which notes what of it is modelled
			return err
		}
	}
	return nil
}

// The kinds of spans; see package dag.
const (
	spanFunction = "function"
	spanRun      = "run"
	spanSend     = "send"
	spanReceive  = "receive"
)

// charge makes the bill. What functions were there for, but started and ran tasks, is charged
// (and what takes CPU in tasks that flow, which work while they are read, with it), to the way by which they handed over.
func (d *dagRun) charge(way string, w dagWork, rec *results.Record, o dagOutcome) {
	slow := float64(d.r.slow())
	took := time.Duration(rec.Seconds * float64(time.Second))
	u := bill.Use{Way: way, Invocations: len(o.invocations)}
	for _, v := range o.invocations {
		rec.Measured["gb_seconds"] += v.GBSeconds / slow
		rec.Measured["init_s"] += v.InitMS / 1e3 / slow
	}
	over := rec.Measured[spanFunction+"_s"] - rec.Measured[spanRun+"_s"]
	rec.Measured["hand_over_s"] = over
	u.Start, u.Wait = bill.GBSeconds(dagMemory, 1)*rec.Measured["init_s"], bill.GBSeconds(dagMemory, 1)*over
	u.Work = max(rec.Measured["gb_seconds"]-u.Start-u.Wait, 0)
	var sent, received int
	for _, s := range rec.Spans {
		switch s.Kind {
		case spanSend:
			sent++
		case spanReceive:
			received++
		}
	}
	relayed := way == dag.Relay || w.bytes <= dag.Small && way != dag.Auto
	switch {
	case way == wayS3:
		puts, gets := bill.S3Requests(w.bytes)
		u.Puts, u.Gets = puts*sent, gets*received
	case way == wayRedis:
		u.Cache = took
	case way == wayNATS:
		u.Rendezvous, u.Public = took, w.bytes*int64(sent+received)
	case isWukong(way):
		u.Rendezvous, u.Direct = took, w.bytes*int64(sent) // the coordinator's instance
	case relayed:
		u.Relay, u.Rendezvous, u.Public = took, took, 2*w.bytes*int64(sent)
	default:
		u.Relay, u.Rendezvous, u.Direct = took, took, w.bytes*int64(sent)
	}
	d.r.apart(&u, w.bytes*int64(sent))
	rec.Bill = bill.Default().Charges(u)
	rec.Measured["dollars"] = bill.Total(rec.Bill)
}

// relative has the times of spans be in milliseconds since a run began, divided by how much slower the network is, and gives the functions
// numbers, in the order in which they began.
func relative(spans []results.Span, began time.Time, slow float64) []results.Span {
	slices.SortStableFunc(spans, func(a, b results.Span) int { return cmp.Compare(a.From, b.From) })
	rows := make(map[string]string)
	out := make([]results.Span, 0, len(spans))
	for _, s := range spans {
		if rows[s.Row] == "" {
			rows[s.Row] = fmt.Sprint(len(rows) + 1)
		}
		s.Row = rows[s.Row]
		s.From, s.To = (s.From-float64(began.UnixNano()))/1e6/slow, (s.To-float64(began.UnixNano()))/1e6/slow
		out = append(out, s)
	}
	return out
}
