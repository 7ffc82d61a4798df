package zchunk

import (
	"fmt"
	"testing"
	"time"
)

// timed compresses for real and tells the least of a few times, so that what else the machine does is left out.
type timed struct {
	c  *Codec
	at time.Duration // of the clock of the simulation
}

const repeats = 5

func (m *timed) encode(dst, raw []byte) (frame []byte, took time.Duration) {
	took = time.Hour
	for range repeats {
		var d time.Duration
		frame, d = m.c.encode(dst, raw)
		took = min(took, d)
	}
	if len(raw) == sampleSize { // the caches are warm here, and are not in a transfer
		took *= cold
	}
	m.at += took
	return frame, took
}

func (m *timed) decode(b *testing.B, dst, frame []byte, size int) (took time.Duration) {
	took = time.Hour
	for range repeats {
		began := time.Now()
		if _, err := m.c.Decode(dst, frame, size); err != nil {
			b.Fatal(err)
		}
		took = min(took, time.Since(began))
	}
	return took
}

// transferOf sends data over a link of a rate, and returns when the last byte is at its receiver and how many went over the link. Each chunk is
// compressed while the last is written, and decompressed while the next comes.
func transferOf(b *testing.B, m *timed, data []byte, rate float64, chunk func(dst, raw []byte) ([]byte, bool), wrote func(int, time.Duration)) (time.Duration, int) {
	dst, plain := make([]byte, 0, MaxFrame), make([]byte, 0, MaxRaw)
	var free, done time.Duration // when the link, and the receiver, have done what they had
	sent, last := 0, 0
	for at := 0; at < len(data); at += MaxRaw {
		raw := data[at:min(at+MaxRaw, len(data))]
		out, packed := chunk(dst, raw)
		if !packed {
			out = raw
		}
		if at > 0 {
			wrote(last, seconds(float64(last)/rate))
		}
		last = len(out)
		m.at = max(m.at, free)
		free = m.at + seconds(float64(last)/rate)
		sent += last
		done = max(done, free)
		if packed {
			done += m.decode(b, plain, out, len(raw))
		}
	}
	return done, sent
}

// BenchmarkTransfer is the hand-over of 16 MiB by links of four rates: automatic and always, as so many times the speed of off, and the part
// of the bytes that went over the link. The link's clock is simulated, the CPU's time is real.
func BenchmarkTransfer(b *testing.B) {
	var codec Codec
	for _, s := range corpus(b) {
		for _, rate := range linkRates {
			b.Run(fmt.Sprintf("%s/%gMbps", s.name, rate/mbit), func(b *testing.B) {
				data := append(append(append(append([]byte(nil), s.data...), s.data...), s.data...), s.data...)
				b.SetBytes(int64(len(data)))
				off := float64(len(data)) / rate
				for b.Loop() {
					m := &timed{c: &codec}
					c := newChooser(m, 0)
					auto, sent := transferOf(b, m, data, rate, c.Chunk, c.Wrote)
					m = &timed{c: &codec}
					always, _ := transferOf(b, m, data, rate, func(dst, raw []byte) ([]byte, bool) {
						out, _ := m.encode(dst, raw)
						return out, true
					}, func(int, time.Duration) {})
					b.ReportMetric(off/auto.Seconds(), "auto-x")
					b.ReportMetric(off/always.Seconds(), "always-x")
					b.ReportMetric(float64(sent)/float64(len(data)), "wire/raw")
				}
			})
		}
	}
}
