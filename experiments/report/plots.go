package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/bill"
	"github.com/fnwire/fnwire/experiments/report/chart"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/workload"
)

// plot is a chart with its title.
type plot struct {
	Title string
	SVG   string
	File  string // its name, of those beside report.md
}

const (
	mostLines  = 8   // in one, of works that are not compared
	mostPoints = 100 // of a distribution
	mostParts  = 7   // of a bill
)

// plotter draws the records of a section. styles makes a way look the same in all charts of it, and those that are in most sections the same in all.
type plotter struct {
	rs     []results.Record
	styles map[string]int
}

// stylesOf numbers the ways.
func stylesOf(rs []results.Record) map[string]int {
	fixed := map[string]int{reference: 0, relayed: 1, "redis": 2, "nats": 3, "s3": 4, slowWay: 5}
	styles, used := make(map[string]int), make(map[int]bool)
	for _, r := range rs {
		if n, there := fixed[r.Way]; r.Way != "" {
			styles[r.Way] = n
			used[n] = used[n] || there
		}
	}
	next := 0
	for _, way := range sortedKeys(styles, wayOrder) {
		if _, there := fixed[way]; there {
			continue
		}
		for used[next] {
			next++
		}
		styles[way], used[next] = next, true
	}
	return styles
}

// plots draws what the records have data for, and says what it left out.
func plots(rs []results.Record) (out []plot, leftOut []string) {
	p := plotter{rs, stylesOf(rs)}
	for _, k := range []struct {
		name string
		most int
		make func() []plot
	}{
		{"distributions", 12, p.distributions}, {"charts of goodput by size", 1, p.goodput},
		{"charts of who did what when", 30, p.gantts}, {"charts of costs", 12, p.costs},
	} {
		made := k.make()
		if more := len(made) - k.most; more > 0 {
			made = made[:k.most]
			leftOut = append(leftOut, fmt.Sprintf("%d more %s", more, k.name))
		}
		out = append(out, made...)
	}
	return out, leftOut
}

// series is what is drawn as one line.
type series struct {
	name   string
	style  int
	values []float64
}

const firstByte = "first_byte_ms"

// distributions are of the times that there are samples of, the first byte's before others, one for each work with a line for each way; what has one way
// alone, or no work, shares. Where records have no samples of the first byte's, each repetition is one.
func (p plotter) distributions() (out []plot) {
	byKey := make(map[string]map[string][]series) // by key and work
	for _, r := range p.rs {
		if !r.OK {
			continue
		}
		keys := make(map[string][]float64)
		for k, v := range r.Measured {
			if strings.HasSuffix(k, firstByte) {
				keys[k] = []float64{v}
			}
		}
		for k, v := range r.Samples {
			keys[k] = v
		}
		for k, v := range keys {
			if strings.HasSuffix(k, "_ms") && len(v) > 0 {
				if byKey[k] == nil {
					byKey[k] = make(map[string][]series)
				}
				byKey[k][r.Work] = p.extend(byKey[k][r.Work], r, v)
			}
		}
	}
	order := func(k string) string { // first bytes first, and short names
		return fmt.Sprintf("%t %04d %s", !strings.HasSuffix(k, firstByte), min(len(k), 9999), k)
	}
	for _, k := range sortedKeys(byKey, func(a, b string) int { return strings.Compare(order(a), order(b)) }) {
		title := strings.ReplaceAll(strings.TrimSuffix(k, "_ms"), "_", " ")
		if rest, ok := strings.CutSuffix(k, firstByte); ok {
			title = strings.TrimSuffix("Time to first byte, "+strings.Trim(rest, "_"), ", ")
		}
		var alone []series // of works that have one way only: they share a chart
		for _, work := range append(works(p.rs), "") {
			switch lines := byKey[k][work]; {
			case longestOf(lines) < 2:
			case work == "":
				alone = append(alone, lines...)
			case len(lines) == 1:
				alone = append(alone, series{name: work + ", " + lines[0].name, values: lines[0].values})
			default:
				out = append(out, plot{Title: title + ": " + work, SVG: distribution(title+": "+work, lines)})
			}
		}
		for lines := range slices.Chunk(alone, mostLines) {
			for i := range lines {
				lines[i].style = i
			}
			out = append(out, plot{Title: title, SVG: distribution(title, lines)})
		}
	}
	return out
}

