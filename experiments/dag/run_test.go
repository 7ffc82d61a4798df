package dag_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/dag"
	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/file"
)

// place is where functions of a test run: each event has one of its own, in this process.
type place struct {
	t     *testing.T
	board *dag.Board
	url   string // of the board
	at    string // where functions are invoked
	store store.Store
	all   sync.WaitGroup
	mu    sync.Mutex // guards errs and n
	errs  []error
	n     int
}

func newPlace(t *testing.T) *place {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	s, err := file.Open(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, board: dag.NewBoard(), store: s}
	boards := httptest.NewServer(p.board)
	calls := httptest.NewServer(http.HandlerFunc(p.invoke))
	p.url, p.at = boards.URL, calls.URL
	t.Cleanup(func() {
		p.all.Wait()
		calls.Close()
		boards.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *place) invoke(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("X-Amz-Invocation-Type") != "Event" {
		p.t.Errorf("%v, %v", r.Header, err)
	}
	p.start(r.Context(), b)
	w.WriteHeader(http.StatusAccepted)
}

func (p *place) start(ctx context.Context, event []byte) {
	p.mu.Lock()
	p.n++
	f := dag.OverStore(fmt.Sprint("f", p.n), p.store)
	p.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	p.all.Go(func() {
		var e dag.Event
		err := json.Unmarshal(event, &e)
		if err == nil {
			err = f.Handle(ctx, e)
		}
		err = errors.Join(err, f.Close())
		p.mu.Lock()
		defer p.mu.Unlock()
		p.errs = append(p.errs, err)
	})
}

func (p *place) run(g *dag.Graph) (dag.Outcome, error) {
	p.t.Helper()
	p.board.Begin("r", g)
	for _, leaf := range g.Leaves() {
		b, err := json.Marshal(dag.Event{Run: "r", Board: p.url, Invoke: p.at, Schedule: g.Schedule(leaf.ID), Start: leaf.ID})
		if err != nil {
			p.t.Fatal(err)
		}
		p.start(p.t.Context(), b)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	return p.board.Wait(ctx)
}

func TestRun(t *testing.T) {
	for name, g := range map[string]*dag.Graph{
		"tree": must(t)(dag.Tree(64, 2, 2, 5)), "wide": must(t)(dag.Tree(40, 3, 4, 10_000)), "one": must(t)(dag.Tree(3, 3, 2, 1)),
		"tsqr": must(t)(dag.TSQR(9, 16, 5, 3, 1)),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			out, err := p.run(g)
			if err != nil {
				t.Fatal(err)
			}
			want, tolerance, err := g.Expected()
			if err != nil {
				t.Fatal(err)
			}
			if err := dag.Same(dag.Decode(out.Result), want, tolerance); err != nil {
				t.Error(err)
			}
			runs, sent, received := 0, 0, 0
			for _, s := range out.Spans {
				switch s.Kind {
				case "run":
					runs++
				case "send":
					sent++
				case "receive":
					received++
				}
			}
			if leaves := len(g.Leaves()); runs != len(g.Tasks) || received > sent || received < leaves-1-(sent-received) || sent >= leaves+len(g.Tasks) || out.Calls != leaves {
				t.Errorf("%d runs of %d tasks, %d sent, %d received, %d calls", runs, len(g.Tasks), sent, received, out.Calls)
			}
		})
	}
}

func must(t *testing.T) func(*dag.Graph, error) *dag.Graph {
	t.Helper()
	return func(g *dag.Graph, err error) *dag.Graph {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
}

// What several need, they all get: one in the function that has it, others in functions that are invoked for it.
func TestFanOut(t *testing.T) {
	g := &dag.Graph{Name: "diamond", Elems: 3, Tasks: []dag.Task{
		{ID: 0, Op: dag.Numbers, Hi: 4}, {ID: 1, Op: dag.Sum, In: []int{0}}, {ID: 2, Op: dag.Sum, In: []int{0}}, {ID: 3, Op: dag.Sum, In: []int{0}},
		{ID: 4, Op: dag.Sum, In: []int{0, 1, 2, 3}},
	}}
	if err := g.Check(); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t)
	out, err := p.run(g)
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := g.Expected() // of the leaf, which comes four times
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		want[i] *= 4
	}
	if err := dag.Same(dag.Decode(out.Result), want, 0); err != nil || out.Calls != 3 || want[0] != 24 || want[1] == want[2] {
		t.Errorf("%v, %d calls", err, out.Calls)
	}
}

