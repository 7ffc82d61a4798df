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
	for _, in := range t.In {
		p.below[t.ID] = append(p.below[t.ID], p.below[in]...)
		if _, known := p.maker[in]; !known {
			return
		}
	}
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
	leaves := slices.Compact(slices.Sorted(slices.Values(p.below[t.ID])))
	at := slices.MinFunc(leaves, func(a, b int) int {
		toA, toB := p.comes(t, a), p.comes(t, b)
		return cmp.Or(cmp.Compare(p.load[a]+toA, p.load[b]+toB), cmp.Compare(toA, toB))
	})
	p.load[at] += p.comes(t, at)
	p.maker[t.ID], t.At = at, &at
	t.Given = !slices.ContainsFunc(t.In, func(in int) bool { return p.maker[in] == at })
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
