// Package rpc is how a harness talks to the processes of an experiment: requests and answers, over a process's standard
// input and output. It knows nothing of what is asked.
//
// # Protocol
//
// Both directions carry JSON objects, one a line: requests on standard input, answers on standard output. Answers
// come in the order in which the work is done. Standard error is for people.
//
//	request  {"id": 7, "op": "send", "args": {...}}
//	cancel   {"id": 7, "op": "cancel"}
//	part     {"id": 7, "part": {...}}, any number of them before the answer
//	answer   {"id": 7, "result": {...}} or {"id": 7, "error": "..."}
//
// A part that was written is known to the harness whatever becomes of the process.
//
// The process ends, and all that it has started with it, at the end of standard input. Every process answers "usage".
package rpc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"
)

const (
	opCancel = "cancel"
	opUsage  = "usage"
)

// None stands for no arguments or no result.
type None struct{}

// Usage is what a process has used since its start.
type Usage struct {
	CPU         time.Duration `json:"cpu"` // user and system
	MaxRSSBytes int64         `json:"max_rss_bytes"`
}

// Usage asks what the process has used so far.
func (c *Client) Usage(ctx context.Context) (u Usage, err error) {
	return u, c.Call(ctx, opUsage, None{}, &u)
}

type request struct {
	ID   uint64          `json:"id"`
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
}