// The first error ends a run, for all.
func TestFailure(t *testing.T) {
	p := newPlace(t)
	g := must(t)(dag.Tree(8, 1, 2, 1))
	g.Tasks[5].Op = "broken"
	_, err := p.run(g)
	if err == nil || !strings.Contains(err.Error(), `"broken"`) {
		t.Errorf("%v", err)
	}
	p.all.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, err := range p.errs {
		if err != nil && !strings.Contains(err.Error(), "broken") && !strings.Contains(err.Error(), "410") {
			t.Error(err)
		}
	}
}

func TestBoardRefuses(t *testing.T) {
	b := dag.NewBoard()
	g := must(t)(dag.Tree(4, 1, 4, 1))
	b.Begin("r", g)
	ask := func(what, body string) (int, string) {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+what, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	for body, want := range map[string]int{
		`{`:                           http.StatusBadRequest,
		`{"run": "other", "task": 4}`: http.StatusGone,
		`{"run": "", "task": 4}`:      http.StatusGone,
		`{"run": "r", "task": 9}`:     http.StatusBadRequest,
		`{"run": "r", "task": 4}`:     http.StatusBadRequest, // without a name
		`{"run": "r", "task": 3, "from": 1, "name": "x"}`:                                  http.StatusBadRequest, // takes nothing
		`{"run": "r", "task": 4, "from": 4, "name": "x"}`:                                  http.StatusBadRequest,
		`{"run": "r", "task": 4, "from": -1, "name": "x"}`:                                 http.StatusBadRequest,
		`{"run": "r", "task": 4, "from": 1, "more": 2, "name": "x"}`:                       http.StatusBadRequest,
		`{"run": "r", "task": 4, "from": 1, "name": "` + strings.Repeat("x", 65) + `"}`:    http.StatusBadRequest,
		`{"run": "r", "task": 4, "from": 1, "name": "` + strings.Repeat("x", 2<<20) + `"}`: http.StatusBadRequest,
	} {
		for what, body := range map[string]string{"arrive": body, "announce": "[" + body + "]"} {
			if got, said := ask(what, body); got != want {
				t.Errorf("%s %.60s: %d %s, want %d", what, body, got, said, want)
			}
		}
	}
	if got, said := ask("arrive", `{"run": "r", "task": 4, "from": 1, "name": "a"}`); got != http.StatusOK || said != "{}\n" {
		t.Errorf("%d %s", got, said)
	}
	if got, _ := ask("arrive", `{"run": "r", "task": 4, "from": 1, "name": "b"}`); got != http.StatusBadRequest {
		t.Errorf("arrives a second time: %d", got)
	}
	if got, said := ask("arrive", `{"run": "r", "task": 4, "from": 0, "name": "b", "look": true}`); got != http.StatusOK || said != "{}\n" {
		t.Errorf("%d %s", got, said)
	}
	for i, name := range []string{"b", "", "c", "d"} {
		if name == "" {
			continue
		}
		_, said := ask("arrive", fmt.Sprintf(`{"run": "r", "task": 4, "from": %d, "name": %q, "look": %v}`, i, name, i == 3))
		if last := strings.Contains(said, `"last":true,"others":{"0":"b","1":"a","2":"c"}`); last != (i == 3) {
			t.Errorf("%d: %s", i, said)
		}
	}
	b.Begin("r", g)
	for i, name := range []string{"a", "b", "c", "d"} { // b has said that it takes it
		_, said := ask("arrive", fmt.Sprintf(`{"run": "r", "task": 4, "from": %d, "name": %q, "takes": %v}`, i, name, i == 1))
		if want := map[bool]string{false: "{}\n", true: `{"taker":"b"}` + "\n"}[i == 3]; said != want {
			t.Errorf("%d: %s", i, said)
		}
	}
	b.Fail("other", errors.New("of another"))
	b.Fail("r", errors.New("told"))
	b.Fail("r", errors.New("told again"))
	if _, err := b.Wait(t.Context()); err == nil || err.Error() != "told" {
		t.Error(err)
	}
	if got, _ := ask("report", `{"run": "r"}`); got != http.StatusGone {
		t.Errorf("a run that is over: %d", got)
	}
}

// TestAnnounced: of tasks with places, all who will hand over to one another learn of each other at the start, each pair once, and others do not.
func TestAnnounced(t *testing.T) {
	for name, g := range map[string]*dag.Graph{
		"tree": must(t)(dag.Tree(64, 2, 2, 10_000)).Placed(), "wide": must(t)(dag.Tree(40, 3, 4, 10_000)).Placed(), "tsqr": must(t)(dag.TSQR(8, 256, 256, 2, 1)).Placed(),
		"last": must(t)(dag.Tree(64, 2, 2, 10_000)),
	} {
		want := make(map[string]int)
		at := make(map[int]int)
		for _, task := range g.Tasks {
			switch at[task.ID] = task.ID; {
			case len(task.In) == 1:
				at[task.ID] = at[task.In[0]]
			case task.At != nil:
				at[task.ID] = *task.At
				for _, in := range task.In {
					if at[in] != *task.At {
						want[fmt.Sprint(task.ID, min(at[in], *task.At), max(at[in], *task.At))]++
					}
				}
			}
		}
		b := dag.NewBoard()
		b.Begin("r", g)
		got := make(map[string]int)
		for _, leaf := range g.Leaves() {
			asks := g.Announced(leaf.ID)
			body, err := json.Marshal(asks)
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			b.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/announce", bytes.NewReader(body)))
			var answers []dag.Answer
			if err := json.Unmarshal(w.Body.Bytes(), &answers); err != nil || len(answers) != len(asks) {
				t.Fatalf("%s: %s: %d %s", name, body, w.Code, w.Body)
			}
			for i, a := range answers {
				for _, other := range a.Coming { // who has announced itself before, so it is a leaf of a lower ID
					got[fmt.Sprintf("%d %s %d", asks[i].Task, other, leaf.ID)]++
				}
			}
		}
		if !maps.Equal(got, want) || (name == "last") != (len(want) == 0) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// FuzzBoard: whatever is asked, the board answers.
func FuzzBoard(f *testing.F) {
	f.Add("arrive", []byte(`{"run": "r", "task": 2, "from": 1, "name": "a"}`), []byte(`{"run": "r", "task": 2, "from": 0, "name": "b", "look": true}`))
	f.Add("report", []byte(`{"run": "r", "at": 1}`), []byte(`{"run": "r", "error": "x", "spans": [{}]}`))
	f.Add("call", []byte(`{"run": "r"}`), []byte(`{"run": "r"}`))
	f.Add("announce", []byte(`[{"run": "r", "task": 2, "from": -1, "more": 1, "name": "a"}]`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, what string, first, second []byte) {
		b := dag.NewBoard()
		g, err := dag.Tree(2, 1, 2, 1)
		if err != nil {
			t.Fatal(err)
		}
		b.Begin("r", g)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // who waits gives up
		for _, body := range [][]byte{first, second} {
			req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(body))
			req.URL.Path = "/" + what
			w := httptest.NewRecorder()
			b.ServeHTTP(w, req)
			if w.Code >= 500 {
				t.Errorf("%s %s: %d %s", what, body, w.Code, w.Body)
			}
		}
	})
}

// TestOver: what comes after the end of a run, before anybody has asked how it ended, changes nothing.
func TestOver(t *testing.T) {
	b := dag.NewBoard()
	g := must(t)(dag.Tree(4, 1, 4, 1))
	b.Begin("r", g)
	post := func(what, body string) {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/"+what, strings.NewReader(body)))
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", what, w.Code, w.Body)
		}
	}
	for range g.Leaves() {
		post("report", `{"run": "r", "at": 1}`)
	}
	b.Fail("r", errors.New("too late"))
	post("call", `{"run": "r"}`)
	post("report", `{"run": "r", "error": "too late as well"}`)
	if _, err := b.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}
