package natmatrix_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/natmatrix"
	"github.com/fnwire/fnwire/experiments/results"
)

// record is of one pair: path is direct, relay, or "" if nothing was delivered.
func record(c string, rep int, path string, ms float64) results.Record {
	r := results.Record{
		Experiment: natmatrix.Experiment, Case: c, Rep: rep, Path: path, OK: path != "", Via: "udp/udp",
		Measured: map[string]float64{"first_byte_ms": ms, "direct_ms": 2 * ms},
	}
	if path == "" {
		r.Error = "lost"
	}
	return r
}

func Example() {
	var rs []results.Record
	for rep := range 3 {
		rs = append(rs, record("full-cone x port-restricted", rep, "direct", 20))
	}
	rs = append(rs, record("full-cone x port-restricted", 3, "relay", 20), record("udp-blocked x none", 0, "relay", 300))
	fmt.Println(natmatrix.Judge(rs[:3]))
	fmt.Println(natmatrix.Judge(rs))
	// Output:
	// <nil>
	// 1 of 2 pairs of NAT kinds miss their target:
	//   full-cone x port-restricted: direct 3 of 4, want 4 (punch): no reason given
	//   punch: 3 of 4 pairs direct (75.0 %), want 100 %; delivered 4: MISSED
}

func TestCase(t *testing.T) {
	for _, p := range []natmatrix.Pair{
		{A: "full-cone+remap", B: "sequential+step=2"}, {A: "cgn+hairpin", B: "cgn+hairpin", Shared: true}, {A: "none", B: "none"},
	} {
		if got, err := natmatrix.ParseCase(p.Case()); got != p || err != nil {
			t.Errorf("%q: %+v, %v", p.Case(), got, err)
		}
	}
	for _, bad := range []string{"", "cgn", "brick x none", "none x brick", "brick, one NAT", "none, one NAT"} {
		if _, err := natmatrix.ParseCase(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestCells(t *testing.T) {
	rs := []results.Record{
		record("none x cgn", 0, "direct", 10), record("none x cgn", 1, "", 0), record("none x cgn", 2, "relay", 30),
		record("none x cgn", 1, "direct", 50), // made again, since it had failed
		{Experiment: "pairs", Case: "none x none"},
	}
	cells, err := natmatrix.Cells(rs)
	if err != nil || len(cells) != 1 {
		t.Fatalf("%+v, %v", cells, err)
	}
	c := cells[0]
	if c.Pairs != 3 || c.Delivered != 3 || c.Direct != 2 || c.Way != lab.WayPunch || c.FirstByte != 30 || c.ToDirect != 60 ||
		len(c.Vias) != 1 || c.Share() != 2.0/3 {
		t.Errorf("%+v", c)
	}
	cells, _ = natmatrix.Cells(rs[1:2])
	if c := cells[0]; c.Delivered != 0 || c.Direct != 0 || !math.IsNaN(c.FirstByte) || !math.IsNaN(c.ToDirect) ||
		!strings.Contains(c.Miss(), "delivered 0 of 1") || !strings.Contains(c.Miss(), "lost") {
		t.Errorf("%+v", c)
	}
	if _, err := natmatrix.Cells([]results.Record{record("nonsense", 0, "direct", 1)}); err == nil {
		t.Error("a case that is no pair is a cell")
	}
}

// Targets are those of the issue: each pair that can be punched, 95 % where a port is predicted, 90 % where it is hit by chance.
func TestTargets(t *testing.T) {
	for _, c := range []struct {
		name         string
		pairs, need  int
		classMetWith int // of pairs
	}{
		{"none x cgn", 10, 10, 10}, {"port-restricted x sequential", 10, 9, 10}, {"port-restricted x sequential", 20, 19, 19},
		{"port-restricted x symmetric", 10, 9, 9}, {"symmetric x symmetric", 10, 0, 0}, {"port-restricted, one NAT", 10, 10, 10},
	} {
		for direct := range c.pairs + 1 {
			var rs []results.Record
			for rep := range c.pairs {
				path := "relay"
				if rep < direct {
					path = "direct"
				}
				rs = append(rs, record(c.name, rep, path, 1))
			}
			cells, err := natmatrix.Cells(rs)
			if err != nil {
				t.Fatal(err)
			}
			if cells[0].Need() != c.need || (cells[0].Miss() == "") != (direct >= c.need) {
				t.Errorf("%s, %d of %d direct: need %d, %q", c.name, direct, c.pairs, cells[0].Need(), cells[0].Miss())
			}
			if met := natmatrix.Classes(cells)[0].Met(); met != (direct >= c.classMetWith) {
				t.Errorf("%s, %d of %d direct: class met %v", c.name, direct, c.pairs, met)
			}
			if failed := natmatrix.Judge(rs) != nil; failed != (direct < max(c.need, c.classMetWith)) {
				t.Errorf("%s, %d of %d direct: judged %v", c.name, direct, c.pairs, failed)
			}
		}
	}
}
