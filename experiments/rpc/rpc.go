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
//	answer   {"id": 7, "result": {...}} or {"id": 7, "error": "..."}
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
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Op is one thing that a process can do.
type Op func(ctx context.Context, args json.RawMessage) (any, error)

// Handle makes an Op of a function with typed arguments and result.
func Handle[A, R any](f func(context.Context, A) (R, error)) Op {
	return func(ctx context.Context, args json.RawMessage) (any, error) {
		var a A
		if len(args) > 0 {
			if err := json.Unmarshal(args, &a); err != nil {
				return nil, fmt.Errorf("arguments: %w", err)
			}
		}
		return f(ctx, a)
	}
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
		result, err = f(ctx, r.Args)
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

// ErrGone is wrapped by the errors of [Client.Call] when the process has ended.
var ErrGone = errors.New("rpc: the process has ended")

// Client is the harness's end of a process. Its methods may be called from several goroutines.
type Client struct {
	mu      sync.Mutex // guards what follows
	in      *json.Encoder
	last    uint64
	waiting map[uint64]chan answer
	done    chan struct{}
}

// NewClient talks to a process over its standard input and output. Its goroutine ends when out does.
func NewClient(in io.Writer, out io.Reader) *Client {
	c := &Client{in: json.NewEncoder(in), waiting: make(map[uint64]chan answer), done: make(chan struct{})}
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
		ch := c.waiting[a.ID]
		delete(c.waiting, a.ID)
		c.mu.Unlock()
		if ch != nil {
			ch <- a
		}
	}
}

// Call has the process do something, and waits for its result, which is stored in result unless that is nil. When
// ctx ends the process is told to stop, and what it has to say is not waited for.
func (c *Client) Call(ctx context.Context, op string, args, result any) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	ch := make(chan answer, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.waiting[id] = ch
	err = c.in.Encode(request{ID: id, Op: op, Args: raw})
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w: %w", op, ErrGone, err)
	}
	select {
	case a := <-ch:
		return a.unpack(op, result)
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, id)
		_ = c.in.Encode(request{ID: id, Op: opCancel}) // a process that is gone has stopped
		return fmt.Errorf("%s: %w", op, ctx.Err())
	case <-c.done:
	}
	select {
	case a := <-ch: // its last words
		return a.unpack(op, result)
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
