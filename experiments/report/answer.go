package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/results"
)

// answer is how fnwire compares, by one value, at all works of a section.
type answer struct {
	comparison
	Section *section
	Verdict string // in a sentence
	Table   table
	Notes   []string // what to know beside it
	models  []string // the notes that tell of models
	rows    []answerRow
}

// answerRow is one work.
type answerRow struct {
	work   string
	fnwire measure
	rival  *ratio // to the best store or, if none was measured, the best of all others; nil if fnwire or they have no value
	ratios []ratio
}

// Title says what is compared, where.
func (a answer) Title() string { return a.Section.Title + ": " + a.what }

// rivalName is what the column of the rivals is called.
func (a answer) rivalName() string {
	for _, r := range a.rows {
		if r.rival != nil && !isStore(r.rival.to.way) {
			return "best other"
		}
	}
	return "best store"
}

// newAnswer returns nil if the records have nothing to compare by c.
func newAnswer(s *section, c comparison, rs []results.Record) *answer {
	a := &answer{comparison: c, Section: s}
	if c.experiment != "" && c.experiment != s.Experiment {
		return nil
	}
	var ways []string
	for _, work := range works(rs) {
		all := c.measures(rs, work)
		i := slices.IndexFunc(all, func(m measure) bool { return m.way == reference })
		others := slices.ContainsFunc(all, func(m measure) bool { return !isOwn(m.way) })
		if i < 0 || !others || !slices.ContainsFunc(all, func(m measure) bool { return len(m.values) > 0 }) {
			continue
		}
		row := answerRow{work: work, fnwire: all[i]}
		all = slices.Delete(all, i, i+1)
		slices.SortFunc(all, func(a, b measure) int { return wayOrder(a.way, b.way) })
		best := c.rival(all)
		for _, m := range all {
			r := ratio{of: row.fnwire, to: m, ratio: math.NaN()}
			if len(row.fnwire.values) > 0 && len(m.values) > 0 {
				r = c.compare(row.fnwire, m, s.Experiment+"\x00"+work+"\x00"+c.value)
				if best != nil && m.way == best.way {
					row.rival = &r
				}
			}
			row.ratios = append(row.ratios, r)
			if !slices.Contains(ways, m.way) {
				ways = append(ways, m.way)
			}
		}
		a.rows = append(a.rows, row)
	}
	if len(a.rows) == 0 {
		return nil
	}
	slices.SortFunc(ways, wayOrder)
	a.Verdict = a.verdictText()
	a.Table = a.newTable(ways)
	a.models, a.Notes = a.notes(rs)
	return a
}

// rival is the best store or, if there is none, the best of all others.
func (c comparison) rival(others []measure) *measure {
	if best := c.bestOf(others, isStore); best != nil {
		return best
	}
	return c.bestOf(others, func(way string) bool { return !isOwn(way) })
}

// works are what the records' ways have done, small ones first.
func works(rs []results.Record) []string {
	bytes := make(map[string]int64)
	for _, r := range rs {
		if b, there := bytes[r.Work]; r.Work != "" && r.Way != "" && (!there || r.Bytes > b) {
			bytes[r.Work] = r.Bytes
		}
	}
	return sortedKeys(bytes, func(a, b string) int { return cmp.Or(cmp.Compare(bytes[a], bytes[b]), natural(a, b)) })
}

