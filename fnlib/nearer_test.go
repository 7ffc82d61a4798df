package fnlib

import (
	"testing"
	"time"
)

// TestHomeIsSticky: a home that works is left for one that is nearer by a third and by 2 ms, and that one never for the first again,
// however much the two measurements waver within that.
func TestHomeIsSticky(t *testing.T) {
	for _, tt := range []struct {
		home, other time.Duration
		moves       bool
	}{
		{30 * time.Millisecond, 20 * time.Millisecond, true},
		{30 * time.Millisecond, 21 * time.Millisecond, false},
		{30 * time.Millisecond, 40 * time.Millisecond, false},
		{3 * time.Millisecond, time.Millisecond, true},
		{2 * time.Millisecond, time.Microsecond, false}, // it would save less than 2 ms
		{0, time.Millisecond, false},                    // not measured yet
	} {
		if got := tt.other <= nearer(tt.home); got != tt.moves {
			t.Errorf("from %v to %v: %v, want %v", tt.home, tt.other, got, tt.moves)
		}
		if tt.moves && tt.home <= nearer(tt.other) {
			t.Errorf("%v and %v take turns", tt.home, tt.other)
		}
	}
}
