package zchunk

import (
	"cmp"
	"fmt"
	"testing"
	"time"
)

// machine is a simulated one: it compresses a kind of data at a rate to a ratio, by a clock of its own.
type machine struct {
	ratio float64
	rate  float64 // bytes a second
	at    time.Duration
	slow  func(at time.Duration) float64 // factor; nil: 1
}

func (m *machine) encode(dst, raw []byte) ([]byte, time.Duration) {
	took := float64(len(raw)) / m.rate
	if len(raw) == sampleSize {
		took *= cold
	}
	if m.slow != nil {
		took *= m.slow(m.at)
	}
	d := seconds(took)
	m.at += d
	return dst[:len(dst)+int(m.ratio*float64(len(raw)))], d
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// transfer sends chunks of MaxRaw as fnlib does, each being written while the next is made, and returns what that took until the last byte was
// written, and how many went compressed.
func transfer(c *Chooser, m *machine, rate float64, chunks int) (took time.Duration, packed int) {
	raw, dst := make([]byte, MaxRaw), make([]byte, 0, MaxFrame)
	began := m.at
	var free, d time.Duration // when the link has written what it was given; what that takes
	last := 0
	for range chunks {
		n := len(raw)
		if out, ok := c.Chunk(dst, raw); ok {
			n = len(out)
			packed++
		}
		if last > 0 {
			c.Wrote(last, d)
		}
		m.at = max(m.at, free)
		last, d = n, seconds(float64(n)/rate)
		free = m.at + d
	}
	c.Wrote(last, d)
	m.at = free
	return free - began, packed
}

const mbit = 1e6 / 8

var linkRates = []float64{10 * mbit, 100 * mbit, 600 * mbit, 5000 * mbit}

// kinds of data, as measured by the benchmark.
var kinds = []struct {
	name        string
	ratio, rate float64
}{
	{"text", 0.27, 280e6}, {"json", 0.27, 280e6}, {"counts", 0.15, 320e6}, {"zeros", 0, 12e9}, {"random", 1, 15e9}, {"jpeg", 1, 15e9},
	{"hardly", 0.92, 400e6}, {"slow and hardly", 0.96, 100e6},
}

// Automatic is never 2 % worse than off, whatever the data and the link, but for 15 ms that it takes to unlearn that a link is slow; and where compressing pays by the sum
// of its costs, it is nearly as good as always.
func TestChooserIsNeverWorse(t *testing.T) {
	const chunks = 512
	for _, k := range kinds {
		for _, r := range linkRates {
			for _, thought := range []float64{0, r, r / 100, r * 100} {
				t.Run(fmt.Sprintf("%s/%g Mbit/s/thought %g", k.name, r/mbit, thought/mbit), func(t *testing.T) {
					m := &machine{ratio: k.ratio, rate: k.rate}
					auto, packed := transfer(newChooser(m, thought), m, r, chunks)
					off := seconds(chunks * MaxRaw / r)
					unlearn := time.Duration(0)
					if k.ratio < useful && cmp.Or(thought, DefaultRate) < r {
						unlearn = 15 * time.Millisecond
					}
					if auto > off+off/50+unlearn {
						t.Errorf("%v, off %v", auto, off)
					}
					pays := r/k.rate+k.ratio < startAt
					if want := seconds(chunks * MaxRaw * max(1/k.rate, k.ratio/r)); pays && auto > want+want/10+seconds(4*MaxRaw/r) {
						t.Errorf("%v, always %v", auto, want)
					}
					if !pays && packed > chunks/10 {
						t.Errorf("%d of %d chunks compressed in vain", packed, chunks)
					}
				})
			}
		}
	}
}

// It follows the link and the data.
func TestChooserFollows(t *testing.T) {
	m := &machine{ratio: 0.27, rate: 280e6}
	c := newChooser(m, 0)
	for i, step := range []struct {
		rate, ratio, speed float64
		want               bool
	}{
		{600 * mbit, 0.27, 280e6, true},
		{5000 * mbit, 0.27, 280e6, false},
		{100 * mbit, 0.27, 280e6, true},
		{100 * mbit, 1, 15e9, false},
		{100 * mbit, 0.27, 280e6, true},
		{100 * mbit, 0.27, 5e6, false}, // somebody else takes the CPU
		{100 * mbit, 0.27, 280e6, true},
	} {
		m.ratio, m.rate = step.ratio, step.speed
		transfer(c, m, step.rate, 256) // 64 MiB
		_, packed := transfer(c, m, step.rate, 64)
		if packed > 60 != step.want || packed < 4 == step.want {
			t.Errorf("step %d: %d of 64 chunks compressed, want them to be: %v", i, packed, step.want)
		}
	}
}

// A CPU that is taken away for a moment, again and again, is no reason to stop.
func TestChooserBearsInterruptions(t *testing.T) {
	i := 0
	m := &machine{ratio: 0.27, rate: 280e6, slow: func(time.Duration) float64 {
		if i++; i%10 == 0 {
			return 10
		}
		return 1
	}}
	if _, packed := transfer(newChooser(m, 0), m, 600*mbit, 1000); packed < 950 {
		t.Errorf("%d of 1000 chunks compressed", packed)
	}
}

// What is small is on its way before anybody could care, unless the link is slow.
func TestChooserLeavesSmallChunks(t *testing.T) {
	for _, x := range []struct {
		size int
		rate float64
		want bool
	}{
		{minRaw - 1, 10 * mbit, false}, {minRaw, 8 * mbit, true}, {64 << 10, 600 * mbit, false}, {65 << 10, 600 * mbit, true},
		{100, 1, false}, {MaxRaw + 1, 1, false}, {MaxRaw, 600 * mbit, true},
	} {
		m := &machine{ratio: 0.1, rate: 280e6}
		_, ok := newChooser(m, x.rate).Chunk(make([]byte, 0, MaxFrame), make([]byte, x.size))
		if ok != x.want {
			t.Errorf("%d bytes at %g Mbit/s: compressed %v", x.size, x.rate/mbit, ok)
		}
	}
}
