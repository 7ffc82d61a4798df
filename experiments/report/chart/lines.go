package chart

import (
	"slices"

	"gonum.org/v1/plot/vg"
)

// Lines is a chart of lines over two axes.
type Lines struct {
	Title string // for who cannot see it
	X, Y  Axis
	Lines []Line
}

// Line joins points. Values that the axes cannot show are left out.
type Line struct {
	Name      string
	Style     int // the same number looks the same in all charts
	X, Y      []float64
	Low, High []float64 // of an interval about each Y; none: no intervals
	Steps     bool      // level up to the next point, as a distribution function is
}

const (
	plotHeight vg.Length = 200
	tickLength vg.Length = 3
)

// SVG draws the chart.
func (l Lines) SVG() string {
	var key legend
	var xs, ys []float64
	for _, line := range l.Lines {
		s := styleOf(line.Style)
		key = append(key, entry{name: clean(line.Name), draw: func(p *paper, x, y vg.Length) {
			p.StrokeLine2(s.line(), x, y, x+sampleWidth, y)
			p.DrawGlyphNoClip(s.mark(), vg.Point{X: x + sampleWidth/2, Y: y})
		}})
		for _, i := range l.shown(line) {
			xs, ys = append(xs, line.X[i]), append(ys, line.Y[i])
			for _, bound := range [][]float64{line.Low, line.High} {
				if i < len(bound) && l.Y.usable(bound[i]) {
					ys = append(ys, bound[i])
				}
			}
		}
	}
	l.X, l.Y = l.X.fit(xs), l.Y.fit(ys)
	keyHeight := key.lay()
	bottom := 2*lineStep + tickLength + 6
	p := newPaper(bottom + plotHeight + lineStep + 6 + keyHeight)
	key.draw(p, p.height)
	f := frame{paper: p, x: l.X, y: l.Y, bottom: bottom, top: bottom + plotHeight, right: width - 12}
	f.axes()
	for _, line := range l.Lines {
		f.line(line, l.shown(line))
	}
	return p.finish(l.Title)
}

// shown are the indices of the points that the axes can show.
func (l Lines) shown(line Line) (at []int) {
	for i := range min(len(line.X), len(line.Y)) {
		if l.X.usable(line.X[i]) && l.Y.usable(line.Y[i]) {
			at = append(at, i)
		}
	}
	return at
}

// frame is the area between axes.
type frame struct {
	*paper
	x, y                     Axis
	left, right, bottom, top vg.Length
}

func (f *frame) at(x, y float64) vg.Point {
	return vg.Point{X: f.left + f.x.share(x)*(f.right-f.left), Y: f.bottom + f.y.share(y)*(f.top-f.bottom)}
}

// axes draws both, with their grid. The vertical one's label stands above it, where it can be read without turning the page.
func (f *frame) axes() {
	f.left = margin
	for _, t := range f.y.Ticks {
		f.left = max(f.left, margin+textWidth(clean(t.Label))+tickLength+2)
	}
	for _, t := range f.y.Ticks {
		if y := f.at(f.x.Min, t.At).Y; y >= f.bottom-0.01 && y <= f.top+0.01 {
			f.StrokeLine2(thin(light), f.left, y, f.right, y)
			f.text(black, f.left-tickLength-2, y-textSize*0.35, 1, clean(t.Label))
		}
	}
	f.ticksBelow()
	f.StrokeLine2(thin(black), f.left, f.bottom, f.left, f.top)
	f.StrokeLine2(thin(black), f.left, f.bottom, f.right, f.bottom)
	f.text(grey, margin, f.top+6, 0, clean(f.y.Label))
	f.text(grey, f.right, margin+2, 1, clean(f.x.Label))
}

// ticksBelow draws the horizontal axis' grid, and labels as far as they do not touch.
func (f *frame) ticksBelow() {
	free := vg.Length(0)
	for _, t := range f.x.Ticks {
		x := f.left + f.x.share(t.At)*(f.right-f.left)
		if x < f.left-0.01 || x > f.right+0.01 {
			continue
		}
		f.StrokeLine2(thin(light), x, f.bottom-tickLength, x, f.top)
		label := clean(t.Label)
		w := textWidth(label)
		if from := min(x-w/2, width-w); from >= free {
			f.text(black, from, f.bottom-tickLength-textSize, 0, label)
			free = from + w + 5
		}
	}
}

func (f *frame) line(l Line, shown []int) {
	if len(shown) == 0 {
		return
	}
	s := styleOf(l.Style)
	var path, marks []vg.Point
	for n, i := range shown {
		at := f.at(l.X[i], l.Y[i])
		if l.Steps && n > 0 {
			path = append(path, vg.Point{X: at.X, Y: path[len(path)-1].Y})
		}
		path = append(path, at)
		if i < len(l.Low) && i < len(l.High) && f.y.usable(l.Low[i]) && f.y.usable(l.High[i]) {
			low, high := f.at(l.X[i], l.Low[i]), f.at(l.X[i], l.High[i])
			f.StrokeLine2(thin(s.color), low.X, low.Y, high.X, high.Y)
		}
		if quarter := len(shown) / 4; !l.Steps || quarter == 0 || n%quarter == quarter/2 {
			marks = append(marks, at)
		}
	}
	f.StrokeLines(s.line(), path)
	for _, at := range slices.Compact(marks) {
		f.DrawGlyphNoClip(s.mark(), at)
	}
}
