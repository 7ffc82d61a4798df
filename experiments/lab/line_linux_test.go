package lab_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/wan"
)

func TestProbe(t *testing.T) {
	for _, d := range []time.Duration{0, 200 * time.Microsecond, 2 * time.Millisecond} {
		var line wan.Line
		if d > 0 {
			line = wan.Even(wan.Path{Delay: d, Rate: 600_000_000})
		}
		l := labtest.New(t, lab.Host{Name: "p"}, lab.Host{Name: "a", NAT: lab.PortRestricted, Line: line})
		p, a := listen(t, l, "p", 4000), listen(t, l, "a", 5000)
		var best time.Duration = time.Hour
		all := []time.Duration{}
		for i := range 200 {
			began := time.Now()
			a.send(at(l, "p", p), fmt.Sprint(i))
			_, from, _ := p.recv(patience)
			p.send(from, "x")
			a.recv(patience)
			took := time.Since(began)
			all = append(all, took)
			best = min(best, took)
			time.Sleep(time.Millisecond)
		}
		u, rt, err := l.Lines()
		t.Log(d, best, all[50], u, rt, err)
	}
}

// BenchmarkLine is what an emulated line carries between a host and the internet, in batches and packet by packet.
func BenchmarkLine(b *testing.B) {
	const seg = 1400
	for _, c := range []struct {
		name  string
		line  wan.Line
		count int
	}{
		{"none/batches", wan.Line{}, 45},
		{"delay/batches", wan.Even(wan.Path{Delay: time.Millisecond}), 45},
		{"600Mbit/batches", wan.Even(wan.Path{Delay: time.Millisecond, Rate: 600_000_000}), 45},
		{"delay+1%loss/batches", wan.Even(wan.Path{Delay: time.Millisecond, Loss: 0.01, Burst: 3}), 45},
		{"none/packets", wan.Line{}, 1},
		{"delay/packets", wan.Even(wan.Path{Delay: time.Millisecond}), 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := labtest.New(b, lab.Host{Name: "p"}, lab.Host{Name: "a", Line: c.line})
			to, from := listen(b, l, "p", 4000), listen(b, l, "a", 5000)
			before, _, err := l.Lines()
			if err != nil {
				b.Fatal(err)
			}
			pump(b, from, to, at(l, "p", to), make([]byte, seg*c.count), segmentSize(seg))
			after, _, err := l.Lines()
			if err != nil {
				b.Fatal(err)
			}
			up, took := after["a"].Up.Sub(before["a"].Up), after["a"].At.Sub(before["a"].At).Seconds()
			if up.Packets > 0 {
				b.ReportMetric(float64(up.Packets)/took, "packets/s")
				b.ReportMetric(100*(after["a"].CPU-before["a"].CPU).Seconds()/took, "cpu%")
				b.ReportMetric(float64(up.Overrun), "overrun")
				b.ReportMetric(float64(up.LateBy(0.5).Microseconds()), "us-late-p50")
				b.ReportMetric(float64(up.LateBy(0.99).Microseconds()), "us-late-p99")
			}
		})
	}
}
