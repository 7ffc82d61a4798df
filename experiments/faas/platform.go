package faas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/fnwire/fnwire/experiments/lambdaapi"
)

// Platform keeps functions and runs their instances. All methods are safe for concurrent use.
type Platform struct {
	cfg       Config
	mux       *http.ServeMux
	functions map[string]*function
	ctx       context.Context // ends with the platform
	cancel    context.CancelFunc
	wg        sync.WaitGroup // of all goroutines

	mu     sync.Mutex // guards what follows, and functions' active
	rand   *rand.Rand
	slots  []*slot
	closed bool
	queue  queue

	recordMu sync.Mutex // guards functions' totals, and has records come one at a time
}

// Errors that callers branch on, with errors.Is.
var (
	ErrClosed     = errors.New("faas: the platform is closed")
	ErrNoFunction = errors.New("faas: no such function")
	// ErrThrottled: all hosts are busy, or as many as the function may have.
	ErrThrottled = errors.New("faas: throttled")
	errReserved  = fmt.Errorf("%w: as many events as the function may have are being handled", ErrThrottled)
	errBusy      = fmt.Errorf("%w: all hosts for its instances are busy", ErrThrottled)
	// ErrQueueFull: too many events wait, or too many bytes of them.
	ErrQueueFull = errors.New("faas: the queue of events is full")
	ErrTooLarge  = errors.New("faas: the payload is too large")
	ErrNotJSON   = errors.New("faas: the payload is not JSON")
)

// New returns a platform. It starts no instance before there is an event.
func New(cfg Config) (*Platform, error) {
	p, err := newPlatform(cfg)
	if err != nil {
		return nil, fmt.Errorf("faas: %w", err)
	}
	return p, nil
}

func newPlatform(cfg Config) (*Platform, error) {
	err := cfg.check()
	if err != nil {
		return nil, err
	}
	p := &Platform{mux: http.NewServeMux(), functions: make(map[string]*function), rand: rand.New(rand.NewPCG(cfg.Seed, 0))}
	if p.slots, err = cfg.pool(); err != nil {
		return nil, err
	}
	for _, f := range cfg.Functions {
		if err := f.check(p.slots); err != nil {
			return nil, err
		}
		if p.functions[f.Name] != nil {
			return nil, fmt.Errorf("two functions named %s", f.Name)
		}
		p.functions[f.Name] = &function{Function: f}
	}
	p.cfg = cfg
	p.routes()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Close ends all instances and waits until they are gone. Invocations that run end as if their function had crashed; events that are
// queued are dropped. It may be called more than once.
func (p *Platform) Close() error {
	p.mu.Lock()
	p.closed = true
	for _, s := range p.slots {
		if s.inst != nil {
			p.end(s.inst, WhyClosed)
		}
		s.tell()
	}
	p.mu.Unlock()
	p.cancel()
	p.wg.Wait()
	return nil
}

// Functions returns the names of the functions, sorted.
func (p *Platform) Functions() []string { return slices.Sorted(maps.Keys(p.functions)) }

// Totals returns what each function has used so far.
func (p *Platform) Totals() map[string]Totals {
	p.recordMu.Lock()
	defer p.recordMu.Unlock()
	all := make(map[string]Totals, len(p.functions))
	for name, f := range p.functions {
		all[name] = f.totals
	}
	return all
}

// Request is an event for a function.
type Request struct {
	Function      string
	Payload       []byte // JSON, at most MaxSync or MaxAsync bytes; empty is {}
	ClientContext string // JSON, for invocations that are waited for
	TraceID       string // of X-Ray; empty: one is made
	Tail          bool   // Response.Log is wanted, for which the response waits until the function is done with the event
}

// Response is what became of an event.
type Response struct {
	lambdaapi.Result
	Instance string
	Log      []byte // the last 4 KiB of the instance's log
}

// Invoke has a function handle an event, and waits for it. Errors of the function are in the Response. Errors are the context's, after which
// the function goes on, and match ErrNoFunction, ErrTooLarge, ErrNotJSON, ErrThrottled or ErrClosed.
func (p *Platform) Invoke(ctx context.Context, req Request) (Response, error) {
	f, err := p.accept(&req, MaxSync)
	if err != nil {
		return Response{}, err
	}
	done := p.try(&attempt{Request: req, fn: f, id: lambdaapi.NewRequestID(), came: time.Now()})
	select {
	case o := <-done:
		return o.Response, o.err
	case <-ctx.Done():
		return Response{}, fmt.Errorf("faas: %s: %w", req.Function, ctx.Err())
	}
}

// accept checks a request and returns its function.
func (p *Platform) accept(req *Request, limit int) (*function, error) {
	f := p.functions[req.Function]
	if len(req.Payload) == 0 {
		req.Payload = []byte("{}")
	}
	switch {
	case f == nil:
		return nil, fmt.Errorf("%w: %s", ErrNoFunction, lambdaapi.Function{Name: req.Function}.ARN())
	case len(req.Payload) > limit:
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrTooLarge, len(req.Payload), limit)
	case !json.Valid(req.Payload):
		return nil, ErrNotJSON
	}
	return f, nil
}

// attempt is an event that is to be handled now.
type attempt struct {
	Request
	fn    *function
	id    string
	came  time.Time
	nr    int // of a queued event's, from 1; 0: it is not queued
	done  chan outcome
	found time.Time // an instance, or a host for one
}

type outcome struct {
	Response
	err error
}

