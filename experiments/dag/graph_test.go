package dag_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/fnwire/fnwire/experiments/dag"
)

func ExampleTree() {
	g, err := dag.Tree(1024, 2, 2, 1)
	if err != nil {
		panic(err)
	}
	fmt.Println(len(g.Leaves()), "leaves,", len(g.Tasks), "tasks,", len(g.Schedule(0).Tasks), "of them in the schedule of a leaf")
	// Output:
	// 512 leaves, 1023 tasks, 10 of them in the schedule of a leaf
}

// local runs a graph here, one task after the other.
func local(t *testing.T, g *dag.Graph) []float64 {
	t.Helper()
	made := make(map[int][]byte)
	var last []byte
	for _, task := range g.Tasks {
		var in []io.Reader
		for _, from := range task.In {
			in = append(in, iotest(made[from]))
		}
		out, err := g.Apply(task, in)
		if err != nil {
			t.Fatal(err)
		}
		if last, err = io.ReadAll(out); err != nil {
			t.Fatal(err)
		}
		made[task.ID] = last
	}
	return dag.Decode(last)
}

// iotest has a reader give out odd pieces.
func iotest(b []byte) io.Reader { return &odd{b: b, n: 1} }

type odd struct {
	b []byte
	n int
}

func (o *odd) Read(p []byte) (int, error) {
	if len(o.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(o.n, len(p))], o.b)
	o.b, o.n = o.b[n:], o.n*3%1000+1
	return n, nil
}

func TestGraphs(t *testing.T) {
	for _, c := range []struct {
		name string
		make func() (*dag.Graph, error)
	}{
		{"pairs", func() (*dag.Graph, error) { return dag.Tree(1024, 2, 2, 1) }},
		{"odd", func() (*dag.Graph, error) { return dag.Tree(7, 1, 2, 3) }},
		{"wide", func() (*dag.Graph, error) { return dag.Tree(100, 7, 5, 1000) }},
		{"one", func() (*dag.Graph, error) { return dag.Tree(5, 5, 2, 2) }},
		{"vectors", func() (*dag.Graph, error) { return dag.Tree(16, 4, 2, 20_000) }},
		{"tsqr", func() (*dag.Graph, error) { return dag.TSQR(8, 40, 7, 2, 1) }},
		{"tsqr-wide", func() (*dag.Graph, error) { return dag.TSQR(5, 12, 12, 4, 2) }},
		{"tsqr-column", func() (*dag.Graph, error) { return dag.TSQR(6, 4, 1, 3, 2) }},
		{"tsqr-one", func() (*dag.Graph, error) { return dag.TSQR(1, 3, 2, 2, 3) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := c.make()
			if err != nil {
				t.Fatal(err)
			}
			want, tolerance, err := g.Expected()
			if err != nil {
				t.Fatal(err)
			}
			if err := dag.Same(local(t, g), want, tolerance); err != nil {
				t.Error(err)
			}
			for _, leaf := range g.Leaves() {
				s := g.Schedule(leaf.ID)
				if s.Tasks[0].ID != leaf.ID || s.Tasks[len(s.Tasks)-1].ID != g.Tasks[len(g.Tasks)-1].ID {
					t.Errorf("the schedule of %d goes from %d to %d", leaf.ID, s.Tasks[0].ID, s.Tasks[len(s.Tasks)-1].ID)
				}
			}
		})
	}
}

