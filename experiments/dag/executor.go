package dag

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/results"
)

// Event is what a function is invoked with: to run a task, and what comes after it.
type Event struct {
	Run   string `json:"run"`
	Board string `json:"board"` // URL
	// Invoke is the URL at which a function like this one is invoked, by Lambda's Invoke API.
	Invoke   string `json:"invoke,omitempty"`
	Schedule *Graph `json:"schedule"`
	Start    int    `json:"start"`
	// Given has the task's inputs come from others; else it is a leaf.
	Given bool `json:"given,omitempty"`
}

// handOff brings outputs from the function that has made them to the one that takes them.
type handOff interface {
	// begin is told over which edges outputs will go, to the executor and from it, and may prepare for it.
	begin(ctx context.Context, x *executor, to []edge)
	// bring hands the output of the edge over to who runs its task. If that is this executor, it returns the other inputs, by the tasks that
	// have made them, and that of the edge again if it has read it; they end with io.EOF only if they are whole.
	bring(ctx context.Context, e edge) (others map[int]io.Reader, last bool, err error)
	// end is called before the function's handler returns, and the platform freezes it.
	end(ctx context.Context) error
}

// edge is between a task and the one that takes its output.
type edge struct {
	x    *executor
	to   Task
	from int
	more int       // as in Ask
	out  io.Reader // nil, if from is invoked
}

// made is a task whose output goes to the taker: the executor's own, if it has one.
func (e edge) made() int {
	if e.from == invoked {
		return e.to.In[0]
	}
	return e.from
}

// key is of the state that goes over the edge from a task.
func (e edge) key(from int) string { return fmt.Sprintf("%s/%d/%d", e.x.Run, from, e.to.ID) }

// arrive tells the board, and notes as waiting how long that took, if it was to wait.
func (e edge) arrive(ctx context.Context, look, wait bool) (a Answer, err error) {
	if wait {
		defer e.x.span("wait", e.to.ID)()
	}
	return a, e.x.board.post(ctx, "arrive", e.ask(look, wait), &a)
}

func (e edge) ask(look, wait bool) Ask {
	takes := e.from == invoked || e.to.isAt(e.x.Start)
	return Ask{Run: e.x.Run, Task: e.to.ID, From: e.from, Name: e.x.name, More: e.more, Takes: takes, Look: look, Wait: wait}
}

// executor runs the tasks of one event.
type executor struct {
	Event
	name  string // of the function's instance, to the others
	board board
	hand  handOff

	background sync.WaitGroup // of what hand-offs do beside it

	mu     sync.Mutex // guards what follows
	report Report
}

// run runs the event's task, and all that this executor comes to run after it.
func (x *executor) run(ctx context.Context, began time.Time) error {
	running, cancel := context.WithCancel(ctx)
	err := x.start(running)
	cancel()
	x.background.Wait()
	err = errors.Join(err, x.hand.end(ctx))
	x.mu.Lock()
	r := x.report
	x.mu.Unlock()
	r.Run = x.Run
	if err != nil {
		r.Error = fmt.Sprintf("task %d: %v", x.Start, err)
	}
	r.Spans = append(r.Spans, results.Span{Row: x.name, Kind: "function", From: float64(began.UnixNano()), To: float64(time.Now().UnixNano())})
	return errors.Join(err, x.board.post(context.WithoutCancel(ctx), "report", r, &struct{}{}))
}

func (x *executor) start(ctx context.Context) error {
	t, ok := x.Schedule.task(x.Start)
	if !ok {
		return errors.New("is not in the schedule")
	}
	if x.Given {
		return x.forward(ctx, edge{x: x, to: t, from: invoked, more: 1})
	}
	x.hand.begin(ctx, x, x.placed())
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return x.do(ctx, t, nil) })
	for _, t := range x.Schedule.Tasks {
		if t.Given && t.isAt(x.Start) {
			all.Go(func() error { return x.forward(ctx, x.edge(t, invoked, nil)) })
		}
	}
	return all.Wait()
}

// placed are the edges of tasks with places, as far as it is known at the start that outputs go over them to or from this executor.
func (x *executor) placed() (to []edge) {
	mine := map[int]bool{x.Start: true}
	for _, t := range x.Schedule.Tasks {
		i := slices.IndexFunc(t.In, func(in int) bool { return mine[in] })
		here := t.isAt(x.Start)
		mine[t.ID] = mine[t.ID] || here || len(t.In) == 1 && i == 0
		switch {
		case t.At == nil:
		case i >= 0:
			to = append(to, x.edge(t, t.In[i], nil))
		case here:
			to = append(to, x.edge(t, invoked, nil))
		}
	}
	return to
}

// edge is the one to a taker of the output of a task of this executor.
func (x *executor) edge(to Task, from int, out io.Reader) edge {
	e := edge{x: x, to: to, from: from, out: out}
	if to.Given {
		e.more = 1
	}
	return e
}

// do runs a task, and what comes after it.
func (x *executor) do(ctx context.Context, t Task, in []io.Reader) error {
	takers := x.Schedule.takers(t.ID)
	if x.Schedule.DelayMS > 0 || !t.Op.flows() { // else the output is here at once
		var to []edge
		for _, c := range takers {
			if len(c.In) > 1 && c.At == nil {
				to = append(to, x.edge(c, t.ID, nil))
			}
		}
		x.hand.begin(ctx, x, to)
	}
	out, err := x.apply(ctx, t, in)
	if err != nil {
		return err
	}
	switch len(takers) {
	case 0:
		return x.finish(out)
	case 1:
		return x.forward(ctx, x.edge(takers[0], t.ID, out))
	}
	return x.fanOut(ctx, t, takers, out)
}

