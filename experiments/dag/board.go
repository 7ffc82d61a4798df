package dag

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/fnwire/fnwire/experiments/results"
)

// Limits of what a board takes.
const (
	maxAsk    = 1 << 20   // bytes of an arrival or an announcement
	maxReport = 128 << 20 // of a report, which may have the result
	maxName   = 64
)

// Board is where the functions of a run learn who comes last at a fan-in, and leave their results: what a small metadata server does in
// Wukong. It is an http.Handler, and keeps one run. All methods are safe for concurrent use.
//
//	POST /announce  []Ask  -> []Answer  the others who are on their way to those tasks
//	POST /arrive    Ask    -> Answer    see Ask
//	POST /call      Call   -> {}        before another function is invoked
//	POST /report    Report -> {}
//
// Requests and answers are JSON. Those of a run that is no more are refused with 410.
type Board struct {
	mux *http.ServeMux

	mu    sync.Mutex // guards what follows
	run   string     // empty: none
	graph *Graph
	tasks map[int]*fanIn
	open  int           // executors that have not reported
	done  chan struct{} // closed when they have, or when one has failed
	err   error         // of the first that failed
	got   Outcome
}

// Outcome is what came of a run.
type Outcome struct {
	Result []byte
	At     int64 // when the function that has made it had the last byte, in nanoseconds since 1970
	Spans  []results.Span
	Calls  int // invocations
}

// fanIn is a task that several wait for.
type fanIn struct {
	coming  []comer        // who is on the way
	here    map[int]string // who has arrived, by the task whose output it has
	takes   string         // who runs it, if it was said before
	taker   string
	settled chan struct{} // closed when there is a taker
}

// comer is an executor that is on its way to a task.
type comer struct {
	name  string
	takes bool
}

// Ask is an executor that has, or will have, the output of one task for another.
type Ask struct {
	Run  string `json:"run"`
	Task int    `json:"task"` // that takes it
	From int    `json:"from"` // that makes it; -1 is the executor that was invoked to run the task
	Name string `json:"name"` // the executor's
	// More is how many arrive beside those with inputs: 1 if an executor was invoked to run the task, which it then does.
	More int `json:"more,omitempty"`
	// Takes has it run the task, whoever is last.
	Takes bool `json:"takes,omitempty"`
	// Look has it arrive only if all others have, and it runs the task then. Wait has the answer come when the last one has arrived.
	Look bool `json:"look,omitempty"`
	Wait bool `json:"wait,omitempty"`
}

// Answer is what it is told.
type Answer struct {
	Last   bool           `json:"last,omitempty"`   // all have arrived, and it runs the task
	Others map[int]string `json:"others,omitempty"` // then: who has the other inputs
	Taker  string         `json:"taker,omitempty"`  // who runs it otherwise; empty: not all have arrived
	Coming []string       `json:"coming,omitempty"` // after an announcement: who is to be linked with; of a task that has a place who runs it, or to that one all others
}

// Report is the last word of an executor.
type Report struct {
	Run    string         `json:"run"`
	Error  string         `json:"error,omitempty"`
	Result []byte         `json:"result,omitempty"` // if it has made it
	At     int64          `json:"at,omitempty"`
	Spans  []results.Span `json:"spans,omitempty"` // with times in nanoseconds since 1970
}

// Call is an executor that is about to invoke another function.
type Call struct {
	Run string `json:"run"`
}

var errNoRun = errors.New("dag: no such run")

// NewBoard returns a board without a run.
func NewBoard() *Board {
	b := &Board{mux: http.NewServeMux()}
	b.mux.HandleFunc("POST /announce", serve(maxAsk, func(_ context.Context, all []Ask) ([]Answer, error) { return b.announce(all) }))
	b.mux.HandleFunc("POST /arrive", serve(maxAsk, b.arrive))
	b.mux.HandleFunc("POST /call", serve(maxAsk, func(_ context.Context, c Call) (struct{}, error) { return struct{}{}, b.call(c) }))
	b.mux.HandleFunc("POST /report", serve(maxReport, func(_ context.Context, r Report) (struct{}, error) { return struct{}{}, b.report(r) }))
	return b
}

// ServeHTTP implements http.Handler.
func (b *Board) ServeHTTP(w http.ResponseWriter, r *http.Request) { b.mux.ServeHTTP(w, r) }

// serve answers requests of at most limit bytes with f.
func serve[A, R any](limit int64, f func(context.Context, A) (R, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var a A
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit)).Decode(&a); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := f(r.Context(), a)
		switch {
		case errors.Is(err, errNoRun):
			http.Error(w, err.Error(), http.StatusGone)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer) // who asked has gone
		}
	}
}

// Begin begins a run of a graph with a function for each of its leaves, and ends the one before.
func (b *Board) Begin(run string, g *Graph) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.run, b.graph, b.tasks = run, g, make(map[int]*fanIn)
	b.open, b.done, b.err, b.got = len(g.Leaves()), make(chan struct{}), nil, Outcome{Calls: len(g.Leaves())}
}

