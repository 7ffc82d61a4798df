package chart

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot/vg"
)

// Bars is a chart of horizontal bars made of parts. The parts' numbers stand in them and in the key.
type Bars struct {
	Title string // for who cannot see it
	Label string // of the values
	Parts []string
	Bars  []Bar
	// Hatched tells which parts are drawn with oblique lines; nil: none.
	Hatched func(part string) bool
}

// Bar is one of a chart's. Values that are no positive number are left out.
type Bar struct {
	Name   string
	Values []float64 // one for each of the parts
	Total  string    // written at its end
}

const barHeight vg.Length = 16

// SVG draws the chart.
func (b Bars) SVG() string {
	fills := []color.RGBA{blue, orange, green, sky, red, purple, light}
	hatched := func(i int) bool { return b.Hatched != nil && b.Hatched(b.Parts[i]) }
	part := func(p *paper, i int, x0, y0, x1, y1 vg.Length) {
		fill := fills[i%len(fills)]
		p.rectangle(fill, x0, y0, x1, y1)
		if hatched(i) {
			p.hatch(ink(fill), x0, y0, x1, y1)
		}
		p.StrokeLines(thin(white), append(corners(x0, y0, x1, y1), vg.Point{X: x0, Y: y0}))
		label := fmt.Sprint(i + 1)
		if w := textWidth(label); x1-x0 > w+3 {
			x, y := (x0+x1)/2, (y0+y1)/2-textSize*0.35
			if hatched(i) {
				p.rectangle(fill, x-w/2-1.5, y-1.5, x+w/2+1.5, y+textSize-1)
			}
			p.text(ink(fill), x, y, 0.5, label)
		}
	}
	var key legend
	for i, name := range b.Parts {
		key = append(key, entry{name: clean(name), draw: func(p *paper, x, y vg.Length) { part(p, i, x, y-5, x+sampleWidth, y+5) }})
	}
	totals := []float64{0}
	names, ends := vg.Length(0), vg.Length(0)
	for _, bar := range b.Bars {
		names, ends = max(names, textWidth(clean(bar.Name))), max(ends, textWidth(clean(bar.Total)))
		total := 0.0
		for _, v := range b.shown(bar) {
			total += v
		}
		totals = append(totals, total)
	}
	names, ends = min(names, width/3), min(ends, width/4)
	keyHeight := key.lay()
	bottom := 2*lineStep + tickLength + 6
	step := barHeight + 5
	p := newPaper(bottom + step*vg.Length(len(b.Bars)) + 8 + keyHeight)
	key.draw(p, p.height)
	f := frame{paper: p, x: Axis{Label: b.Label}.fit(totals), left: names + margin + 5, right: width - margin - ends - 5, bottom: bottom, top: p.height - keyHeight - 4}
	f.ticksBelow()
	f.text(grey, width-margin, margin+2, 1, clean(b.Label))
	for i, bar := range b.Bars {
		y := f.top - step*vg.Length(i) - barHeight - 2
		base := y + barHeight/2 - textSize*0.35
		p.text(black, margin, base, 0, fitting(clean(bar.Name), names))
		x, sum := f.left, 0.0
		for j, v := range b.shown(bar) {
			sum += v
			end := f.left + f.x.share(sum)*(f.right-f.left)
			if end-x > 0.05 {
				part(p, j, x, y, end, y+barHeight)
			}
			x = end
		}
		p.text(black, x+4, base, 0, clean(bar.Total))
	}
	f.StrokeLine2(thin(black), f.left, f.bottom, f.left, f.top)
	return p.finish(b.Title)
}

// shown are the values of the parts, 0 for what cannot be shown.
func (b Bars) shown(bar Bar) []float64 {
	out := make([]float64, len(b.Parts))
	for i := range min(len(out), len(bar.Values)) {
		if v := bar.Values[i]; v > 0 && v < math.MaxFloat32 {
			out[i] = v
		}
	}
	return out
}
