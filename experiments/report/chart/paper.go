// Package chart draws what reports show: lines, stacked bars, and who did what when, as SVG. A chart is as wide as a phone, and its text as
// large there as the page's; it grows with the page. Its colours are those of Okabe and Ito (Color Universal Design, 2008), which the
// colour-blind tell apart; dashes, markers, numbers and heights say the same, so that it can be printed in grey. The same data gives the
// same bytes. It uses the drawing layer of gonum/plot and not its plots: to link those would have every process of an experiment read
// twelve fonts when it starts.
package chart

import (
	"bytes"
	"fmt"
	"html"
	"image/color"
	"math"
	"regexp"
	"strings"
	"sync"
	"unicode"

	"codeberg.org/go-fonts/liberation/liberationsansregular"
	"golang.org/x/image/font/opentype"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// All lengths are in points, which are a phone's pixels.
const (
	width    vg.Length = 360
	textSize vg.Length = 10
	lineStep vg.Length = 13 // from one line of text to the next
	margin   vg.Length = 4
	longest            = 60 // runes of a text
)

var (
	black  = color.RGBA{A: 255}
	white  = color.RGBA{255, 255, 255, 255}
	grey   = color.RGBA{0x66, 0x66, 0x66, 255}
	light  = color.RGBA{0xdd, 0xdd, 0xdd, 255}
	blue   = color.RGBA{0x00, 0x72, 0xb2, 255}
	orange = color.RGBA{0xe6, 0x9f, 0x00, 255}
	green  = color.RGBA{0x00, 0x9e, 0x73, 255}
	red    = color.RGBA{0xd5, 0x5e, 0x00, 255}
	sky    = color.RGBA{0x56, 0xb4, 0xe9, 255}
	purple = color.RGBA{0xcc, 0x79, 0xa7, 255}
)

// style is how a line looks. It is chosen by a number, of which any will do.
type style struct {
	color  color.RGBA
	dashes []vg.Length
	glyph  draw.GlyphDrawer
}

func styleOf(n int) style {
	n = max(n, 0)
	colors := []color.RGBA{blue, sky, red, orange, green, purple, black}
	dashes := [][]vg.Length{nil, {6, 2}, {2, 2}, {7, 2, 2, 2}, {4, 3}, {1, 2}, {9, 3}}
	glyphs := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.RingGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PlusGlyph{}, draw.CrossGlyph{}, draw.PyramidGlyph{}, draw.BoxGlyph{}}
	return style{colors[n%len(colors)], dashes[(n+n/len(colors))%len(dashes)], glyphs[n%len(glyphs)]}
}

func (s style) line() draw.LineStyle {
	return draw.LineStyle{Color: s.color, Width: 1.6, Dashes: s.dashes}
}

func (s style) mark() draw.GlyphStyle {
	return draw.GlyphStyle{Color: s.color, Radius: 3, Shape: s.glyph}
}

// face is the only font: Arial and Helvetica have the same widths, so a page that has one of those looks the same.
var face = sync.OnceValue(func() font.Face {
	f, err := opentype.Parse(liberationsansregular.TTF)
	if err != nil {
		panic("chart: the font that is linked: " + err.Error())
	}
	return font.Face{Font: font.Font{Typeface: "Liberation", Variant: "Sans", Size: textSize}, Face: f}
})

func textWidth(s string) vg.Length {
	f := face()
	return f.Width(s)
}

// clean makes a text out of anything: XML takes neither control characters nor what is not UTF-8.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, " "))
	if r := []rune(s); len(r) > longest {
		return string(r[:longest-1]) + "…"
	}
	return s
}

// paper is what is drawn on. Its origin is at the bottom left.
type paper struct {
	draw.Canvas
	svg    *vgsvg.Canvas
	height vg.Length
}

func newPaper(height vg.Length) *paper {
	svg := vgsvg.New(width, height)
	p := &paper{Canvas: draw.New(svg), svg: svg, height: height}
	p.rectangle(white, 0, 0, width, height)
	return p
}

