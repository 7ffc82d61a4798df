package report_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/report"
	"github.com/fnwire/fnwire/experiments/results"
)

// transfers are hand-overs by several ways: fnwire is twice as fast as the best store at 1 KiB, three times slower at 1 MiB, and as fast at 2 MiB.
func transfers(reps int) []results.Record {
	var rs []results.Record
	for _, w := range []struct {
		work  string
		bytes int64
		ms    map[string]float64
	}{
		{"2 MiB", 2 << 20, map[string]float64{"fnwire": 30, "redis": 30, "s3": 90}},
		{"1 KiB", 1 << 10, map[string]float64{"fnwire": 1, "redis": 2, "s3": 20, "relay": 1.5}},
		{"1 MiB", 1 << 20, map[string]float64{"fnwire": 30, "redis": 20, "s3": 10}},
	} {
		for _, way := range []string{"s3", "fnwire", "relay", "redis"} {
			for rep := range reps {
				ms, there := w.ms[way]
				if !there {
					continue
				}
				ms *= 1 + 0.01*float64(rep%3)
				r := results.Record{
					Experiment: "transfer", Case: way + " " + w.work, Work: w.work, Way: way, Bytes: w.bytes, OK: true, Rep: rep, Seed: 7, Quick: true,
					Measured: map[string]float64{"warm_ms": ms, "goodput_mbps": float64(w.bytes) / ms}, Settings: map[string]string{"profile": "aws-region", "ways": "it's all"},
					Samples: map[string][]float64{"warm_first_byte_ms": {ms / 2, ms / 3, ms / 4}},
					Spans:   []results.Span{{Row: "f0", Kind: "run", Name: "t", From: 0, To: ms}},
					Bill:    []results.Charge{{Item: "function time, waiting", For: way, Dollars: 1e-9 * ms}}, Commit: "abc", Program: "def",
				}
				if way == "s3" {
					r.Modelled = []string{"15 ms of <service>."}
				}
				if way == "redis" && rep == 0 {
					r.Marks = []string{"bound by it"}
				}
				rs = append(rs, r)
			}
		}
	}
	return rs
}

