package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/natmatrix"
	"github.com/fnwire/fnwire/experiments/results"
)

// matrix is what a run of nat-matrix shows, as heat maps of one hue each: the lightness alone tells the value, so they can be read in
// print and by the colour-blind.
type matrix struct {
	Classes []string
	Ways    []string // of the classes, with their meaning
	Maps    []heatMap
	NotAll  table // the cells of which not all pairs were direct, and why
	Misses  int
}

// heatMap shows one value of each pair of kinds.
type heatMap struct {
	Title  string
	Kinds  []string
	Rows   [][]heat // by the order of kinds, both ways
	Shared []heat   // behind one NAT
}

type heat struct {
	Label string // of the pair
	Text  string // the value; "" if there is none
	Note  string
	Back  string // colours
	Ink   string
	Miss  bool
}

// value is the text, marked if the pair misses its target.
func (h heat) value() string {
	if h.Miss && h.Text != "" {
		return h.Text + "!"
	}
	return h.Text
}

// newMatrix returns nil if the records are of another experiment.
func newMatrix(rs []results.Record) *matrix {
	if rs[0].Experiment != natmatrix.Experiment {
		return nil
	}
	cells, err := natmatrix.Cells(rs)
	if err != nil || len(cells) == 0 {
		return nil // no such cases as the experiment makes: the plain tables show them
	}
	m := &matrix{NotAll: table{
		Title: "Pairs that were not all direct", Head: []string{"pair", "direct", "expected", "relay reached by", "why"},
	}}
	for _, k := range natmatrix.Classes(cells) {
		m.Classes = append(m.Classes, k.String())
		m.Ways = append(m.Ways, string(k.Way)+": "+k.Way.Meaning())
	}
	for _, c := range cells {
		if c.Miss() != "" {
			m.Misses++
		}
		if c.Direct < c.Pairs {
			m.NotAll.Rows = append(m.NotAll.Rows, []cell{
				{Text: c.Case()}, {Text: fmt.Sprintf("%d of %d", c.Direct, c.Pairs), Number: true}, {Text: string(c.Way)},
				{Text: strings.Join(c.Vias, ", ")}, {Text: strings.Join(c.Reasons, "; "), Wrap: true},
			})
		}
	}
	slices.SortFunc(m.NotAll.Rows, func(a, b []cell) int { return strings.Compare(a[0].Text, b[0].Text) })
	kinds := kindOrder(rs[0].Settings["nats"], cells)
	m.Maps = []heatMap{
		newHeatMap("Direct, % of pairs", kinds, cells, func(c natmatrix.Cell) (float64, string) {
			return c.Share(), fmt.Sprintf("%.0f", 100*c.Share())
		}),
		newHeatMap("Time to first byte, ms (median, from the start of joining)", kinds, cells, logTime(cells, func(c natmatrix.Cell) float64 { return c.FirstByte })),
		newHeatMap("Time to direct path, ms (median, from the start of joining)", kinds, cells, logTime(cells, func(c natmatrix.Cell) float64 { return c.ToDirect })),
	}
	return m
}

// kindOrder is the order of the setting, then whatever else the cells have.
func kindOrder(setting string, cells []natmatrix.Cell) []lab.Kind {
	var kinds []lab.Kind
	add := func(k lab.Kind) {
		if !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	for s := range strings.SplitSeq(setting, ",") {
		if k, err := lab.ParseKind(strings.TrimSpace(s)); err == nil && hasKind(cells, k) {
			add(k)
		}
	}
	for _, c := range cells {
		if !c.Shared {
			add(c.A)
			add(c.B)
		}
	}
	return kinds
}

func hasKind(cells []natmatrix.Cell, k lab.Kind) bool {
	return slices.ContainsFunc(cells, func(c natmatrix.Cell) bool { return !c.Shared && (c.A == k || c.B == k) })
}

// newHeatMap makes a map of values, each from 0 (light) to 1 (dark) with its text; NaN is no value.
func newHeatMap(title string, kinds []lab.Kind, cells []natmatrix.Cell, value func(natmatrix.Cell) (float64, string)) heatMap {
	h := heatMap{Title: title}
	for _, k := range kinds {
		h.Kinds = append(h.Kinds, string(k))
	}
	show := func(c natmatrix.Cell) heat {
		v, text := value(c)
		out := heat{Label: c.Case(), Miss: c.Miss() != "", Note: string(c.Way)}
		if !math.IsNaN(v) {
			out.Text = text
			out.Back, out.Ink = shade(v)
		}
		return out
	}
	for _, a := range kinds {
		row := make([]heat, 0, len(kinds))
		for _, b := range kinds {
			i := slices.IndexFunc(cells, func(c natmatrix.Cell) bool {
				return !c.Shared && (c.A == a && c.B == b || c.A == b && c.B == a)
			})
			if i < 0 {
				row = append(row, heat{})
				continue
			}
			row = append(row, show(cells[i]))
		}
		h.Rows = append(h.Rows, row)
	}
	for _, c := range cells {
		if c.Shared {
			h.Shared = append(h.Shared, show(c))
		}
	}
	slices.SortFunc(h.Shared, func(a, b heat) int { return strings.Compare(a.Label, b.Label) })
	return h
}

// logTime spreads times by their logarithms between the least and the most.
func logTime(cells []natmatrix.Cell, of func(natmatrix.Cell) float64) func(natmatrix.Cell) (float64, string) {
	least, most := math.Inf(1), math.Inf(-1)
	for _, c := range cells {
		if v := of(c); !math.IsNaN(v) {
			least, most = min(least, max(v, 1)), max(most, v, 1)
		}
	}
	return func(c natmatrix.Cell) (float64, string) {
		v := of(c)
		if math.IsNaN(v) {
			return v, ""
		}
		if most == least {
			return 0, FormatNumber(v)
		}
		return math.Log(max(v, 1)/least) / math.Log(most/least), FormatNumber(v)
	}
}

// shade is a blue from almost white to dark, and an ink that can be read on it.
func shade(v float64) (back, ink string) {
	light, dark := [3]float64{240, 246, 252}, [3]float64{8, 64, 129}
	v = min(max(v, 0), 1)
	c := [3]int{}
	for i := range c {
		c[i] = int(math.Round(light[i] + (dark[i]-light[i])*v))
	}
	ink = "#111"
	if v > 0.68 { // where white begins to have the greater contrast
		ink = "#fff"
	}
	return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]), ink
}
