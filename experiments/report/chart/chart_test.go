package chart_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/report/chart"
)

func Example() {
	svg := chart.Lines{
		Title: "Goodput by size",
		X:     chart.Axis{Label: "bytes", Log: true}, Y: chart.Axis{Label: "Mbit/s", Log: true},
		Lines: []chart.Line{{Name: "fnwire", X: []float64{1e3, 1e6}, Y: []float64{20, 400}}},
	}.SVG()
	size, _, _ := strings.Cut(svg, " role")
	fmt.Println(size, strings.Contains(svg, "Mbit/s"))
	// Output:
	// <svg xmlns="http://www.w3.org/2000/svg" width="540" height="408" viewBox="0 0 360 272" true
}

const hostile = "W <script>alert(1)</script>\x00\x1b\xff & \"b\" ]]> "

// odd are values that no chart can show, beside one that it can.
func odd() []float64 {
	return []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 0, 1, math.MaxFloat64, math.SmallestNonzeroFloat64}
}

// charts has, of each kind, an empty one, an ordinary one, and one of odd values and hostile names.
func charts() map[string]func() string {
	long := strings.Repeat("W", 50) + strings.Repeat(hostile, 20)
	lines := func(title, name string, x, y []float64) func() string {
		return func() string {
			return chart.Lines{
				Title: title, X: chart.Axis{Label: name, Log: true}, Y: chart.Axis{Label: name},
				Lines: []chart.Line{{Name: name, X: x, Y: y, Low: y, High: y}, {Name: name, Style: 1000, X: y, Y: x, Steps: true}, {Name: name, Style: -1}},
			}.SVG()
		}
	}
	bars := func(name string, parts int, values []float64) func() string {
		return func() string {
			b := chart.Bars{Title: name, Label: name, Bars: []chart.Bar{{Name: name, Values: values, Total: name}, {}}, Hatched: func(p string) bool { return len(p)%2 == 0 }}
			for i := range parts {
				b.Parts = append(b.Parts, name+strings.Repeat("x", i))
			}
			return b.SVG()
		}
	}
	gantt := func(name string, last float64, rows int, times []float64) func() string {
		return func() string {
			g := chart.Gantt{Title: name, Label: name, Max: last}
			for i := range rows {
				for j, v := range times {
					g.Spans = append(g.Spans, chart.Span{Row: name + strconv.Itoa(i), Kind: []string{"run", "wait", "send", name}[j%4], From: v, To: v + 1}, chart.Span{From: v, To: -v})
				}
			}
			return g.SVG()
		}
	}
	return map[string]func() string{
		"no lines": lines("", "", nil, nil), "lines": lines("t", "n", []float64{1, 10, 100}, []float64{1, 2, 3}), "one point": lines("t", "n", []float64{5}, []float64{5}),
		"odd lines": lines(hostile, long, odd(), odd()), "fewer values": lines("t", "n", []float64{1, 2, 3}, []float64{1}),
		"no bars": bars("", 0, nil), "bars": bars("n", 3, []float64{1, 2, 3}), "odd bars": bars(long, 12, odd()), "fewer parts": bars("n", 1, []float64{1, 2, 3}),
		"no gantt": gantt("", 0, 0, nil), "gantt": gantt("f", 10, 20, []float64{0, 2, 4, 6, 8}), "odd gantt": gantt(long, math.Inf(1), 3, odd()), "NaN gantt": gantt(long, math.NaN(), 3, odd()),
		"many rows": gantt("f", 10, 2000, []float64{0, 2, 4}),
	}
}

var coordinate = regexp.MustCompile(`[ML]([-0-9.e+]+),([-0-9.e+]+)`)

// TestCharts holds what any chart must be: well-formed XML without anything foreign, all within its bounds, and the same each time.
func TestCharts(t *testing.T) {
	for name, draw := range charts() {
		t.Run(name, func(t *testing.T) {
			svg := draw()
			if again := draw(); again != svg {
				t.Error("drawn again it differs")
			}
			if len(svg) > 1<<20 {
				t.Errorf("%d bytes", len(svg))
			}
			var box [4]float64
			x, texts := 0.0, 0
			dec := xml.NewDecoder(strings.NewReader(svg))
			for {
				tok, err := dec.Token()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("%v\n%s", err, svg)
				}
				start, ok := tok.(xml.StartElement)
				if !ok {
					continue
				}
				switch start.Name.Local {
				case "svg", "title", "g", "path", "text":
				default:
					t.Errorf("element %s", start.Name.Local)
				}
				for _, a := range start.Attr {
					switch a.Name.Local {
					case "viewBox":
						if _, err := fmt.Sscan(a.Value, &box[0], &box[1], &box[2], &box[3]); err != nil {
							t.Error(err)
						}
					case "d":
						checkPath(t, a.Value, box)
					case "x":
						if x, err = strconv.ParseFloat(a.Value, 64); err != nil || x < 0 {
							t.Errorf("a text at %q", a.Value)
						}
						texts++
					case "textLength":
						if w, err := strconv.ParseFloat(a.Value, 64); err != nil || x+w > box[2] {
							t.Errorf("a text from %v, %q wide", x, a.Value)
						}
					}
				}
			}
			if texts == 0 && !strings.HasPrefix(name, "no ") {
				t.Error("no text")
			}
			for _, not := range []string{"<script", "NaN", "Inf", "font-family:"} {
				if strings.Contains(svg, not) {
					t.Errorf("it has %q", not)
				}
			}
		})
	}
}

func checkPath(t *testing.T, d string, box [4]float64) {
	t.Helper()
	for _, m := range coordinate.FindAllStringSubmatch(d, -1) {
		x, errX := strconv.ParseFloat(m[1], 64)
		y, errY := strconv.ParseFloat(m[2], 64)
		if errX != nil || errY != nil || x < -1 || x > box[2]+1 || y < -1 || y > box[3]+1 {
			t.Fatalf("a path goes to %s, %s, outside of %v", m[1], m[2], box)
		}
	}
}

// TestLinesGeometry: points are where the axes say.
func TestLinesGeometry(t *testing.T) {
	svg := chart.Lines{
		X: chart.Axis{Log: true, Min: 1, Max: 100}, Y: chart.Axis{Max: 1},
		Lines: []chart.Line{{Name: "n", X: []float64{1, 10, 100}, Y: []float64{0, 0.5, 1}}},
	}.SVG()
	m := regexp.MustCompile(`d="M([0-9.]+),([0-9.]+)L([0-9.]+),([0-9.]+)L([0-9.]+),([0-9.]+)" style="fill:none;stroke:#0072B2`).FindStringSubmatch(svg)
	if m == nil {
		t.Fatalf("no line of three points:\n%s", svg)
	}
	at := make([]float64, 6)
	for i := range at {
		at[i], _ = strconv.ParseFloat(m[i+1], 64)
	}
	if math.Abs(at[0]+at[4]-2*at[2]) > 0.1 || math.Abs(at[1]+at[5]-2*at[3]) > 0.1 || at[5]-at[1] < 150 || at[4]-at[0] < 300 {
		t.Errorf("the middle is not in the middle: %v", at)
	}
}

// TestManyRows: what cannot be shown is told.
func TestManyRows(t *testing.T) {
	if svg := charts()["many rows"](); !strings.Contains(svg, "300 of 2000 functions") {
		t.Error("nothing says that rows are left out")
	}
}