// Wait waits until all functions of the run have reported, or one has failed, and returns what came of it.
func (b *Board) Wait(ctx context.Context) (Outcome, error) {
	b.mu.Lock()
	done := b.done
	b.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("dag: %w", ctx.Err())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.run = ""
	if b.err == nil && b.got.At == 0 {
		b.err = errors.New("dag: all functions have ended, and none with the result")
	}
	return b.got, b.err
}

// Fail ends the run with an error that a function could not report itself.
func (b *Board) Fail(run string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if run == b.run {
		b.failLocked(err)
	}
}

// failLocked does nothing to a run that is over: an invocation may fail after its function has reported, as when the harness is interrupted.
func (b *Board) failLocked(err error) {
	if !b.overLocked() {
		b.err = err
		close(b.done)
	}
}

func (b *Board) overLocked() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// taskLocked returns what is known of a task that an executor asks about.
func (b *Board) taskLocked(a Ask) (*fanIn, Task, error) {
	if err := b.isLocked(a.Run); err != nil {
		return nil, Task{}, err
	}
	t, ok := b.graph.task(a.Task)
	if !ok || a.Name == "" || len(a.Name) > maxName || a.More < 0 || a.More > 1 || !slices.Contains(t.In, a.From) && !(a.From == invoked && a.More == 1) {
		return nil, t, fmt.Errorf("dag: %.64q has not the output of task %d for task %d", a.Name, a.From, a.Task)
	}
	f := b.tasks[a.Task]
	if f == nil {
		f = &fanIn{here: make(map[int]string), settled: make(chan struct{})}
		b.tasks[a.Task] = f
	}
	return f, t, nil
}

// announce notes who is on the way, and returns who was before.
func (b *Board) announce(all []Ask) ([]Answer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range all { // before any of it is noted
		if _, _, err := b.taskLocked(a); err != nil {
			return nil, err
		}
	}
	answers := make([]Answer, len(all))
	for i, a := range all {
		f, t, _ := b.taskLocked(a)
		for _, c := range f.coming {
			if t.At == nil || c.takes != a.Takes {
				answers[i].Coming = append(answers[i].Coming, c.name)
			}
		}
		if len(f.coming) <= len(t.In) { // and one that has no input
			f.coming = append(f.coming, comer{a.Name, a.Takes})
		}
	}
	return answers, nil
}

func (b *Board) arrive(ctx context.Context, a Ask) (Answer, error) {
	b.mu.Lock()
	f, t, err := b.taskLocked(a)
	if err == nil && (f.taker != "" || f.here[a.From] != "") {
		err = fmt.Errorf("dag: %.64q arrives at task %d with the output of %d, which is there", a.Name, a.Task, a.From)
	}
	if err != nil {
		b.mu.Unlock()
		return Answer{}, err
	}
	last := len(f.here) == len(t.In)+a.More-1
	if !a.Look || last && a.More == 0 {
		f.here[a.From] = a.Name
		if a.Takes {
			f.takes = a.Name
		}
	}
	if len(f.here) == len(t.In)+a.More {
		f.taker = cmp.Or(f.takes, a.Name)
		close(f.settled)
	}
	done := b.done
	b.mu.Unlock()
	if a.Wait {
		select {
		case <-f.settled:
		case <-done:
			return Answer{}, fmt.Errorf("%w: it has failed", errNoRun)
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
	}
	return b.answer(f, a), nil
}

// answer tells who has arrived how it stands.
func (b *Board) answer(f *fanIn, a Ask) Answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.taker == "" || f.taker != a.Name || f.here[a.From] != a.Name {
		return Answer{Taker: f.taker}
	}
	others := maps.Clone(f.here)
	delete(others, a.From)
	return Answer{Last: true, Others: others}
}

// isLocked tells whether a run is the board's.
func (b *Board) isLocked(run string) error {
	if run == "" || run != b.run {
		return fmt.Errorf("%w: %.40q", errNoRun, run)
	}
	return nil
}

func (b *Board) call(c Call) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.isLocked(c.Run); err != nil {
		return err
	}
	if b.got.Calls == MaxTasks {
		return fmt.Errorf("dag: more than %d functions", MaxTasks)
	}
	b.got.Calls++
	b.open++
	return nil
}

func (b *Board) report(r Report) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.isLocked(r.Run); err != nil {
		return err
	}
	b.got.Spans = append(b.got.Spans, r.Spans...)
	if r.At > 0 {
		b.got.Result, b.got.At = r.Result, r.At
	}
	if r.Error != "" {
		b.failLocked(errors.New(r.Error))
	}
	if b.open--; b.open == 0 && !b.overLocked() {
		close(b.done)
	}
	return nil
}

// invoked is the input of a task that is the executor itself, which was invoked to run it.
const invoked = -1

// board is an executor's way to the Board.
type board struct {
	url  string
	http *http.Client
}

func (b board) post(ctx context.Context, what string, ask, answer any) error {
	body, err := json.Marshal(ask)
	if err != nil {
		return fmt.Errorf("dag: %s: %w", what, err)
	}
	return post(ctx, b.http, b.url+"/"+what, nil, body, func(r io.Reader) error { return json.NewDecoder(r).Decode(answer) })
}