// Placed tasks have the line that takes in most take in as little as can be: two vectors in a tree of pairs, rather than one for each level.
func TestPlaced(t *testing.T) {
	const vector = 100_000 // numbers
	sums := func(in ...[]int) (tasks []dag.Task) {
		for _, in := range in {
			tasks = append(tasks, dag.Task{ID: len(tasks) + 4, Op: dag.Sum, In: in})
		}
		return tasks
	}
	leaves := []dag.Task{{ID: 0, Op: dag.Numbers}, {ID: 1, Op: dag.Numbers}, {ID: 2, Op: dag.Numbers}, {ID: 3, Op: dag.Numbers}}
	graph := func(tasks []dag.Task) func() (*dag.Graph, error) {
		g := &dag.Graph{Elems: vector, Tasks: slices.Concat(leaves, tasks)}
		return func() (*dag.Graph, error) { return g, g.Check() }
	}
	slow := must(t)(dag.Tree(8, 1, 2, vector))
	slow.DelayMS = 1
	for _, c := range []struct {
		name          string
		make          func() (*dag.Graph, error)
		placed, given int
		most          int // inputs that one takes in
	}{
		{"pairs", func() (*dag.Graph, error) { return dag.Tree(64, 1, 2, vector) }, 63, 15, 2},
		{"three", func() (*dag.Graph, error) { return dag.Tree(27, 1, 3, vector) }, 13, 4, 3},
		{"small", func() (*dag.Graph, error) { return dag.Tree(64, 1, 2, 1) }, 0, 0, 0},
		{"slow", func() (*dag.Graph, error) { return slow, nil }, 0, 0, 0},
		{"tsqr", func() (*dag.Graph, error) { return dag.TSQR(8, 256, 256, 2, 1) }, 7, 1, 2},
		{"one after the other", graph(sums([]int{0, 1}, []int{4}, []int{2, 5}, []int{3, 6})), 3, 0, 1},
		{"one has two", graph(sums([]int{0, 1}, []int{0, 1}, []int{0, 1}, []int{4, 6}, []int{2, 3, 5, 7})), 3, 0, 2},
		{"by one of several", graph(sums([]int{0, 1}, []int{4}, []int{4}, []int{2, 5}, []int{3, 6}, []int{7, 8})), 1, 0, 1}, // a function is invoked for 5 or 6
	} {
		t.Run(c.name, func(t *testing.T) {
			g := must(t)(c.make())
			before := len(g.Tasks)
			p := g.Placed()
			placed, given := 0, 0
			takes := make(map[int]int)
			maker := make(map[int]int)
			for i, task := range p.Tasks {
				switch {
				case len(task.In) == 0:
					maker[task.ID] = task.ID
				case len(task.In) == 1:
					maker[task.ID] = maker[task.In[0]]
				}
				if task.At == nil {
					continue
				}
				placed++
				if task.Given {
					given++
				}
				has := 0
				for _, in := range task.In {
					if maker[in] == *task.At {
						has++
					}
				}
				if g.Tasks[i].At != nil || task.Given != (has == 0) || !slices.ContainsFunc(p.Schedule(*task.At).Tasks, func(o dag.Task) bool { return o.ID == task.ID }) {
					t.Errorf("task %d is at %d, given %v; it has %d of the inputs", task.ID, *task.At, task.Given, has)
				}
				takes[*task.At] += len(task.In) - has
				maker[task.ID] = *task.At
			}
			most := 0
			for _, n := range takes {
				most = max(most, n)
			}
			if placed != c.placed || given != c.given || most != c.most || len(g.Tasks) != before {
				t.Errorf("%d are placed, %d where no input is, and one takes in %d; want %d, %d, %d", placed, given, most, c.placed, c.given, c.most)
			}
		})
	}
}

// An output flows: some of it can be read when as much of each input has come.
func TestFlows(t *testing.T) {
	const half = 16 << 10
	g := &dag.Graph{Elems: 2 * half / 8, Cols: 100}
	for _, op := range []dag.Op{dag.Sum, dag.Stack} {
		var in []io.Reader
		var rest []*io.PipeWriter
		for range 3 {
			r, w := io.Pipe()
			in, rest = append(in, io.MultiReader(bytes.NewReader(make([]byte, half)), r)), append(rest, w)
		}
		out, err := g.Apply(dag.Task{Op: op}, in)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadAtLeast(out, make([]byte, half), 1); err != nil || n%8 != 0 {
			t.Errorf("%s: %d bytes, %v", op, n, err)
		}
		for _, w := range rest {
			_ = w.CloseWithError(io.ErrClosedPipe)
		}
		if _, err := io.Copy(io.Discard, out); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: an input that breaks off: %v", op, err)
		}
	}
}

