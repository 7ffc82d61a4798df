package chart

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot/vg"
)

// Gantt is a chart of what each of several rows did when.
type Gantt struct {
	Title string // for who cannot see it
	Label string // of the times
	Max   float64
	Spans []Span
}

// Span is what a row did for some time. Spans that have no length, or begin after the chart's end, are left out.
type Span struct {
	Row, Kind string
	From, To  float64
}

// kind is how spans of a kind look: by colour, and by which part of the row's height they fill, which shows without colours too.
type kind struct {
	color     color.RGBA
	low, high vg.Length
}

// kinds are those that charts know, in the order of the key. Any other looks like the last.
func kinds() ([]string, map[string]kind) {
	return []string{"function", "start", "run", "send", "receive", "wait", "other"}, map[string]kind{
		"function": {light, 0, 1}, "start": {grey, 0, 1}, "run": {blue, 0, 1}, "send": {orange, 0, 0.5}, "receive": {green, 0.5, 1}, "wait": {red, 0.38, 0.62}, "other": {purple, 0.2, 0.8},
	}
}

const (
	mostRows             = 300
	rowsHeight vg.Length = 300 // of all rows, at most
	rowHeight  vg.Length = 13  // of one, at most
)

// SVG draws the chart. Of more than 300 rows it shows 300, evenly chosen, and says so.
func (g Gantt) SVG() string {
	x := Axis{Max: g.Max, Label: g.Label}
	if !(g.Max > 0 && g.Max < 1e15) {
		x.Max = 1
	}
	x = x.fit(nil)
	rows, byRow, used := g.rows()
	shown := rows
	if len(rows) > mostRows {
		shown = nil
		for i := range mostRows {
			shown = append(shown, rows[i*len(rows)/mostRows])
		}
		x.Label = fmt.Sprintf("%d of %d functions; %s", mostRows, len(rows), x.Label)
	}
	names, looks := kinds()
	var key legend
	for _, name := range names {
		if k := looks[name]; used[name] {
			key = append(key, entry{name: name, draw: func(p *paper, x, y vg.Length) {
				p.rectangle(k.color, x, y-5+10*k.low, x+sampleWidth, y-5+10*k.high)
			}})
		}
	}
	step := min(rowHeight, rowsHeight/vg.Length(max(len(shown), 1)))
	keyHeight := key.lay()
	bottom := 2*lineStep + tickLength + 6
	p := newPaper(bottom + step*vg.Length(max(len(shown), 2)) + 4 + keyHeight)
	key.draw(p, p.height)
	f := frame{paper: p, x: x, left: margin, right: width - 12, bottom: bottom, top: p.height - keyHeight - 2}
	if step > 8 {
		for _, r := range shown {
			f.left = max(f.left, min(textWidth(clean(r)), width/4)+margin+5)
		}
		for i, r := range shown {
			p.text(black, margin, f.top-step*vg.Length(i)-step/2-textSize*0.35, 0, fitting(clean(r), width/4))
		}
	}
	f.ticksBelow()
	for _, name := range names {
		f.spans(name, looks[name], shown, byRow, step)
	}
	f.StrokeLine2(thin(black), f.left, f.bottom, f.right, f.bottom)
	f.text(grey, f.right, margin+2, 1, clean(x.Label))
	return p.finish(g.Title)
}

// rows sorts the spans that can be shown by row and time, rows by when they begin, and tells which kinds there are.
func (g Gantt) rows() (rows []string, byRow map[string][]Span, used map[string]bool) {
	_, looks := kinds()
	byRow, used = make(map[string][]Span), make(map[string]bool)
	for _, s := range g.Spans {
		if !(s.From >= 0 && s.To > s.From && s.From <= g.Max) || math.IsInf(s.To, 0) {
			continue
		}
		if _, known := looks[s.Kind]; !known {
			s.Kind = "other"
		}
		used[s.Kind] = true
		if byRow[s.Row] == nil {
			rows = append(rows, s.Row)
		}
		byRow[s.Row] = append(byRow[s.Row], s)
	}
	for _, spans := range byRow {
		slices.SortStableFunc(spans, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	}
	slices.SortStableFunc(rows, func(a, b string) int { return cmp.Compare(byRow[a][0].From, byRow[b][0].From) })
	return rows, byRow, used
}

// spans draws all of a kind as one path; those of a row that are closer than can be seen become one.
func (f *frame) spans(name string, k kind, rows []string, byRow map[string][]Span, step vg.Length) {
	var path vg.Path
	for i, row := range rows {
		low := f.top - step*vg.Length(i+1)
		y0, y1 := low+0.92*step*k.low, low+0.92*step*k.high
		var from, to vg.Length
		flush := func() {
			if to > from {
				for n, c := range corners(from, y0, to, y1) {
					if n == 0 {
						path.Move(c)
					} else {
						path.Line(c)
					}
				}
				path.Close()
			}
		}
		for _, s := range byRow[row] {
			if s.Kind != name {
				continue
			}
			x0 := f.left + f.x.share(s.From)*(f.right-f.left)
			x1 := min(max(f.left+f.x.share(s.To)*(f.right-f.left), x0+0.2), width)
			if to == 0 || x0 > to+0.2 {
				flush()
				from, to = x0, x1
			}
			to = max(to, x1)
		}
		flush()
	}
	if len(path) > 0 {
		f.SetColor(k.color)
		f.Fill(path)
	}
}