// extend adds values to the series of the record's way or, without one, case.
func (p plotter) extend(all []series, r results.Record, values []float64) []series {
	name := cmp.Or(r.Way, r.Case)
	i := slices.IndexFunc(all, func(s series) bool { return s.name == name })
	if i < 0 {
		style, known := p.styles[r.Way]
		if !known {
			style = len(all)
		}
		all = append(all, series{name: name, style: style})
		i = len(all) - 1
	}
	all[i].values = append(all[i].values, values...)
	return all
}

func longestOf(all []series) (n int) {
	for _, s := range all {
		n = max(n, len(s.values))
	}
	return n
}

func distribution(title string, all []series) string {
	c := chart.Lines{Title: title, X: chart.Axis{Label: "ms", Log: true}, Y: chart.Axis{Label: "share that took no longer", Max: 1}}
	slices.SortStableFunc(all, func(a, b series) int { return cmp.Or(cmp.Compare(a.style, b.style), natural(a.name, b.name)) })
	for _, s := range all {
		v := slices.Sorted(slices.Values(s.values))
		line := chart.Line{Name: s.name, Style: s.style, Steps: true}
		for i := range min(len(v), mostPoints) {
			at := i
			if len(v) > mostPoints {
				at = i * (len(v) - 1) / (mostPoints - 1)
			}
			line.X, line.Y = append(line.X, v[at]), append(line.Y, float64(at+1)/float64(len(v)))
		}
		c.Lines = append(c.Lines, line)
	}
	return c.SVG()
}

// goodput is by the size of the state, if there are several.
func (p plotter) goodput() []plot {
	bySize, work := make(map[int64][]series), make(map[int64]string)
	for _, r := range p.rs {
		if v, there := r.Measured["goodput_mbps"]; there && r.OK && r.Way != "" && r.Bytes > 0 {
			if work[r.Bytes] == "" {
				work[r.Bytes] = r.Work
			}
			if work[r.Bytes] != r.Work {
				return nil // there is more to it than the size
			}
			bySize[r.Bytes] = p.extend(bySize[r.Bytes], r, []float64{v})
		}
	}
	if len(bySize) < 2 {
		return nil
	}
	c := chart.Lines{Title: "Goodput by size", X: chart.Axis{Label: "size of the state", Log: true}, Y: chart.Axis{Label: "Mbit/s, median, least to most", Log: true}}
	lines := make(map[string]*chart.Line)
	sizes := make([]int64, 0, len(bySize))
	for size := range bySize {
		sizes = append(sizes, size)
	}
	slices.Sort(sizes)
	for _, size := range sizes {
		c.X.Ticks = append(c.X.Ticks, chart.Tick{At: float64(size), Label: workload.FormatBytes(size)})
		for _, s := range bySize[size] {
			l := lines[s.name]
			if l == nil {
				l = &chart.Line{Name: s.name, Style: s.style}
				lines[s.name] = l
			}
			l.X, l.Y = append(l.X, float64(size)), append(l.Y, results.Median(s.values))
			l.Low, l.High = append(l.Low, slices.Min(s.values)), append(l.High, slices.Max(s.values))
		}
	}
	for _, way := range sortedKeys(lines, wayOrder) {
		c.Lines = append(c.Lines, *lines[way])
	}
	return []plot{{Title: c.Title, SVG: c.SVG()}}
}

