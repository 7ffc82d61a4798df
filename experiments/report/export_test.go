package report

// Compare returns the ratio of medians with the bounds of its interval, for values of which less is better.
func Compare(fnwire, other []float64) (ratio, low, high float64) {
	r := comparison{}.compare(measure{way: reference, values: fnwire}, measure{way: "other", values: other}, "test")
	return r.ratio, r.low, r.high
}

// Natural is for tests.
func Natural(a, b string) int { return natural(a, b) }
