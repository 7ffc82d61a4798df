package report

import (
	"fmt"
	"math"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/wan"
)

// calibrate adds what the records tell of the network that was emulated: a table, and a warning of each figure that was off in any of
// them, and of measurements that were marked.
func (s *section) calibrate(rs []results.Record) {
	t := table{Title: "Calibration of the emulated network", Head: []string{"what", "unit", "set", "measured", "off, %"}}
	measured := make(map[string][]float64)
	worst := make(map[string]results.Check)
	var order, marks []string
	marked := make(map[string]int)
	seen := make(map[string]bool) // a calibration is in all records of its run
	for _, r := range rs {
		for _, m := range r.Marks {
			if marked[m]++; marked[m] == 1 {
				marks = append(marks, m)
			}
		}
		for _, c := range r.Calibration {
			figure := fmt.Sprint(c)
			if seen[figure] {
				continue
			}
			seen[figure] = true
			w, there := worst[c.What]
			if !there {
				order = append(order, c.What)
			}
			if !there || c.Bad() && !w.Bad() || c.Bad() == w.Bad() && math.Abs(c.Off()) > math.Abs(w.Off()) {
				worst[c.What] = c
			}
			measured[c.What] = append(measured[c.What], c.Measured)
		}
	}
	for _, what := range order {
		c := worst[what]
		t.Rows = append(t.Rows, []cell{{Text: what}, {Text: c.Unit}, {Text: FormatNumber(c.Set), Number: true}, summary(measured[what]),
			{Text: fmt.Sprintf("%+.1f", 100*c.Off()), Number: true}})
		if c.Bad() {
			s.Warnings = append(s.Warnings, fmt.Sprintf("calibration is off: %s: set to %s %s, measured %s", what, FormatNumber(c.Set), c.Unit, FormatNumber(c.Measured)))
		}
	}
	for _, m := range marks {
		s.Warnings = append(s.Warnings, fmt.Sprintf("%s (%d of %d measurements)", m, marked[m], len(rs)))
	}
	if len(t.Rows) > 0 {
		s.Calibration = &t
	}
	if p, err := wan.FindProfile(rs[0].Settings["profile"]); err == nil && p.Name != wan.None {
		s.Network = append([]string{p.Name + ": " + p.Meaning}, p.Sources...)
	}
}
