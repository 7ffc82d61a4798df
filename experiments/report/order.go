package report

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// sortedKeys are the keys of m by an order.
func sortedKeys[V any](m map[string]V, order func(a, b string) int) []string {
	return slices.SortedFunc(maps.Keys(m), order)
}

// natural orders names as people do: numbers in them by what they are, and not by their digits.
func natural(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits is how many a string begins with.
func digits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}
