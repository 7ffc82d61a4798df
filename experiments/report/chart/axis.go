package chart

import (
	"math"
	"strconv"

	"gonum.org/v1/plot/vg"
)

// Axis is one of a chart's.
type Axis struct {
	Label    string
	Log      bool
	Min, Max float64 // of the axis; both 0: as the data have it
	Ticks    []Tick  // none: round numbers
}

// Tick is a value with its label.
type Tick struct {
	At    float64
	Label string
}

// usable tells whether a value can be shown.
func (a Axis) usable(v float64) bool {
	return !math.IsNaN(v) && math.Abs(v) <= 1e15 && (!a.Log || v >= 1e-15)
}

// fit makes the axis ready for values that are usable.
func (a Axis) fit(values []float64) Axis {
	if a.Min == 0 && a.Max == 0 {
		a.Min, a.Max = math.Inf(1), math.Inf(-1)
		for _, v := range values {
			a.Min, a.Max = min(a.Min, v), max(a.Max, v)
		}
		switch {
		case len(values) == 0:
			a.Min, a.Max = 1, 10
		case a.Log && a.Max < 2*a.Min:
			middle := math.Sqrt(a.Min * a.Max)
			a.Min, a.Max = middle/2, middle*2
		case a.Log:
			room := math.Pow(a.Max/a.Min, 0.03)
			a.Min, a.Max = a.Min/room, a.Max*room
		default:
			a.Min, a.Max = min(0, a.Min), max(0, a.Max)
			if a.Min == a.Max {
				a.Max = 1
			}
		}
	}
	if a.Ticks == nil {
		a.Ticks = roundTicks(a.Min, a.Max, a.Log)
	}
	return a
}

// share is where v lies between the ends, 0 to 1 if it is between them.
func (a Axis) share(v float64) vg.Length {
	if a.Log {
		return vg.Length(math.Log(v/a.Min) / math.Log(a.Max/a.Min))
	}
	return vg.Length((v - a.Min) / (a.Max - a.Min))
}

// roundTicks are values between lowest and highest with one digit, about five of them.
func roundTicks(lowest, highest float64, log bool) []Tick {
	var at []float64
	if log {
		at = logTicks(lowest, highest)
	}
	if len(at) < 3 { // also of a logarithmic axis that is short
		at = nil
		step := math.Pow(10, math.Floor(math.Log10((highest-lowest)/5)))
		for _, more := range []float64{2, 2.5, 2} { // 1, 2, 5, 10
			if (highest-lowest)/step > 6 {
				step *= more
			}
		}
		for i := math.Ceil(lowest / step); i*step <= highest*(1+1e-9) && len(at) < 20; i++ {
			at = append(at, i*step)
		}
	}
	ticks := make([]Tick, 0, len(at))
	for _, v := range at {
		ticks = append(ticks, Tick{v, number(v)})
	}
	return ticks
}

func logTicks(lowest, highest float64) (at []float64) {
	decades := math.Log10(highest / lowest)
	digits, every := []float64{1}, max(1, int(math.Ceil(decades/7)))
	if decades < 3.2 {
		digits = []float64{1, 2, 5}
	}
	for k := int(math.Floor(math.Log10(lowest))); k <= int(math.Ceil(math.Log10(highest))); k++ {
		for _, d := range digits {
			if v := d * math.Pow10(k); k%every == 0 && v >= lowest*(1-1e-9) && v <= highest*(1+1e-9) {
				at = append(at, v)
			}
		}
	}
	return at
}

// number writes a round number.
func number(v float64) string {
	if a := math.Abs(v); a != 0 && (a >= 1e7 || a < 1e-4) {
		return strconv.FormatFloat(v, 'e', 0, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 32)
}
