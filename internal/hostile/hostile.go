// Package hostile makes seeds for fuzz targets out of good messages: what somebody sends who wants a parser to read beyond an
// end, believe a length, or take one message for another. It is for tests.
package hostile

import "bytes"

// Of returns nothing at all, and for each message the message and what can be made of it: cut after the first byte, in the middle
// and before the last, longer by a byte and by itself, of another type, with another end, with the greatest lengths behind
// its type, and all zeros. Messages of up to a byte are left as they are.
func Of(messages ...[]byte) [][]byte {
	out := [][]byte{{}}
	for _, m := range messages {
		out = append(out, m)
		n := len(m)
		if n < 2 {
			continue
		}
		out = append(out, m[:1], m[:n/2], m[:n-1], append(bytes.Clone(m), 0), append(bytes.Clone(m), m...),
			change(m, 0, 1, 0xff), change(m, n-1, n, 1), set(m, 1, min(n, 9), 0xff), set(m, 0, n, 0))
	}
	return out
}

// Strings is Of for text.
func Strings(messages ...string) []string {
	var out []string
	for _, m := range messages {
		for _, b := range Of([]byte(m))[1:] {
			out = append(out, string(b))
		}
	}
	return append(out, "", "\x00", "\xff\xfe", "\u202e\u00e9", "%00%2f..", " ")
}

// change returns m with the bits of mask turned over in bytes from to to.
func change(m []byte, from, to int, mask byte) []byte {
	m = bytes.Clone(m)
	for i := from; i < to; i++ {
		m[i] ^= mask
	}
	return m
}

func set(m []byte, from, to int, b byte) []byte {
	m = bytes.Clone(m)
	for i := from; i < to; i++ {
		m[i] = b
	}
	return m
}
