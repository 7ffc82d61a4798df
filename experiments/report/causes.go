package report

import (
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/results"
)

// newCauses compares ways of which each is slowWay without some of its causes ("wukong3-rate-early") with the one that has one cause more,
// if that was measured, so that it shows what each cause costs. It returns nil if the records have nothing of that.
func newCauses(s *section, c comparison, rs []results.Record) *answer {
	c.what += ", by what each cause of " + slowWay + " costs"
	a := &answer{comparison: c, Section: s}
	if c.experiment != s.Experiment {
		return nil
	}
	var ways []string
	for _, r := range rs {
		if r.Work != "" && strings.HasPrefix(r.Way, slowWay+"-") && !slices.Contains(ways, r.Way) {
			ways = append(ways, r.Way)
		}
	}
	slices.SortFunc(ways, wayOrder)
	a.Table = table{Title: a.Title(), Head: []string{"", slowWay}}
	for _, way := range ways {
		from := before(way, ways)
		a.Table.Head = append(a.Table.Head, "without "+strings.ReplaceAll(strings.TrimPrefix(way, from+"-"), "-", ", ")+", beside "+from)
	}
	for _, work := range works(rs) {
		all := make(map[string]measure)
		for _, m := range c.measures(rs, work) {
			all[m.way] = m
		}
		base := all[slowWay]
		if len(base.values) == 0 {
			continue
		}
		cells := []cell{{Text: work}, a.shown(base)}
		for _, way := range ways {
			of, to := all[way], all[before(way, ways)]
			switch {
			case of.tried == 0:
				cells = append(cells, cell{})
			case len(of.values) == 0 || len(to.values) == 0:
				cells = append(cells, a.shown(of))
			default:
				key := s.Experiment + "\x00" + work + "\x00" + c.value
				shown := a.cell(c.compare(of, to, key))
				shown.Spread = a.format(of.median()) + "; " + shown.Spread
				if to.way != slowWay {
					shown.Spread += "; in all " + a.words(c.compare(of, base, key).ratio)
				}
				cells = append(cells, shown)
			}
		}
		a.Table.Rows = append(a.Table.Rows, cells)
	}
	if len(ways) == 0 || len(a.Table.Rows) == 0 {
		return nil
	}
	a.Verdict = "Each column takes one cause away, and compares with what it was before; “in all” is beside " + slowWay + " with all of them."
	a.models, a.Notes = a.notes(rs)
	return a
}

// before is the longest of the ways that a way goes on from.
func before(way string, ways []string) string {
	from := slowWay
	for _, w := range ways {
		if strings.HasPrefix(way, w+"-") && len(w) > len(from) {
			from = w
		}
	}
	return from
}