func TestAnswer(t *testing.T) {
	rs := transfers(6)
	failed := rs[6] // of fnwire at 2 MiB
	failed.OK, failed.Error, failed.Rep, failed.Measured = false, "broken", 9, nil
	var page, text bytes.Buffer
	if err := report.Write(&page, append(rs, failed)); err != nil {
		t.Fatal(err)
	}
	if err := report.WriteText(&text, rs); err != nil {
		t.Fatal(err)
	}
	top, rest, _ := strings.Cut(page.String(), `<h2 id="s1">`)
	for _, want := range []string{
		"1. transfer, aws-region: a hand-over between two that are connected",
		"Beside the best store, fnwire: faster in 1 of 3 (1 KiB: 2.0 × faster than redis); slower in 1 of 3 (1 MiB: 3.0 × slower than s3); not told apart in 1 of 3 (2 MiB:",
		`<td class="better">2.0 × faster<small>redis; 1.9`, "n 6, 6 (1‡)", `<td class="worse">3.0 × slower<small>s3; `, "≈ same",
		"<th>s3 (modelled)</th>", "Modelled, not measured, for s3: 15 ms of &lt;service&gt;.", "Marked: bound by it (3 of 60 measurements)", "n 6 of 7",
		"Beside the best store, fnwire: cheaper in 1 of 3", "A server is charged for the time of the measurement alone",
	} {
		if !strings.Contains(top, want) {
			t.Errorf("the answer lacks %q", want)
		}
	}
	for _, want := range []string{
		"Time to first byte, warm: 1 KiB", "Goodput by size", "Who did what when: 2 MiB, redis", "Cost: 1 MiB",
		"bin/experiments run transfer --out DIR --seed 7 --quick --set profile=aws-region --set &#39;ways=it&#39;\\&#39;&#39;s all&#39;", "program def",
	} {
		if !strings.Contains(rest, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if a, b := strings.Index(top, "<td>1 KiB"), strings.Index(top, "<td>1 MiB"); a < 0 || a > b {
		t.Error("small works do not come first")
	}
	if !strings.Contains(text.String(), "faster in 1 of 3 (1 KiB: 2.0 × faster than redis)") {
		t.Errorf("the text lacks the answer:\n%s", text.String())
	}
}

// What each cause of a slow way costs is told by the ways without it, each beside the one that it goes on from.
func TestCauses(t *testing.T) {
	var rs []results.Record
	for _, w := range []struct {
		way string
		ms  float64
	}{{"fnwire", 10}, {"wukong3", 80}, {"wukong3-rate", 40}, {"wukong3-rate-early", 20}, {"wukong3-serial", 160}, {"lazy", 5}, {"s3", 30}, {"wukong3-gone", 0}} {
		for rep := range 6 {
			rs = append(rs, results.Record{Experiment: "dag", Work: "tree", Way: w.way, OK: w.ms > 0, Rep: rep, Measured: map[string]float64{"done_ms": w.ms}})
		}
	}
	var b bytes.Buffer
	if err := report.Write(&b, rs); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"<th>without rate, beside wukong3</th><th>without early, beside wukong3-rate</th><th>without serial, beside wukong3</th>",
		"2.0 × faster<small>40.0 ms; 2.0 to 2.0; n 6, 6</small>", "2.0 × faster<small>20.0 ms; 2.0 to 2.0; n 6, 6; in all 4.0 × faster</small>", "2.0 × slower<small>160 ms;",
		"<td class=\"worse\">none<small>failed: 6</small>", "Beside the best store, fnwire: faster in 1 of 1 (tree: 3.0 × faster than s3)",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// What is not told apart is called the same only if the interval is narrow.
func TestUnclear(t *testing.T) {
	rs := transfers(8)
	for i := range rs {
		if rs[i].Work == "2 MiB" && rs[i].Rep%2 == 0 {
			rs[i].Measured["warm_ms"] *= 3
		}
	}
	var b bytes.Buffer
	if err := report.Write(&b, rs); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "<td>unclear<small>redis; ") || strings.Contains(b.String(), "<td>≈ same<small>redis; 3") {
		t.Error("a wide interval is called the same")
	}
}

// With few repetitions the answer says so, and with two gives no interval.
func TestAnswerOfFew(t *testing.T) {
	for reps, want := range map[int]string{1: "no interval; n 1, 1", 2: "no interval; n 2, 2", 3: "†; n 3, 3", 5: "†; n 5, 5"} {
		var b bytes.Buffer
		if err := report.Write(&b, transfers(reps)); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) {
			t.Errorf("%d repetitions: the page lacks %q", reps, want)
		}
		if told := strings.Contains(b.String(), "too few repetitions for an interval in 3 of 3"); told != (reps < 3) {
			t.Errorf("%d repetitions: too few: %v", reps, told)
		}
	}
}

// The best of all others stands in where there is no store, more may be better, and a way that failed is told of.
func TestAnswerWithoutStores(t *testing.T) {
	var rs []results.Record
	for way, mbps := range map[string]float64{"fnwire": 200, "plain-quic": 400, "tls-tcp": 100, "gone": 0} {
		for rep := range 6 {
			rs = append(rs, results.Record{
				Experiment: "throughput", Case: way, Work: "a stream", Way: way, OK: way != "gone", Rep: rep, Measured: map[string]float64{"goodput_mbps": mbps},
			})
		}
	}
	slices.SortStableFunc(rs, func(a, b results.Record) int { return strings.Compare(a.Way, b.Way) })
	var b bytes.Buffer
	if err := report.Write(&b, rs); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Beside the best other, fnwire: slower in 1 of 1 (a stream: 2.0 × slower than plain-quic)", `<td class="better">2.0 × faster<small>2.0 to 2.0; n 6, 6`,
		"<td class=\"worse\">none<small>failed: 6</small>", "<td>200 Mbit/s<small>n 6</small>",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, b.String())
		}
	}
}

// TestIntervals: of many pairs of samples with a known ratio, the intervals hold it about as often as they say; and they are the same each time.
func TestIntervals(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	draw := func(n int, scale float64) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = scale * math.Exp(0.3*rng.NormFloat64())
		}
		return v
	}
	const rounds = 200
	held := 0
	for range rounds {
		a, b := draw(15, 10), draw(15, 20)
		ratio, low, high := report.Compare(a, b)
		if low > ratio || ratio > high {
			t.Fatalf("%v is not from %v to %v", ratio, low, high)
		}
		if low <= 2 && 2 <= high {
			held++
		}
		if again, l, h := report.Compare(a, b); again != ratio || l != low || h != high {
			t.Fatal("the same values give another interval")
		}
	}
	if held < rounds*90/100 {
		t.Errorf("%d of %d intervals of 95 %% hold the ratio", held, rounds)
	}
	t.Logf("%d of %d", held, rounds)
	if ratio, low, _ := report.Compare([]float64{1, 2}, []float64{3, 5}); ratio != 4/1.5 || !math.IsNaN(low) {
		t.Errorf("two values: %v, from %v", ratio, low)
	}
	if ratio, low, high := report.Compare([]float64{2, 2, 2}, []float64{6, 6, 6}); ratio != 3 || low != 3 || high != 3 {
		t.Errorf("equal values: %v, %v to %v", ratio, low, high)
	}
}

func TestNatural(t *testing.T) {
	want := []string{"", "a", "a 2", "a 10", "a 010", "a 10 b", "b"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortStableFunc(got, report.Natural)
	if fmt.Sprint(got[:3], got[5:]) != fmt.Sprint(want[:3], want[5:]) || report.Natural("a 10", "a 010") != 0 {
		t.Errorf("%q", got)
	}
}