// gantts are of the median repetition of each way, those of one work over the same time.
func (p plotter) gantts() (out []plot) {
	for _, work := range works(p.rs) {
		byWay := make(map[string][]results.Record)
		for _, r := range p.rs {
			if r.Work == work && r.Way != "" && r.OK && len(r.Spans) > 0 {
				byWay[r.Way] = append(byWay[r.Way], r)
			}
		}
		longest := 0.0
		for way, rs := range byWay {
			middle := medianRecord(rs, spanned)
			byWay[way] = []results.Record{middle}
			longest = max(longest, spanned(middle))
		}
		for _, way := range sortedKeys(byWay, wayOrder) {
			r := byWay[way][0]
			c := chart.Gantt{Title: fmt.Sprintf("Who did what when: %s, %s", work, way), Label: fmt.Sprintf("ms; repetition %d, the median one", r.Rep+1), Max: longest}
			for _, s := range r.Spans {
				c.Spans = append(c.Spans, chart.Span{Row: s.Row, Kind: s.Kind, From: s.From, To: s.To})
			}
			out = append(out, plot{Title: c.Title, SVG: c.SVG()})
		}
	}
	return out
}

// spanned is when the last span of a record ends.
func spanned(r results.Record) (end float64) {
	for _, s := range r.Spans {
		if !math.IsInf(s.To, 0) {
			end = max(end, s.To)
		}
	}
	return end
}

// medianRecord is the one in the middle by a value, the lower one if there are two.
func medianRecord(rs []results.Record, by func(results.Record) float64) results.Record {
	sorted := slices.Clone(rs)
	slices.SortStableFunc(sorted, func(a, b results.Record) int { return cmp.Compare(by(a), by(b)) })
	return sorted[(len(sorted)-1)/2]
}

// costs are of the repetition of each way that cost the median. The parts have the same numbers in all charts.
func (p plotter) costs() (out []plot) {
	parts := make(map[string]float64)
	sums := make(map[string]map[string]map[string]float64) // by work, way and part
	for _, work := range works(p.rs) {
		byWay := make(map[string][]results.Record)
		for _, r := range p.rs {
			if r.Work == work && r.Way != "" && r.OK && len(r.Bill) > 0 {
				byWay[r.Way] = append(byWay[r.Way], r)
			}
		}
		sums[work] = make(map[string]map[string]float64)
		for way, rs := range byWay {
			sum := make(map[string]float64)
			for _, charge := range medianRecord(rs, func(r results.Record) float64 { return bill.Total(r.Bill) }).Bill {
				if charge.Dollars > 0 && !math.IsInf(charge.Dollars, 0) {
					sum[partOf(charge)] += 1e6 * charge.Dollars
				}
			}
			sums[work][way] = sum
			for name, v := range sum {
				parts[name] = max(parts[name], v)
			}
		}
	}
	order := sortedKeys(parts, func(a, b string) int { return cmp.Or(cmp.Compare(parts[b], parts[a]), strings.Compare(a, b)) })
	if len(order) > mostParts {
		order = append(order[:mostParts-1:mostParts-1], "all else")
	}
	for _, work := range works(p.rs) {
		if len(sums[work]) > 0 {
			title := "Cost: " + work
			out = append(out, plot{Title: title, SVG: costChart(title, sums[work], order)})
		}
	}
	return out
}

func costChart(title string, sums map[string]map[string]float64, parts []string) string {
	c := chart.Bars{
		Title: title, Label: "US dollars for a million of them", Parts: parts,
		Hatched: func(part string) bool { return strings.Contains(part, "waiting") },
	}
	for _, way := range sortedKeys(sums, wayOrder) {
		bar := chart.Bar{Name: way, Values: make([]float64, len(parts))}
		total := 0.0
		for _, name := range sortedKeys(sums[way], strings.Compare) {
			i := slices.Index(parts, name)
			if i < 0 {
				i = len(parts) - 1
			}
			bar.Values[i] += sums[way][name]
			total += sums[way][name]
		}
		bar.Total = FormatNumber(total)
		c.Bars = append(c.Bars, bar)
	}
	return c.SVG()
}

// partOf names what is charged. What it is charged to tells more than the item only where it is not the way itself.
func partOf(c results.Charge) string {
	if c.For == bill.ForStart {
		return c.Item + ", " + c.For
	}
	return c.Item
}