func (x *executor) apply(ctx context.Context, t Task, in []io.Reader) (io.Reader, error) {
	if x.Schedule.DelayMS > 0 || !t.Op.flows() {
		for i, r := range in { // what takes long begins when all is there, and has no sender wait for it
			b, err := io.ReadAll(r)
			if err != nil {
				return nil, fmt.Errorf("task %d: input %d: %w", t.ID, i, err)
			}
			in[i] = bytes.NewReader(b)
		}
	}
	defer x.span("run", t.ID)()
	if x.Schedule.DelayMS > 0 {
		select {
		case <-time.After(time.Duration(x.Schedule.DelayMS) * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	out, err := x.Schedule.apply(t, in)
	if err != nil {
		return nil, fmt.Errorf("task %d: %w", t.ID, err)
	}
	return out, nil
}

// forward has the output of the edge be taken. The executor becomes that of the task, if nobody else is.
func (x *executor) forward(ctx context.Context, e edge) error {
	if len(e.to.In) == 1 && e.more == 0 {
		return x.do(ctx, e.to, []io.Reader{e.out})
	}
	others, last, err := x.hand.bring(ctx, e)
	if err != nil || !last {
		return err
	}
	in := make([]io.Reader, len(e.to.In))
	for i, from := range e.to.In {
		if in[i] = others[from]; in[i] == nil && from == e.from {
			in[i] = e.out
		}
		if in[i] == nil {
			return fmt.Errorf("task %d lacks the output of %d", e.to.ID, from)
		}
	}
	return x.do(ctx, e.to, in)
}

// fanOut has the output be taken by several. Of those that need nothing else this executor becomes the first; for the others functions are invoked.
func (x *executor) fanOut(ctx context.Context, t Task, takers []Task, out io.Reader) error {
	b, err := io.ReadAll(out)
	if err != nil {
		return err
	}
	became := false
	var all errgroup.Group
	for _, c := range takers {
		e := x.edge(c, t.ID, bytes.NewReader(b))
		if len(c.In) == 1 {
			if became {
				if err := x.invoke(ctx, c); err != nil {
					return errors.Join(err, all.Wait())
				}
				e.more = 1
			}
			became = true
		}
		all.Go(func() error { return x.forward(ctx, e) })
	}
	return all.Wait()
}

// finish keeps the graph's result.
func (x *executor) finish(out io.Reader) error {
	b, err := io.ReadAll(out)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.report.Result, x.report.At = b, time.Now().UnixNano()
	return nil
}

// invoke has another function run a task, without waiting for it.
func (x *executor) invoke(ctx context.Context, t Task) error {
	e := x.Event
	e.Schedule, e.Start, e.Given = x.Schedule.Schedule(t.ID), t.ID, true
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := x.board.post(ctx, "call", Call{x.Run}, &struct{}{}); err != nil {
		return err
	}
	if err := post(ctx, x.board.http, x.Invoke, http.Header{"X-Amz-Invocation-Type": {"Event"}}, body, nil); err != nil {
		return fmt.Errorf("invoke for task %d: %w", t.ID, err)
	}
	return nil
}

// span notes what the executor does from now until the function that it returns is called.
func (x *executor) span(kind string, task int) (end func()) {
	from := time.Now().UnixNano()
	return func() {
		s := results.Span{Row: x.name, Kind: kind, Name: fmt.Sprint(task), From: float64(from), To: float64(time.Now().UnixNano())}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.report.Spans = append(x.report.Spans, s)
	}
}

// later returns a reader of what get returns, which runs at once: so the executor can go on to where it brings its own output, and
// needs the input only when that is read.
func (x *executor) later(get func() (io.Reader, error)) io.Reader {
	l := &late{come: make(chan struct{})}
	x.background.Go(func() {
		defer close(l.come)
		l.r, l.err = get()
	})
	return l
}

type late struct {
	come chan struct{} // closed when the rest is set
	r    io.Reader
	err  error
}

// Read implements io.Reader.
func (l *late) Read(b []byte) (int, error) {
	if <-l.come; l.err != nil {
		return 0, l.err
	}
	return l.r.Read(b)
}

// until returns r with end called once, when r has ended, and what end says of it then as its end.
func until(r io.Reader, end func(error) error) io.Reader { return &watched{r: r, end: end} }

type watched struct {
	r   io.Reader
	end func(error) error
	err error
}

// Read implements io.Reader.
func (w *watched) Read(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.r.Read(b)
	if err != nil {
		w.err = cmp.Or(w.end(err), err)
	}
	return n, w.err
}

const maxSaid = 1 << 10 // bytes of an error that is shown

// post posts JSON, and reads the answer, unless read is nil.
func post(ctx context.Context, c *http.Client, url string, header http.Header, body []byte, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("dag: %w", err)
	}
	for name, values := range header {
		req.Header[name] = slices.Clone(values)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("dag: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, maxSaid)) // what there is of it
		return fmt.Errorf("dag: %s: %s: %s", req.URL.Path, resp.Status, bytes.TrimSpace(said))
	}
	if read == nil {
		read = func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	}
	if err := read(resp.Body); err != nil {
		return fmt.Errorf("dag: %s: %w", req.URL.Path, err)
	}
	return nil
}