// try takes a slot for the event, if there is one, and has the function handle it there. The outcome comes once.
func (p *Platform) try(a *attempt) <-chan outcome {
	a.done = make(chan outcome, 1)
	p.mu.Lock()
	s, err := (*slot)(nil), ErrClosed
	if !p.closed {
		if s, err = pick(p.slots, a.fn, p.rand.IntN); err == nil {
			p.wg.Go(func() { p.serve(s, a) })
		}
	}
	p.mu.Unlock()
	if errors.Is(err, ErrThrottled) {
		p.record(Record{Invocation: a.invocation(nil, Throttled)})
	}
	if err != nil {
		a.done <- outcome{err: err}
	}
	return a.done
}

// serve has an instance on the slot handle the event.
func (p *Platform) serve(s *slot, a *attempt) {
	for {
		i, fresh, err := p.occupy(s, a.fn)
		if err != nil {
			p.release(s, a.fn)
			a.done <- outcome{err: err}
			return
		}
		a.found = time.Now()
		i.out.begin(a.id)
		r, err := i.run.Invoke(context.Background(), lambdaapi.Event{ // bounded by the function's time-out
			ID: a.id, Payload: a.Payload, ClientContext: a.ClientContext, TraceID: a.TraceID,
		})
		if err != nil { // it has ended while it waited
			i.open.Done()
			continue
		}
		p.answered(s, i, a, r, fresh)
		return
	}
}

// occupy returns the instance on the slot, which the caller has taken, for an event of f. It waits until that can be, and
// starts it if need be.
func (p *Platform) occupy(s *slot, f *function) (i *instance, fresh bool, err error) {
	for {
		p.mu.Lock()
		i, changed := s.inst, s.changed
		switch {
		case p.closed:
			p.mu.Unlock()
			return nil, false, ErrClosed
		case i == nil:
			p.mu.Unlock()
			i, err = p.start(s, f)
			return i, true, err
		case i.state == idle && i.fn == f:
			i.use()
			p.mu.Unlock()
			return i, false, nil
		case i.state == idle:
			p.end(i, WhyRoom)
		}
		p.mu.Unlock()
		<-changed // it is done with its event by the time-out, or ends
	}
}

// release lets others have the slot.
func (p *Platform) release(s *slot, f *function) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.taken = false
	f.active--
}

// answered tells the result, and waits until the instance is done with the event.
func (p *Platform) answered(s *slot, i *instance, a *attempt, r lambdaapi.Result, fresh bool) {
	defer i.open.Done()
	p.mu.Lock()
	if i.state == busy {
		i.state = settling
	}
	i.used = time.Now()
	i.served++
	p.mu.Unlock()
	p.release(s, a.fn)
	o := outcome{Response: Response{Result: r, Instance: i.id}}
	if !a.Tail {
		a.done <- o
	}
	i.weigh()
	v := a.invocation(i, r.FunctionError)
	took := <-r.Busy
	waits := i.run.WaitIdle(context.Background()) == nil
	if !waits {
		<-i.run.Done()
		p.blame(i, r)
	}
	v.Start, v.FrozenMS, v.DurationMS, v.Received = Warm, ms(r.Frozen), ms(r.Duration), len(r.Payload)
	init := time.Duration(0)
	switch {
	case fresh:
		v.Start, init = Cold, i.run.Usage().Init
	case r.Frozen > 0:
		v.Start = Thawed
	}
	v.bill(init, took)
	i.weigh()
	v.MaxRSS = i.maxRSS
	o.Log = i.out.end(v)
	p.record(Record{Invocation: v})
	if a.Tail {
		a.done <- o
	}
	p.settle(i, waits)
}

// blame notes why an instance has ended.
func (p *Platform) blame(i *instance, r lambdaapi.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case i.why != "":
	case r.FunctionError == lambdaapi.TimedOut:
		i.why = WhyTimedOut
	default:
		i.why = WhyExited
	}
}

// invocation begins the record of an attempt.
func (a *attempt) invocation(i *instance, failed string) *Invocation {
	v := &Invocation{
		Time: a.came, Request: a.id, Function: a.fn.Name, Async: a.nr > 0, Attempt: a.nr,
		Error: failed, MemoryMB: a.fn.MemoryMB, Sent: len(a.Payload),
	}
	if i != nil {
		v.Instance, v.Host, v.NAT, v.WaitMS = i.id, i.slot.host.Name, i.slot.host.NAT, ms(a.found.Sub(a.came))
	}
	return v
}

// record tells of what happened.
func (p *Platform) record(r Record) {
	p.recordMu.Lock()
	defer p.recordMu.Unlock()
	log := p.cfg.Logger
	switch {
	case r.Invocation != nil:
		v := r.Invocation
		p.functions[v.Function].totals.add(v)
		log.Info("invocation", "function", v.Function, "request", v.Request, "instance", v.Instance, "host", v.Host, "start", string(v.Start),
			"error", v.Error, "init_ms", v.InitMS, "duration_ms", v.DurationMS, "billed_ms", v.BilledMS)
	case r.Instance != nil:
		log.Info("instance ended", "function", r.Instance.Function, "instance", r.Instance.ID, "host", r.Instance.Host,
			"why", r.Instance.Why, "invocations", r.Instance.Invocations)
	case r.Dropped != nil:
		log.Warn("event dropped", "function", r.Dropped.Function, "request", r.Dropped.Request, "why", r.Dropped.Why)
	}
	p.cfg.Record(r)
}
