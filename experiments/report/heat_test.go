package report_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/natmatrix"
	"github.com/fnwire/fnwire/experiments/report"
	"github.com/fnwire/fnwire/experiments/results"
)

// matrixRecords have a pair that misses its target, one that is not direct by right, and one behind one NAT.
func matrixRecords() []results.Record {
	var rs []results.Record
	add := func(c, path string, ms float64) {
		for rep := range 4 {
			r := results.Record{
				Experiment: natmatrix.Experiment, Case: c, Rep: rep, Path: path, OK: true, Seconds: 1, Via: "udp/wss", Reason: "<why>",
				Measured: map[string]float64{"first_byte_ms": ms}, Settings: map[string]string{"nats": "none,symmetric,brick,cgn"},
			}
			if path == "direct" {
				r.Measured["direct_ms"] = 1.5 * ms
			}
			rs = append(rs, r)
		}
	}
	add("cgn x symmetric", "relay", 64)
	add("none x symmetric", "direct", 16)
	add("symmetric x symmetric", "relay", 32)
	add("cgn+hairpin, one NAT", "direct", 8)
	return rs
}

func TestMatrixPage(t *testing.T) {
	var b bytes.Buffer
	if err := report.Write(&b, matrixRecords()); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for _, want := range []string{
		`<td class="miss" title="cgn x symmetric: birthday" style="background:#f0f6fc;color:#111">0!</td>`,
		`<td title="none x symmetric: punch" style="background:#084081;color:#fff">100</td>`,
		`<td title="symmetric x symmetric: relay" style="background:#f0f6fc;color:#111">0</td>`,
		`<td title="cgn&#43;hairpin, one NAT: punch" style="background:#f0f6fc;color:#111">8.00</td>`,
		`<td title="none x symmetric: punch" style="background:#084081;color:#fff">24.0</td>`,
		"<tr><th scope=\"row\">none</th><td></td>", "Pairs of kinds that miss their target: 1,", "birthday: 0 of 4", "birthday: one has to hit", "&lt;why&gt;", "udp/wss", "<details", "viewport",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, not := range []string{"<why>", "NaN", "Inf", "brick</th>"} {
		if strings.Contains(page, not) {
			t.Errorf("the page has %q", not)
		}
	}
	b.Reset()
	if err := report.Write(&b, records()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), `class="heat"`) {
		t.Error("another experiment has a matrix")
	}
}

func ExampleWriteText_matrix() {
	var b bytes.Buffer
	if err := report.WriteText(&b, matrixRecords()); err != nil {
		panic(err)
	}
	for line := range strings.Lines(b.String()) {
		fmt.Println(strings.TrimRight(line, " \n"))
	}
	// Output:
	// nat-matrix   nats=none,symmetric,brick,cgn
	//
	// Direct, % of pairs
	//   1 none
	//   2 symmetric 100  0
	//   3 cgn           0!
	//                 1  2 3
	// cgn+hairpin, one NAT: 100
	//
	// Time to first byte, ms (median, from the start of joining)
	//   1 none
	//   2 symmetric 16.0  32.0
	//   3 cgn            64.0!
	//                  1     2 3
	// cgn+hairpin, one NAT: 8.00
	//
	// Time to direct path, ms (median, from the start of joining)
	//   1 none
	//   2 symmetric 24.0
	//   3 cgn
	//                  1 2 3
	// cgn+hairpin, one NAT: 12.0
	//
	// punch: 8 of 8 pairs direct (100.0 %), want 100 %; delivered 8
	// birthday: 0 of 4 pairs direct (0.0 %), want 90 %; delivered 4: MISSED
	// relay: 0 of 4 pairs direct (0.0 %); delivered 4
}
