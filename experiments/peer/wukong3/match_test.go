package wukong3

import (
	"fmt"
	"strings"
	"testing"
)

// side makes ends whose matches are counted.
func side(got map[string]int, node byte, key string, sends, serial bool) *end {
	e := &end{pairMsg: pairMsg{node: id{node}, key: key, sends: sends, serial: serial}}
	e.reply = func(matchMsg) { got[fmt.Sprintf("%d %s", node, key)]++ }
	return e
}

func come(t *testing.T, m *matchmaker, ends ...*end) {
	t.Helper()
	for _, e := range ends {
		if err := m.come(e); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSerial: node 1 has one set-up at a time, 2 and 3 do not wait for one another, and 4 is not serial.
func TestSerial(t *testing.T) {
	m, got := newMatchmaker(), map[string]int{}
	a1, a2 := side(got, 1, "a", false, true), side(got, 2, "a", true, true)
	b1, b3 := side(got, 1, "b", false, true), side(got, 3, "b", true, true)
	c1, c4 := side(got, 1, "c", false, true), side(got, 4, "c", true, false)
	d4, d3 := side(got, 4, "d", false, false), side(got, 3, "d", true, true)
	come(t, m, a1, a2, b1, b3, c1, c4, d4, d3)
	want := func(granted ...*end) {
		t.Helper()
		for _, e := range []*end{a1, a2, b1, b3, c1, c4, d4, d3} {
			n := 0
			for _, g := range granted {
				if g == e {
					n = 1
				}
			}
			if k := fmt.Sprintf("%d %s", e.node[0], e.key); got[k] != n {
				t.Errorf("%s has %d matches, want %d", k, got[k], n)
			}
		}
	}
	want(a1, a2, d4, d3)
	m.leave(a1)
	m.leave(a1)
	want(a1, a2, d4, d3, c1, c4) // b was complete before c, but 3 is still busy
	m.leave(c1)
	m.leave(d3)
	want(a1, a2, b1, b3, c1, c4, d4, d3)
}

// TestDead: an end that goes before it is matched leaves the other to who comes next; after, nothing is left of it.
func TestDead(t *testing.T) {
	m, got := newMatchmaker(), map[string]int{}
	busy1, busy2 := side(got, 1, "x", true, true), side(got, 2, "x", false, true)
	first, dies, next := side(got, 1, "k", true, true), side(got, 3, "k", false, true), side(got, 4, "k", false, true)
	come(t, m, busy1, busy2, first, dies)
	if err := m.come(side(got, 5, "k", true, true)); err == nil || !strings.Contains(err.Error(), "are there") {
		t.Errorf("a third end: %v", err)
	}
	m.leave(dies)
	come(t, m, next)
	m.leave(busy1)
	if got["1 k"] != 1 || got["4 k"] != 1 || got["3 k"] != 0 {
		t.Error(got)
	}
	for _, e := range []*end{busy2, first, next} {
		m.leave(e)
	}
	if m.ends != 0 || len(m.waiting)+len(m.ready)+len(m.busy) != 0 {
		t.Errorf("%+v", m)
	}
}

func TestNoRoom(t *testing.T) {
	m, got := newMatchmaker(), map[string]int{}
	for i := range maxEnds {
		come(t, m, side(got, 1, fmt.Sprint(i), true, false))
	}
	if err := m.come(side(got, 1, "one more", true, false)); err != errFull {
		t.Error(err)
	}
	if err := newMatchmaker().come(side(got, 1, "k", true, false)); err != nil {
		t.Error(err)
	}
}