type answer struct {
	ID     uint64          `json:"id"`
	Part   json.RawMessage `json:"part,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Op is one thing that a process can do. What it tells with part goes to the harness at once.
type Op func(ctx context.Context, args json.RawMessage, part func(any) error) (any, error)

// Handle makes an Op of a function with typed arguments and result.
func Handle[A, R any](f func(context.Context, A) (R, error)) Op {
	return func(ctx context.Context, args json.RawMessage, _ func(any) error) (any, error) {
		a, err := unmarshal[A](args)
		if err != nil {
			return nil, err
		}
		return f(ctx, a)
	}
}

// HandleParts makes an Op of a function that tells its results one by one.
func HandleParts[A, P any](f func(context.Context, A, func(P) error) error) Op {
	return func(ctx context.Context, args json.RawMessage, part func(any) error) (any, error) {
		a, err := unmarshal[A](args)
		if err != nil {
			return nil, err
		}
		return None{}, f(ctx, a, func(p P) error { return part(p) })
	}
}

func unmarshal[A any](args json.RawMessage) (a A, err error) {
	if len(args) > 0 {
		if err := json.Unmarshal(args, &a); err != nil {
			return a, fmt.Errorf("arguments: %w", err)
		}
	}
	return a, nil
}

// Serve answers requests until in ends, each in a goroutine of its own. Then it cancels those that are
// left and waits for them.
func Serve(ctx context.Context, in io.Reader, out io.Writer, ops map[string]Op) error {
	ctx, cancel := context.WithCancel(ctx)
	all := map[string]Op{opUsage: Handle(usage)}
	maps.Copy(all, ops)
	s := &server{ops: all, out: json.NewEncoder(out), running: make(map[uint64]context.CancelFunc)}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	requests := json.NewDecoder(bufio.NewReader(in))
	for {
		var r request
		if err := requests.Decode(&r); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("rpc: request: %w", err)
		}
		if r.Op == opCancel {
			s.cancel(r.ID)
			continue
		}
		opCtx := s.begin(ctx, r.ID)
		wg.Go(func() { s.run(opCtx, r) })
	}
}

type server struct {
	ops map[string]Op

	mu      sync.Mutex // guards what follows
	out     *json.Encoder
	running map[uint64]context.CancelFunc
}

func (s *server) begin(ctx context.Context, id uint64) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[id] = cancel
	return ctx
}

func (s *server) cancel(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.running[id]; cancel != nil {
		cancel()
	}
}

func (s *server) run(ctx context.Context, r request) {
	a := answer{ID: r.ID}
	result, err := any(nil), fmt.Errorf("unknown operation %q: is this another version?", r.Op)
	if f := s.ops[r.Op]; f != nil {
		result, err = f(ctx, r.Args, func(v any) error { return s.part(r.ID, v) })
	}
	if err == nil {
		a.Result, err = json.Marshal(result)
	}
	if err != nil {
		a.Error = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[r.ID]()
	delete(s.running, r.ID)
	_ = s.out.Encode(a) // a harness that is gone needs no answer
}

// part writes a part of an answer.
func (s *server) part(id uint64, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Encode(answer{ID: id, Part: raw})
}

// ErrGone is wrapped by the errors of [Client.Call] when the process has ended.
var ErrGone = errors.New("rpc: the process has ended")

// Client is the harness's end of a process. Its methods may be called from several goroutines.
type Client struct {
	mu      sync.Mutex // guards what follows
	in      *json.Encoder
	last    uint64
	waiting map[uint64]*call
	done    chan struct{}
}

// call is one that is waited for.
type call struct {
	answer chan answer // of capacity 1
	part   func(json.RawMessage) error
	err    error // of part, set before answer is used
}

// NewClient talks to a process over its standard input and output. Its goroutine ends when out does.
func NewClient(in io.Writer, out io.Reader) *Client {
	c := &Client{in: json.NewEncoder(in), waiting: make(map[uint64]*call), done: make(chan struct{})}
	go c.read(out)
	return c
}

// Done is closed when the process says no more.
func (c *Client) Done() <-chan struct{} { return c.done }

func (c *Client) read(out io.Reader) {
	defer close(c.done)
	answers := json.NewDecoder(bufio.NewReader(out))
	for {
		var a answer
		if answers.Decode(&a) != nil {
			return
		}
		c.mu.Lock()
		w := c.waiting[a.ID]
		if a.Part == nil {
			delete(c.waiting, a.ID)
		}
		c.mu.Unlock()
		switch {
		case w == nil:
		case a.Part == nil:
			w.answer <- a
		case w.part != nil && w.err == nil:
			w.err = w.part(a.Part)
		}
	}
}

// Call has the process do something, and waits for its result, which is stored in result unless that is nil. When
// ctx ends the process is told to stop, and what it has to say is not waited for.
func (c *Client) Call(ctx context.Context, op string, args, result any) error {
	return c.call(ctx, op, args, &call{answer: make(chan answer, 1)}, result)
}

// CallParts is Call for an operation that tells results one by one. part is called with each in turn, on the goroutine
// that reads for all calls: it must not block. It may still be called after ctx has ended, but not after the process has.
func CallParts[P any](ctx context.Context, c *Client, op string, args any, part func(P)) error {
	w := &call{answer: make(chan answer, 1), part: func(raw json.RawMessage) error {
		var p P
		if err := json.Unmarshal(raw, &p); err != nil {
			return err
		}
		part(p)
		return nil
	}}
	return c.call(ctx, op, args, w, nil)
}

func (c *Client) call(ctx context.Context, op string, args any, w *call, result any) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	c.mu.Lock()
	c.last++
	id := c.last
	c.waiting[id] = w
	err = c.in.Encode(request{ID: id, Op: op, Args: raw})
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w: %w", op, ErrGone, err)
	}
	select {
	case a := <-w.answer:
		return errors.Join(a.unpack(op, result), w.err)
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		if w.part == nil {
			delete(c.waiting, id)
		}
		_ = c.in.Encode(request{ID: id, Op: opCancel}) // a process that is gone has stopped
		return fmt.Errorf("%s: %w", op, ctx.Err())
	case <-c.done:
	}
	select {
	case a := <-w.answer: // its last words
		return errors.Join(a.unpack(op, result), w.err)
	default:
		return fmt.Errorf("%s: %w", op, ErrGone)
	}
}

func (a answer) unpack(op string, result any) error {
	if a.Error != "" {
		return fmt.Errorf("%s: %s", op, a.Error)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return fmt.Errorf("%s: result: %w", op, err)
	}
	return nil
}