// Factors of less than full rank, and numbers that are none, go through as they do in any factorization.
func TestStackRank(t *testing.T) {
	g := &dag.Graph{Cols: 3}
	stack := func(in ...[]float64) []float64 {
		var r []io.Reader
		for _, v := range in {
			b := make([]byte, 0, 48)
			for _, x := range v {
				b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
			}
			r = append(r, bytes.NewReader(b))
		}
		out, err := g.Apply(dag.Task{Op: dag.Stack}, r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		return dag.Decode(b)
	}
	a := []float64{3, 1, 0, 2, 0, 0} // of rank 2
	for i, x := range stack(a, make([]float64, 6), a) {
		if want := math.Sqrt2 * a[i]; math.Abs(math.Abs(x)-want) > 1e-12 {
			t.Errorf("number %d is %v, want %v", i, x, want)
		}
	}
	for i, x := range stack(make([]float64, 6), []float64{math.NaN(), 1, 1, 1, 1, 1}) {
		if !math.IsNaN(x) && i < 3 {
			t.Errorf("number %d is %v, beside one that is none", i, x)
		}
	}
}

func TestSame(t *testing.T) {
	if dag.Same([]float64{1}, []float64{1, 2}, 1) == nil || dag.Same([]float64{2, 1.1}, []float64{2, 1}, 0.01) == nil {
		t.Error("another result is the same")
	}
	if err := dag.Same([]float64{2, 1.01}, []float64{2, 1}, 0.01); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	leaf := dag.Task{Op: dag.Numbers, Hi: 1}
	for name, tasks := range map[string][]dag.Task{
		"nothing":          nil,
		"order":            {{ID: 1, Op: dag.Numbers}, {ID: 0, Op: dag.Numbers}},
		"cycle":            {leaf, {ID: 1, Op: dag.Sum, In: []int{0, 2}}, {ID: 2, Op: dag.Sum, In: []int{0, 1}}},
		"twice":            {leaf, {ID: 1, Op: dag.Sum, In: []int{0, 0}}},
		"nobody takes":     {leaf, {ID: 1, Op: dag.Numbers}},
		"no operation":     {{Op: "x"}},
		"leaf with inputs": {leaf, {ID: 1, Op: dag.Block, In: []int{0}}},
		"sum of nothing":   {{Op: dag.Sum}},
		"too many":         slices.Repeat([]dag.Task{leaf}, dag.MaxTasks+1),
	} {
		if err := (&dag.Graph{Tasks: tasks}).Check(); err == nil {
			t.Errorf("%s: is right", name)
		}
	}
	for name, err := range map[string]error{
		"fan-in 1": second(dag.Tree(4, 1, 1, 1)), "no numbers": second(dag.Tree(0, 1, 2, 1)), "flat": second(dag.TSQR(2, 3, 4, 2, 1)),
	} {
		if err == nil {
			t.Errorf("%s: is right", name)
		}
	}
}

func second(_ *dag.Graph, err error) error { return err }

// Inputs that are not what they should be are errors, and nothing is made of them.
func TestInputs(t *testing.T) {
	g := &dag.Graph{Elems: 2, Cols: 2}
	number := make([]byte, 8)
	for name, c := range map[string]struct {
		op dag.Op
		in [][]byte
	}{
		"lengths":  {dag.Sum, [][]byte{make([]byte, 16), number}},
		"part":     {dag.Sum, [][]byte{make([]byte, 12), make([]byte, 12)}},
		"short":    {dag.Stack, [][]byte{make([]byte, 24), make([]byte, 23)}},
		"too long": {dag.Stack, [][]byte{make([]byte, 24), make([]byte, 25)}},
		"long":     {dag.Values, [][]byte{make([]byte, 25)}},
		"no value": {dag.Values, [][]byte{{}}},
	} {
		var in []io.Reader
		for _, b := range c.in {
			in = append(in, bytes.NewReader(b))
		}
		out, err := g.Apply(dag.Task{Op: c.op}, in)
		if err == nil {
			_, err = io.ReadAll(out)
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzGraph: a graph that is right can be cut into schedules, and run in order.
func FuzzGraph(f *testing.F) {
	for _, fanIn := range []int{2, 3} {
		g, err := dag.Tree(9, 2, fanIn, 1)
		if err != nil {
			f.Fatal(err)
		}
		b, err := json.Marshal(g)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"tasks": [{"id": 0, "op": "numbers", "hi": 2}, {"id": 5, "op": "sum", "in": [0]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var g dag.Graph
		if json.Unmarshal(b, &g) != nil || g.Check() != nil {
			return
		}
		if placed := g.Placed(); placed.Check() != nil {
			t.Fatal("what is right is not when it is placed")
		}
		done := make(map[int]bool)
		for _, task := range g.Tasks {
			for _, in := range task.In {
				if !done[in] {
					t.Fatalf("task %d comes before %d", task.ID, in)
				}
			}
			done[task.ID] = true
			s := g.Schedule(task.ID)
			if len(s.Tasks) == 0 || s.Tasks[0].ID != task.ID {
				t.Fatalf("the schedule of %d is %+v", task.ID, s.Tasks)
			}
		}
	})
}
