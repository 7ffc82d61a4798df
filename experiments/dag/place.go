package dag

import (
	"cmp"
	"slices"
)

// Placed returns g with the tasks that flow, and take in outputs of more than Small, placed: each at the leaf below it whose executor takes in least for
// all that is placed there. If who is last ran them, as in Wukong, it would take in one output more at each level, while those that have sent theirs
// take in nothing. It is for ways over which outputs flow through all levels at once: what takes time then is the line of who takes in most.
func (g *Graph) Placed() *Graph {
	out := *g
	out.Tasks = slices.Clone(g.Tasks)
	if g.DelayMS > 0 { // nothing flows
		return &out
	}
	p := places{g: g, maker: make(map[int]int), below: make(map[int][]int), load: make(map[int]int64)}
	for i := range out.Tasks {
		p.place(&out.Tasks[i])
	}
	return &out
}

// places are those of tasks so far.
type places struct {
	g     *Graph
	maker map[int]int   // at which leaf a task is run, if it is known
	below map[int][]int // the leaves on which a task depends
	load  map[int]int64 // bytes that come to a leaf's executor
}

// place notes where a task is run, and says so in it if that is not where its only input is, nor with who is last.
func (p *places) place(t *Task) {
	if len(t.In) == 0 {
		p.maker[t.ID], p.below[t.ID] = t.ID, []int{t.ID}
		return
	}
	makers := make(map[int]bool)
	var below []int
	for _, in := range t.In {
		below = append(below, p.below[in]...)
		maker, known := p.maker[in]
		if !known || makers[maker] { // who has two inputs would have to hand one over to itself
			return
		}
		makers[maker] = true
	}
	slices.Sort(below)
	below = slices.Compact(below)
	p.below[t.ID] = below
	first := t.In[0]
	switch {
	case len(t.In) == 1:
		if len(p.g.takers(first)) == 1 { // else a function may be invoked for it
			p.maker[t.ID] = p.maker[first]
		}
		return
	case !t.Op.flows() || p.g.size(first) <= Small:
		return
	}
	at := slices.MinFunc(below, func(a, b int) int {
		toA, toB := p.comes(t, a), p.comes(t, b)
		return cmp.Or(cmp.Compare(p.load[a]+toA, p.load[b]+toB), cmp.Compare(toA, toB))
	})
	p.load[at] += p.comes(t, at)
	p.maker[t.ID], t.At = at, &at
	t.Given = !makers[at]
}

// comes is how many bytes would come from others if a task were run at a leaf.
func (p *places) comes(t *Task, leaf int) (n int64) {
	for _, in := range t.In {
		if p.maker[in] != leaf {
			n += p.g.size(in)
		}
	}
	return n
}
