package faas

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// When events are tried again, exactly.
func TestAsyncTimes(t *testing.T) {
	const f, th = failed, throttled
	for name, c := range map[string]struct {
		async    Async
		verdicts []verdict // the last for ever
		at       []time.Duration
		attempts int
		why      string
	}{
		"at once": {verdicts: []verdict{handled}, at: []time.Duration{0}, attempts: 1},
		"function errors": {
			verdicts: []verdict{f}, at: []time.Duration{0, time.Minute, 3 * time.Minute}, attempts: 3, why: whyRetries,
		},
		"no retries": {async: Async{Retries: -1}, verdicts: []verdict{f}, at: []time.Duration{0}, attempts: 1, why: whyRetries},
		"throttled, an error, throttled": {
			verdicts: []verdict{th, th, f, th, handled}, attempts: 2,
			at: []time.Duration{0, 1 * time.Second, 3 * time.Second, 63 * time.Second, 64 * time.Second},
		},
		"too old": {
			async: Async{MaxAge: 20 * time.Minute}, verdicts: []verdict{th}, why: whyAge,
			at: []time.Duration{0, 1e9, 3e9, 7e9, 15e9, 31e9, 63e9, 127e9, 255e9, 511e9, 811e9, 1111e9},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				n := 0
				attempts, why := c.async.filled().run(t.Context(), func(int) verdict {
					if n >= len(c.at) || time.Since(began) != c.at[n] {
						t.Fatalf("try %d after %v, want %v", n, time.Since(began), c.at)
					}
					n++
					return c.verdicts[min(n, len(c.verdicts))-1]
				})
				if attempts != c.attempts || why != c.why || n != len(c.at) {
					t.Errorf("%d attempts, %q, %d tries", attempts, why, n)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if attempts, why := (Async{}).filled().run(ctx, func(int) verdict { return failed }); attempts != 1 || why != whyClosed {
			t.Errorf("%d attempts, %q", attempts, why)
		}
	})
}
