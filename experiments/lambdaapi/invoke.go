package lambdaapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Event is what a function is invoked with.
type Event struct {
	ID            string // of the request, a UUID; empty: one is made
	Payload       []byte // at most MaxPayload
	ClientContext string // JSON, handed on as it is; optional
	TraceID       string // of X-Ray; empty: one is made
}

// The types of errors that end the instance.
const (
	TimedOut  = "Sandbox.Timedout"  // no answer in time, or init took too long
	ExitError = "Runtime.ExitError" // the process has ended
)

// Result is what became of an event.
type Result struct {
	ID          string
	Payload     []byte // the response, or the error as {"errorMessage", "errorType", ...}
	ContentType string // of a response
	// FunctionError is the type of the function's error; empty: it has answered. Besides the function's own: TimedOut, ExitError, and
	// Function.ResponseSizeTooLarge.
	FunctionError string
	Cold          bool          // the first event of the instance
	Frozen        time.Duration // how long the instance had been frozen when the event came; 0: it was not
	Duration      time.Duration // from when the process got the event; 0 if it never did
	// Busy yields once, when the process and its extensions are done with the event: how long they had it, which is what is billed.
	Busy <-chan time.Duration
}

// event is an Event on its way.
type event struct {
	Event
	arn    string
	cold   bool
	timer  *time.Timer // ends it at its deadline; set when given
	result chan Result // capacity 1
	once   sync.Once
	busy   chan time.Duration // capacity 1

	// Guarded by Instance.mu.
	frozen   time.Duration // the instance, before it came
	given    time.Time     // to the process; zero: not yet
	deadline time.Time
	answered bool
	over     bool // the process and its extensions are done with it
}

// Invoke gives the instance an event, as soon as it is done with the one before, and returns when that is answered. The function's own
// errors and its end are results, and so is an init that failed; errors are the context's, and match ErrTooLarge or ErrEnded. When the
// context ends before the event was given to the process, it is not given; after, the function goes on.
func (i *Instance) Invoke(ctx context.Context, ev Event) (Result, error) {
	if len(ev.Payload) > MaxPayload {
		return Result{}, ErrTooLarge
	}
	e := newEvent(ev, i.cfg.Function.ARN())
	if err := i.queue(ctx, e); err != nil {
		return Result{}, fmt.Errorf("lambdaapi: invoke: %w", err)
	}
	select {
	case r := <-e.result:
		return r, nil
	case <-ctx.Done():
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.event == e && e.given.IsZero() {
		i.event = nil
		i.update()
	}
	return Result{}, fmt.Errorf("lambdaapi: invoke: %w", ctx.Err())
}

// queue makes e the event at hand, once there is none.
func (i *Instance) queue(ctx context.Context, e *event) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for {
		switch {
		case i.failed != nil:
			e.end(*i.failed)
			e.account(&i.usage)
			return nil
		case i.leaving:
			return ErrEnded
		case i.event == nil && i.last == nil:
			e.frozen = i.thaw()
			i.event = e
			i.update()
			return nil
		}
		if err := i.await(ctx); err != nil {
			return err
		}
	}
}

// NewRequestID returns a random UUID.
func NewRequestID() string {
	id := newID()
	return fmt.Sprintf("%s-%s-4%s-a%s-%s", id[:8], id[8:12], id[13:16], id[17:20], id[20:])
}

func newEvent(ev Event, arn string) *event {
	if ev.ID == "" {
		ev.ID = NewRequestID()
	}
	if ev.TraceID == "" {
		id := newID() + newID()
		ev.TraceID = fmt.Sprintf("Root=1-%08x-%s;Parent=%s;Sampled=0", time.Now().Unix(), id[:24], id[24:40])
	}
	return &event{Event: ev, arn: arn, result: make(chan Result, 1), busy: make(chan time.Duration, 1)}
}

// give notes that the process gets the event. It runs under Instance.mu.
func (i *Instance) give(e *event) {
	i.usage.Invocations++
	e.given, e.cold = time.Now(), i.usage.Invocations == 1
	e.deadline = e.given.Add(i.cfg.Function.Timeout)
	e.timer = time.AfterFunc(i.cfg.Function.Timeout, func() { i.timedOut(e) })
	for _, x := range i.extensions {
		if x.invoke {
			x.event = e
		}
	}
}

// account notes, once, that the process and its extensions are done with the event. It runs under Instance.mu.
func (e *event) account(u *Usage) {
	if e.over {
		return
	}
	e.over = true
	busy := time.Duration(0)
	if !e.given.IsZero() {
		e.timer.Stop()
		busy = time.Since(e.given)
	}
	u.Busy += busy
	e.busy <- busy
}

// timedOut ends the instance: its process has not answered, or it or an extension has not asked for the next event.
func (i *Instance) timedOut(e *event) {
	msg := fmt.Sprintf("Task timed out after %.2f seconds", i.cfg.Function.Timeout.Seconds())
	i.mu.Lock()
	late := i.event == e || i.last == e
	if late {
		e.fail(TimedOut, msg)
		e.account(&i.usage)
	}
	i.mu.Unlock()
	if late {
		i.end(errors.New("lambdaapi: " + msg))
	}
}

// fail tells the invoker of an error that the function did not tell itself.
func (e *event) fail(kind, msg string) {
	e.end(failure(kind, "RequestId: "+e.ID+" Error: "+msg))
}

func failure(kind, msg string) Result {
	body, _ := json.Marshal(refusal{Message: msg, Type: kind}) // never fails
	return Result{Payload: body, FunctionError: kind}
}

// end tells the invoker the result, once. Unless the process is answering the event, it runs under Instance.mu.
func (e *event) end(r Result) {
	e.once.Do(func() {
		r.ID, r.Cold, r.Frozen, r.Busy = e.ID, e.cold, e.frozen, e.busy
		if !e.given.IsZero() {
			r.Duration = time.Since(e.given)
		}
		e.result <- r
	})
}
