package faas

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/fnwire/fnwire/experiments/lambdaapi"
)

// Bounds of the queue of events.
const (
	defaultQueue  = 1000
	maxQueueBytes = 64 << 20
	maxThrottle   = 5 * time.Minute // between attempts
)

// Async says how queued events are tried again.
type Async struct {
	Retries  int           // after an error of the function; 0 is 2, negative is none
	Delay    time.Duration // before the first of these; the next waits twice as long. 0 is 1 minute
	Throttle time.Duration // before the attempt after one that was throttled; doubles up to 5 minutes. 0 is 1 s
	MaxAge   time.Duration // of an event; then it is dropped. 0 is 6 hours
	Queue    int           // how many events may wait or be tried, of 64 MiB in all; 0 is 1,000
}

func (a Async) filled() Async {
	a.Retries, a.Queue = cmp.Or(a.Retries, 2), cmp.Or(a.Queue, defaultQueue)
	a.Delay, a.Throttle = cmp.Or(a.Delay, time.Minute), cmp.Or(a.Throttle, time.Second)
	a.MaxAge = cmp.Or(a.MaxAge, 6*time.Hour)
	return a
}

// verdict is what became of an attempt.
type verdict int

const (
	handled verdict = iota
	failed
	throttled
)

// Why an event is dropped.
const (
	whyRetries = "retries"
	whyAge     = "age"
	whyClosed  = "closed"
)

// run tries until an attempt, which is told its number, goes well, and returns how often an instance got the event. why is empty, or tells
// why it was given up.
func (a Async) run(ctx context.Context, try func(nr int) verdict) (attempts int, why string) {
	end := time.Now().Add(a.MaxAge)
	delay, throttle := a.Delay, a.Throttle
	for {
		wait := throttle
		switch try(attempts + 1) {
		case handled:
			return attempts + 1, ""
		case failed:
			if attempts++; attempts > a.Retries {
				return attempts, whyRetries
			}
			wait, throttle = delay, a.Throttle
			delay *= 2
		case throttled:
			throttle = min(2*throttle, maxThrottle)
		}
		if time.Now().Add(wait).After(end) {
			return attempts, whyAge
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return attempts, whyClosed
		}
	}
}

// queue is the events that wait or are tried. It is guarded by Platform.mu.
type queue struct {
	events int
	bytes  int
}

// Enqueue has a function handle an event some time, and returns the event's ID. What becomes of it is told to Config.Record. Errors match
// ErrNoFunction, ErrTooLarge, ErrNotJSON, ErrQueueFull or ErrClosed.
func (p *Platform) Enqueue(req Request) (id string, err error) {
	f, err := p.accept(&req, MaxAsync)
	if err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return "", ErrClosed
	case p.queue.events == p.cfg.Async.Queue || p.queue.bytes+len(req.Payload) > maxQueueBytes:
		return "", ErrQueueFull
	}
	p.queue.events++
	p.queue.bytes += len(req.Payload)
	id = lambdaapi.NewRequestID()
	p.wg.Go(func() { p.handle(req, f, id) })
	return id, nil
}

// handle handles a queued event.
func (p *Platform) handle(req Request, f *function, id string) {
	req.Tail = true // an attempt is over once it is recorded
	attempts, why := p.cfg.Async.run(p.ctx, func(nr int) verdict {
		o := <-p.try(&attempt{Request: req, fn: f, id: id, came: time.Now(), nr: nr})
		switch {
		case errors.Is(o.err, ErrThrottled):
			return throttled
		case o.err != nil || o.FunctionError != "":
			return failed
		}
		return handled
	})
	p.mu.Lock()
	p.queue.events--
	p.queue.bytes -= len(req.Payload)
	p.mu.Unlock()
	if why != "" {
		p.record(Record{Dropped: &Dropped{Time: time.Now(), Request: id, Function: f.Name, Attempts: attempts, Why: why}})
	}
}
