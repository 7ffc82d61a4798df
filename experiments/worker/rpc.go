package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

const opCancel = "cancel"

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

// op is one thing that a worker can do.
type op func(ctx context.Context, args json.RawMessage) (any, error)

// handle makes an op of a function with typed arguments and result.
func handle[A, R any](f func(context.Context, A) (R, error)) op {
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

// serve answers requests until in ends, each in a goroutine of its own. Then it cancels those that are
// left and waits for them.
func serve(ctx context.Context, in io.Reader, out io.Writer, ops map[string]op) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{ops: ops, out: json.NewEncoder(out), running: make(map[uint64]context.CancelFunc)}
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
			return fmt.Errorf("worker: request: %w", err)
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
	ops map[string]op

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
var ErrGone = errors.New("worker: the process has ended")

// Client is the harness's end of a worker. Its methods may be called from several goroutines.
type Client struct {
	mu      sync.Mutex // guards what follows
	in      *json.Encoder
	last    uint64
	waiting map[uint64]chan answer
	done    chan struct{}
}

// NewClient talks to a worker over its standard input and output. Its goroutine ends when out does.
func NewClient(in io.Writer, out io.Reader) *Client {
	c := &Client{in: json.NewEncoder(in), waiting: make(map[uint64]chan answer), done: make(chan struct{})}
	go c.read(out)
	return c
}

// Done is closed when the worker says no more.
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

// Call has the worker do something, and waits for its result, which is stored in result unless that is nil. When
// ctx ends the worker is told to stop, and what it has to say is not waited for.
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
		_ = c.in.Encode(request{ID: id, Op: opCancel}) // a worker that is gone has stopped
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
