package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/workload"
)

type table struct {
	Title string
	Head  []string
	Rows  [][]cell
}

type cell struct {
	Text   string
	Spread string // below it: from the least to the most, or an interval
	Class  string // "better" or "worse"
	Number bool
	Wrap   bool // a text that may be long
}

const fixedColumns = 4

// newTable has a row for each case and path, and a column for each value that any record has.
func newTable(title string, rs []results.Record, values func(results.Record) map[string]float64) table {
	t := table{Title: title, Head: []string{"case", "path", "ok", "bytes"}}
	type row struct {
		rs []results.Record
		ok int
	}
	rows := make(map[[2]string]*row)
	var order [][2]string
	columns := make(map[string]bool)
	for _, r := range rs {
		if r.Skipped {
			continue
		}
		k := [2]string{r.Case, r.Path}
		if rows[k] == nil {
			rows[k] = &row{}
			order = append(order, k)
		}
		rows[k].rs = append(rows[k].rs, r)
		if r.OK {
			rows[k].ok++
		}
		for name := range values(r) {
			columns[name] = true
		}
	}
	slices.SortStableFunc(order, func(a, b [2]string) int { return cmp.Compare(a[0], b[0]) })
	names := slices.Sorted(maps.Keys(columns))
	t.Head = append(t.Head, names...)
	for _, k := range order {
		r := rows[k]
		cells := []cell{
			{Text: k[0]}, {Text: cmp.Or(k[1], "none")}, {Text: fmt.Sprintf("%d of %d", r.ok, len(r.rs)), Number: true},
			{Text: workload.FormatBytes(r.rs[0].Bytes), Number: true},
		}
		for _, name := range names {
			var v []float64
			for _, rec := range r.rs {
				if x, there := values(rec)[name]; there && rec.OK {
					v = append(v, x)
				}
			}
			cells = append(cells, summary(v))
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

func summary(v []float64) cell {
	if len(v) == 0 {
		return cell{Text: "", Number: true}
	}
	c := cell{Text: FormatNumber(results.Median(v)), Number: true}
	if len(v) > 1 {
		c.Spread = FormatNumber(slices.Min(v)) + " to " + FormatNumber(slices.Max(v))
	}
	return c
}

// FormatNumber writes v with three digits or more.
func FormatNumber(v float64) string {
	a := math.Abs(v)
	switch {
	case a == 0 || a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
