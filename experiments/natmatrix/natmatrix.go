// Package natmatrix makes sense of the records of the experiment of that name: it sorts them into cells, one for each pair of
// NAT kinds, and judges these by what RFC 4787 lets one expect. It measures nothing and writes nothing.
package natmatrix

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
)

// Experiment is the name of the experiment.
const Experiment = "nat-matrix"

const (
	between = " x "
	sharing = ", one NAT"
)

// Pair is two NAT kinds whose functions meet. The order does not matter: which side dials is chance.
type Pair struct {
	A, B   lab.Kind
	Shared bool // both are behind one outermost NAT, of kind A
}

// Case is the pair as the records name it.
func (p Pair) Case() string {
	if p.Shared {
		return string(p.A) + sharing
	}
	return string(p.A) + between + string(p.B)
}

// ParseCase is the reverse of [Pair.Case].
func ParseCase(s string) (p Pair, err error) {
	if a, shared := strings.CutSuffix(s, sharing); shared {
		p = Pair{lab.Kind(a), lab.Kind(a), true}
	} else if a, b, two := strings.Cut(s, between); two {
		p = Pair{A: lab.Kind(a), B: lab.Kind(b)}
	} else {
		return p, fmt.Errorf("natmatrix: case %q is no pair of NAT kinds", s)
	}
	_, err = p.Way()
	return p, err
}

// Way is how the two are expected to meet.
func (p Pair) Way() (lab.Way, error) { return lab.Expect(p.A, p.B, p.Shared) }

// Cell is what was measured of a pair.
type Cell struct {
	Pair
	Way lab.Way

	Pairs     int // of functions
	Delivered int // all state, with the right digests
	Direct    int // of those delivered

	// Medians in milliseconds since both began to join, of those delivered and of those direct; NaN if there are none.
	FirstByte, ToDirect float64
	Reasons             []string // why paths are not direct, each once
	Vias                []string // how sender and receiver reach their relays, each once
}

// Cells sorts records of one run, in the order of the cases' first records. Where a measurement was repeated because it had failed,
// the last counts. Records of other experiments are passed over.
func Cells(records []results.Record) ([]Cell, error) {
	last := make(map[string]results.Record)
	var order []string // of keys
	for _, r := range records {
		if r.Experiment != Experiment || r.Skipped {
			continue
		}
		k := r.Key()
		if _, there := last[k]; !there {
			order = append(order, k)
		}
		last[k] = r
	}
	cells := make(map[Pair]*Cell)
	first, direct := make(map[Pair][]float64), make(map[Pair][]float64)
	var pairs []Pair
	for _, k := range order {
		r := last[k]
		p, err := ParseCase(r.Case)
		if err != nil {
			return nil, err
		}
		c := cells[p]
		if c == nil {
			c = &Cell{Pair: p}
			if c.Way, err = p.Way(); err != nil {
				return nil, err
			}
			cells[p] = c
			pairs = append(pairs, p)
		}
		c.add(r)
		if r.OK {
			first[p] = append(first[p], r.Measured["first_byte_ms"])
			if r.Path == pathDirect {
				direct[p] = append(direct[p], r.Measured["direct_ms"])
			}
		}
	}
	out := make([]Cell, 0, len(pairs))
	for _, p := range pairs {
		c := cells[p]
		c.FirstByte, c.ToDirect = results.Median(first[p]), results.Median(direct[p])
		out = append(out, *c)
	}
	return out, nil
}

const pathDirect = "direct"

func (c *Cell) add(r results.Record) {
	c.Pairs++
	if r.Via != "" && !slices.Contains(c.Vias, r.Via) {
		c.Vias = append(c.Vias, r.Via)
	}
	why := cmp.Or(r.Error, r.Reason, "no reason given")
	if r.OK {
		c.Delivered++
		if r.Path == pathDirect {
			c.Direct++
			return
		}
	}
	if !slices.Contains(c.Reasons, why) {
		c.Reasons = append(c.Reasons, why)
	}
}

// Share is the part of the pairs that became direct, 0 to 1.
func (c Cell) Share() float64 { return float64(c.Direct) / float64(c.Pairs) }

// Need is how many pairs must be direct: the target's share, without the pair that it may cut in two.
func (c Cell) Need() int { return int(math.Floor(c.Way.Target()*float64(c.Pairs) + 1e-9)) }

// Miss says what of its targets the cell misses: all delivered, and enough direct; "" if none.
func (c Cell) Miss() string {
	var misses []string
	if c.Delivered < c.Pairs {
		misses = append(misses, fmt.Sprintf("delivered %d of %d", c.Delivered, c.Pairs))
	}
	if c.Direct < c.Need() {
		misses = append(misses, fmt.Sprintf("direct %d of %d, want %d (%s)", c.Direct, c.Pairs, c.Need(), c.Way))
	}
	if len(misses) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %s: %s", c.Case(), strings.Join(misses, ", "), strings.Join(c.Reasons, "; "))
}

// Class is all cells whose pairs meet the same way. For the ways that chance has a part in, its share is what the target is
// really about: a cell of ten pairs says little.
type Class struct {
	Way                             lab.Way
	Cells, Pairs, Delivered, Direct int
}

// Classes adds cells up, in the order of the ways.
func Classes(cells []Cell) []Class {
	var out []Class
	for _, way := range []lab.Way{lab.WayLAN, lab.WayPunch, lab.WayPredict, lab.WayBirthday, lab.WayRelay} {
		k := Class{Way: way}
		for _, c := range cells {
			if c.Way == way {
				k.Cells++
				k.Pairs += c.Pairs
				k.Delivered += c.Delivered
				k.Direct += c.Direct
			}
		}
		if k.Cells > 0 {
			out = append(out, k)
		}
	}
	return out
}

// Met tells whether the class has its target.
func (k Class) Met() bool {
	return k.Delivered == k.Pairs && float64(k.Direct) >= k.Way.Target()*float64(k.Pairs)
}

// String is one line about the class.
func (k Class) String() string {
	s := fmt.Sprintf("%s: %d of %d pairs direct (%.1f %%)", k.Way, k.Direct, k.Pairs, 100*float64(k.Direct)/float64(k.Pairs))
	if k.Way.Target() > 0 {
		s += fmt.Sprintf(", want %.0f %%", 100*k.Way.Target())
	}
	s += fmt.Sprintf("; delivered %d", k.Delivered)
	if !k.Met() {
		s += ": MISSED"
	}
	return s
}

// Judge returns an error that names every cell and every class which misses its target.
func Judge(records []results.Record) error {
	cells, err := Cells(records)
	if err != nil {
		return err
	}
	var misses []string
	for _, c := range cells {
		if m := c.Miss(); m != "" {
			misses = append(misses, m)
		}
	}
	missed := len(misses)
	for _, k := range Classes(cells) {
		if !k.Met() {
			misses = append(misses, k.String())
		}
	}
	if len(misses) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d pairs of NAT kinds miss their target:\n  %s", missed, len(cells), strings.Join(misses, "\n  "))
}
