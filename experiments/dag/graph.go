package dag

import (
	"errors"
	"fmt"
	"slices"
)

// MaxTasks is how many tasks a graph may have.
const MaxTasks = 1 << 12

// Task is one step of a graph: an operation on the outputs of other tasks.
type Task struct {
	ID int   `json:"id"`
	Op Op    `json:"op"`
	In []int `json:"in,omitempty"` // the tasks whose outputs it takes, in this order; each has a lower ID. None: it is a leaf
	Lo int   `json:"lo,omitempty"` // what a leaf makes: the numbers, or the rows, from Lo up to Hi
	Hi int   `json:"hi,omitempty"`

	At    *int `json:"at,omitempty"`    // the leaf whose executor runs it, see Placed; nil: who is last
	Given bool `json:"given,omitempty"` // that executor has none of the inputs
}

// Graph is a directed acyclic graph of tasks with one that nobody takes the output of: the result. It, or the part of it that a function
// needs, travels as JSON.
type Graph struct {
	Name  string `json:"name"`
	Tasks []Task `json:"tasks"` // by ID, which grows

	DelayMS int    `json:"delay_ms,omitempty"` // that each task takes longer, as if it had more to do
	Elems   int    `json:"elems,omitempty"`    // of each value of a tree, which is as many numbers of 8 bytes
	Cols    int    `json:"cols,omitempty"`     // of the matrix
	Seed    uint64 `json:"seed,omitempty"`     // of the matrix
}

// Tree is a reduction: the numbers 0 to n-1, each of them a vector of elems numbers, are summed by leaves that have per of them, and
// those sums by tasks that have fanIn inputs at most. It is "TR" of G. Jin and others' Wukong papers (PDSW 2019, SoCC 2020), where
// n is 1,024, and per and fanIn are 2.
func Tree(n, per, fanIn, elems int) (*Graph, error) {
	if n < 1 || per < 1 || elems < 1 {
		return nil, errors.New("dag: a tree of nothing")
	}
	g := &Graph{Name: "tree", Elems: elems}
	for lo := 0; lo < n; lo += per {
		g.add(Task{Op: Numbers, Lo: lo, Hi: min(lo+per, n)})
	}
	return g, g.reduce(Sum, fanIn)
}

// TSQR is the singular values of a matrix with many rows and few columns ("SVD1" of the same papers; Demmel and others, Communication-optimal
// parallel and sequential QR, 2012): each leaf factors a block of rows, and the factors R are stacked and factored, fanIn of them at a time. Each
// block has rows rows, of which there must be as many as columns at least.
func TSQR(blocks, rows, cols, fanIn int, seed uint64) (*Graph, error) {
	if blocks < 1 || cols < 1 || rows < cols {
		return nil, fmt.Errorf("dag: %d blocks of %d x %d: want one at least, with as many rows as columns at least", blocks, rows, cols)
	}
	g := &Graph{Name: "tsqr", Cols: cols, Seed: seed}
	for b := range blocks {
		g.add(Task{Op: Block, Lo: b * rows, Hi: (b + 1) * rows})
	}
	if err := g.reduce(Stack, fanIn); err != nil {
		return nil, err
	}
	g.add(Task{Op: Values, In: []int{g.result().ID}})
	return g, g.Check()
}

func (g *Graph) add(t Task) int {
	t.ID = len(g.Tasks)
	g.Tasks = append(g.Tasks, t)
	return t.ID
}

// reduce adds levels of tasks until one output is left.
func (g *Graph) reduce(op Op, fanIn int) error {
	if fanIn < 2 {
		return fmt.Errorf("dag: fan-in %d: want 2 or more", fanIn)
	}
	level := make([]int, 0, len(g.Tasks))
	for _, t := range g.Tasks {
		level = append(level, t.ID)
	}
	for len(level) > 1 {
		var next []int
		for part := range slices.Chunk(level, fanIn) {
			if len(part) == 1 { // nothing to do, a level up
				next = append(next, part[0])
				continue
			}
			next = append(next, g.add(Task{Op: op, In: slices.Clone(part)}))
		}
		level = next
	}
	return g.Check()
}

// Check tells what is wrong with g, if anything.
func (g *Graph) Check() error {
	switch {
	case len(g.Tasks) == 0:
		return errors.New("dag: no tasks")
	case len(g.Tasks) > MaxTasks:
		return fmt.Errorf("dag: %d tasks: want at most %d", len(g.Tasks), MaxTasks)
	}
	taken := make(map[int]bool)
	seen := make(map[int]bool)
	last := -1
	for _, t := range g.Tasks {
		if t.ID <= last {
			return fmt.Errorf("dag: task %d after task %d: want growing IDs", t.ID, last)
		}
		if err := t.check(seen); err != nil {
			return fmt.Errorf("dag: task %d: %w", t.ID, err)
		}
		for _, in := range t.In {
			taken[in] = true
		}
		seen[t.ID], last = true, t.ID
	}
	for _, t := range g.Tasks[:len(g.Tasks)-1] {
		if !taken[t.ID] {
			return fmt.Errorf("dag: nobody takes what task %d makes", t.ID)
		}
	}
	return nil
}

func (t Task) check(before map[int]bool) error {
	for i, in := range t.In {
		if !before[in] {
			return fmt.Errorf("takes the output of %d, which is no task before it", in)
		}
		if slices.Contains(t.In[:i], in) {
			return fmt.Errorf("takes the output of %d twice", in)
		}
	}
	return t.Op.check(len(t.In))
}

// isAt tells whether the task is placed at a leaf.
func (t Task) isAt(leaf int) bool { return t.At != nil && *t.At == leaf }

// result is the task whose output is the graph's.
func (g *Graph) result() Task { return g.Tasks[len(g.Tasks)-1] }

// Leaves are the tasks that take nothing.
func (g *Graph) Leaves() (leaves []Task) {
	for _, t := range g.Tasks {
		if len(t.In) == 0 {
			leaves = append(leaves, t)
		}
	}
	return leaves
}

// task returns the task of an ID; false if g has none.
func (g *Graph) task(id int) (Task, bool) {
	i, found := slices.BinarySearchFunc(g.Tasks, id, func(t Task, id int) int { return t.ID - id })
	if !found {
		return Task{}, false
	}
	return g.Tasks[i], true
}

// takers are the tasks that take the output of one.
func (g *Graph) takers(id int) (all []Task) {
	for _, t := range g.Tasks {
		if slices.Contains(t.In, id) {
			all = append(all, t)
		}
	}
	return all
}

// Schedule is what a function needs that starts at a task: that task and those that depend on it, which it may come to run. It is the static
// schedule of a leaf in Wukong. A schedule is no graph that can be checked: it lacks the tasks of others.
func (g *Graph) Schedule(start int) *Graph {
	out := *g
	out.Tasks = nil
	reached := map[int]bool{start: true}
	for _, t := range g.Tasks {
		if t.ID != start && !slices.ContainsFunc(t.In, func(in int) bool { return reached[in] }) {
			continue
		}
		reached[t.ID] = true
		out.Tasks = append(out.Tasks, t)
	}
	return &out
}