// finish returns the SVG element. It has a size, for pages that show it as an image, and can be scaled.
func (p *paper) finish(label string) string {
	var b bytes.Buffer
	if _, err := p.svg.WriteTo(&b); err != nil {
		panic("chart: " + err.Error()) // a buffer takes everything
	}
	_, rest, _ := strings.Cut(b.String(), "<svg")
	_, body, _ := strings.Cut(rest, ">\n")
	body = strings.ReplaceAll(body, "font-family:Liberation Sans;font-variant:normal;font-weight:normal;font-style:normal;", "")
	body = texts.ReplaceAllStringFunc(body, func(m string) string { // as wide as it was laid out, whatever the font
		t := texts.FindStringSubmatch(m)[1]
		return fmt.Sprintf(` textLength="%.1f" lengthAdjust="spacingAndGlyphs">%s</text>`, float64(textWidth(html.UnescapeString(t))), t)
	})
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img" font-family="Liberation Sans, Arial, Helvetica, sans-serif"><title>%s</title>`,
		width*1.5, math.Ceil(float64(p.height)*1.5), width, math.Ceil(float64(p.height)), html.EscapeString(clean(label))) + "\n" + body
}

var texts = regexp.MustCompile(`>([^<]+)</text>`)

// text writes s on a base line; align is the part of its width that lies left of x, unless that would be outside.
func (p *paper) text(c color.Color, x, y vg.Length, align float64, s string) {
	s = fitting(s, width-2*margin)
	w := textWidth(s)
	p.SetColor(c)
	p.FillString(face(), vg.Point{X: max(min(x-vg.Length(align)*w, width-w-1), 0), Y: y}, s)
}

// fitting cuts s to a width.
func fitting(s string, most vg.Length) string {
	r := []rune(s)
	for len(r) > 1 && textWidth(string(r)) > most {
		r = r[:len(r)-1]
	}
	return string(r)
}

func (p *paper) rectangle(c color.Color, x0, y0, x1, y1 vg.Length) {
	p.FillPolygon(c, corners(x0, y0, x1, y1))
}

func corners(x0, y0, x1, y1 vg.Length) []vg.Point {
	return []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}}
}

func thin(c color.Color) draw.LineStyle { return draw.LineStyle{Color: c, Width: 0.6} }

// hatch draws oblique lines over a rectangle.
func (p *paper) hatch(c color.Color, x0, y0, x1, y1 vg.Length) {
	var lines [][]vg.Point
	h := y1 - y0
	for x := x0 - h + 2; x < x1; x += 3.5 {
		from, to := max(x, x0), min(x+h, x1)
		lines = append(lines, []vg.Point{{X: from, Y: y0 + from - x}, {X: to, Y: y0 + to - x}})
	}
	p.StrokeLines(draw.LineStyle{Color: c, Width: 0.8}, lines...)
}

// ink is black or white, whichever is read more easily on c.
func ink(c color.RGBA) color.Color {
	if 299*int(c.R)+587*int(c.G)+114*int(c.B) > 140_000 {
		return black
	}
	return white
}

// legend is a key above a chart, in as many lines as it takes.
type legend []entry

type entry struct {
	name string
	draw func(p *paper, x, y vg.Length) // a sample of sampleWidth, on the middle of the line of text
	x    vg.Length
	row  int
}

const sampleWidth vg.Length = 22

// lay places the entries and returns the height of all.
func (l legend) lay() vg.Length {
	x, row := margin, 0
	for i := range l {
		l[i].name = fitting(l[i].name, width-sampleWidth-3*margin)
		w := sampleWidth + 4 + textWidth(l[i].name) + 12
		if x > margin && x+w-12 > width-margin {
			x, row = margin, row+1
		}
		l[i].x, l[i].row = x, row
		x += w
	}
	if len(l) == 0 {
		return 0
	}
	return vg.Length(row+1)*lineStep + 5
}

// draw draws what was laid, downwards from top.
func (l legend) draw(p *paper, top vg.Length) {
	for _, e := range l {
		y := top - vg.Length(e.row+1)*lineStep + 3
		e.draw(p, e.x, y+textSize*0.35)
		p.text(black, e.x+sampleWidth+4, y, 0, e.name)
	}
}