// newTable has a row for each work, with fnwire, its rival, and then all other ways.
func (a *answer) newTable(ways []string) table {
	t := table{Title: a.Title(), Head: []string{"", reference, a.rivalName()}}
	modelled := make(map[string]bool)
	for _, row := range a.rows {
		for _, r := range row.ratios {
			modelled[r.to.way] = modelled[r.to.way] || r.to.modelled
		}
	}
	for _, way := range ways {
		if modelled[way] && !strings.Contains(way, "model") {
			way += " (modelled)"
		}
		t.Head = append(t.Head, way)
	}
	for _, row := range a.rows {
		cells := []cell{{Text: row.work}, a.shown(row.fnwire), {}}
		if row.rival != nil {
			cells[2] = a.cell(*row.rival)
			cells[2].Spread = row.rival.to.way + "; " + cells[2].Spread
		}
		for _, way := range ways {
			i := slices.IndexFunc(row.ratios, func(r ratio) bool { return r.to.way == way })
			switch {
			case i < 0:
				cells = append(cells, cell{})
			case len(row.ratios[i].to.values) == 0:
				cells = append(cells, a.shown(row.ratios[i].to))
			case math.IsNaN(row.ratios[i].ratio):
				cells = append(cells, cell{})
			default:
				cells = append(cells, a.cell(row.ratios[i]))
			}
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

// value shows a median, or that there is none.
func (a *answer) shown(m measure) cell {
	if len(m.values) == 0 {
		return cell{Text: "none", Spread: fmt.Sprintf("failed: %d", m.tried), Class: "worse"}
	}
	return cell{Text: a.format(m.median()), Spread: "n " + m.count()}
}

// count tells how many repetitions count, and how many failed or are marked, if any.
func (m measure) count() string {
	s := fmt.Sprint(len(m.values))
	if m.tried > len(m.values) {
		s += fmt.Sprintf(" of %d", m.tried)
	}
	if m.marked > 0 {
		s += fmt.Sprintf(" (%d‡)", m.marked)
	}
	return s
}

// format writes a value with its unit.
func (c comparison) format(v float64) string {
	switch {
	case c.value == costValue:
		return formatDollars(v)
	case strings.HasSuffix(c.value, "_ms"):
		return FormatNumber(v) + " ms"
	case strings.Contains(c.value, "mbps"):
		return FormatNumber(v) + " Mbit/s"
	case strings.Contains(c.value, "cpu_s_per_gb"):
		return FormatNumber(v) + " s/GB"
	}
	return FormatNumber(v)
}

// formatDollars writes a cost by the million, as the cost of one is next to nothing.
func formatDollars(v float64) string { return "$" + FormatNumber(1e6*v) + " a million" }

// cell shows a ratio.
func (a *answer) cell(r ratio) cell {
	c := cell{Text: a.words(r.ratio), Class: map[verdict]string{faster: "better", slower: "worse"}[r.verdict()]}
	n := "n " + r.of.count() + ", " + r.to.count()
	switch r.verdict() {
	case unknown:
		c.Spread = "no interval; " + n
	case even:
		c.Text = "unclear"
		if r.low >= 1/sameWithin && r.high <= sameWithin {
			c.Text = "≈ same"
		}
		fallthrough
	default:
		c.Spread = a.interval(r) + "; " + n
	}
	return c
}

// sameWithin bounds the interval of what is called the same.
const sameWithin = 1.15

// words says how many times better or worse.
func (c comparison) words(ratio float64) string {
	if ratio >= 1 {
		return formatRatio(ratio) + " × " + c.better
	}
	return formatRatio(1/ratio) + " × " + c.worse
}

// interval has the bounds that belong to words.
func (c comparison) interval(r ratio) string {
	few := ""
	if r.few() {
		few = "†"
	}
	switch r.verdict() {
	case faster:
		return formatRatio(r.low) + " to " + formatRatio(r.high) + few
	case slower:
		return formatRatio(1/r.high) + " to " + formatRatio(1/r.low) + few
	}
	return c.words(r.low) + " to " + c.words(r.high) + few
}

func formatRatio(v float64) string {
	switch {
	case v >= 1e4:
		return fmt.Sprintf("%.2g", v)
	case v >= 10:
		return fmt.Sprintf("%.0f", v)
	case v >= 2:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// verdictText is the answer in a sentence: how often fnwire is better than its rival, worse, and neither.
func (a *answer) verdictText() string {
	by := make(map[verdict][]answerRow)
	none := 0
	for _, row := range a.rows {
		if row.rival == nil {
			none++
			continue
		}
		v := row.rival.verdict()
		by[v] = append(by[v], row)
	}
	var parts []string
	add := func(v verdict, format string) {
		if rows := by[v]; len(rows) > 0 {
			parts = append(parts, fmt.Sprintf(format, len(rows), len(a.rows), a.list(rows)))
		}
	}
	add(faster, a.better+" in %d of %d (%s)")
	add(slower, a.worse+" in %d of %d (%s)")
	add(even, "not told apart in %d of %d (%s)")
	add(unknown, "too few repetitions for an interval in %d of %d (%s)")
	if none > 0 {
		parts = append(parts, fmt.Sprintf("no ratio in %d of %d, since measurements failed or are missing", none, len(a.rows)))
	}
	return fmt.Sprintf("Beside the %s, fnwire: %s.", a.rivalName(), strings.Join(parts, "; "))
}

const mostListed = 4 // works in a sentence

// list names works with their ratios.
func (a *answer) list(rows []answerRow) string {
	var out []string
	for i, row := range rows {
		if i == mostListed && len(rows) > mostListed+1 {
			least, most := math.Inf(1), math.Inf(-1)
			for _, r := range rows[i:] {
				least, most = min(least, r.rival.ratio), max(most, r.rival.ratio)
			}
			out = append(out, fmt.Sprintf("%d more: %s to %s", len(rows)-i, a.words(least), a.words(most)))
			break
		}
		out = append(out, fmt.Sprintf("%s: %s than %s", row.work, a.words(row.rival.ratio), row.rival.to.way))
	}
	return strings.Join(out, ", ")
}

// notes say what is modelled, and what is marked, and what the numbers do not tell.
func (a *answer) notes(rs []results.Record) (modelled, notes []string) {
	add := func(to *[]string, s string) {
		if !slices.Contains(*to, s) {
			*to = append(*to, s)
		}
	}
	marks := make(map[string]int)
	var models []string
	of := make(map[string][]string) // the ways of each
	counted := 0
	for _, r := range rs {
		if _, ok := a.of(r); !ok || r.Work == "" || r.Way == "" {
			continue
		}
		counted++
		for _, m := range r.Modelled {
			add(&models, m)
			ways := of[m]
			add(&ways, r.Way)
			of[m] = ways
		}
		for _, m := range r.Marks {
			marks[m]++
		}
	}
	for _, m := range models {
		slices.Sort(of[m])
		add(&modelled, fmt.Sprintf("Modelled, not measured, for %s: %s.", strings.Join(of[m], ", "), strings.TrimSuffix(m, ".")))
	}
	for _, m := range sortedKeys(marks, strings.Compare) {
		add(&notes, fmt.Sprintf("Marked: %s (%d of %d measurements).", m, marks[m], counted))
	}
	for _, row := range a.rows {
		for _, r := range row.ratios {
			if r.few() {
				add(&notes, fmt.Sprintf("† Fewer than %d repetitions: the interval is narrower than one of 95 %% would be.", fewForCI))
			}
		}
	}
	if a.value == costValue {
		add(&notes, "A server is charged for the time of the measurement alone, the least that it can cost; functions for all the time that they are there, waiting included.")
	}
	return modelled, notes
}
