package suite

import (
	"slices"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/crowd"
	"github.com/fnwire/fnwire/experiments/results"
)

func TestShares(t *testing.T) {
	for n, want := range map[int][]int{2: {2}, 5000: {5000}, 5001: {2500, 2501}, 10000: {5000, 5000}} {
		if got := shares(n, 1); !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", n, got, want)
		}
	}
	if got := shares(5, 2); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("among two: %v", got)
	}
	total := 0
	seeds := make(map[uint64]bool)
	for _, a := range rates(crowd.OfferArgs{Rate: 501, Seed: 7}, shares(10000, 1)) {
		total += a.Rate
		seeds[a.Seed] = true
	}
	if total != 501 || len(seeds) != 2 {
		t.Errorf("%d offers a second in all, of %d seeds", total, len(seeds))
	}
}

func TestNoteLatency(t *testing.T) {
	rec := &results.Record{Measured: make(map[string]float64)}
	noteLatency(rec, "none", nil)
	var took []time.Duration
	for i := range 101 {
		took = append(took, time.Duration(i)*time.Millisecond)
	}
	noteLatency(rec, "x_ms", took)
	if m := rec.Measured; len(m) != 3 || m["x_ms_p50"] != 50 || m["x_ms_p99"] != 99 || m["x_ms_max"] != 100 {
		t.Errorf("%v", m)
	}
}
