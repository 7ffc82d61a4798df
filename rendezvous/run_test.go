package rendezvous_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// An instance renews when half of its lease has passed, or up to a quarter of that sooner, and the first time at any moment from an eighth on. News
// of relays have it renew sooner, within the time that they say, never later, and whatever they say.
func TestWhenToRenew(t *testing.T) {
	for _, c := range []struct {
		lease       time.Duration
		news        bool
		spreadMS    int64
		first, then [2]time.Duration
	}{
		{lease: 40 * time.Second, first: [2]time.Duration{5 * time.Second, 20 * time.Second}, then: [2]time.Duration{15 * time.Second, 20 * time.Second}},
		{lease: 10 * time.Hour, first: [2]time.Duration{12500 * time.Millisecond, 50 * time.Second}, then: [2]time.Duration{37500 * time.Millisecond, 50 * time.Second}},
		{40 * time.Second, true, 0, [2]time.Duration{0, 200 * time.Millisecond}, [2]time.Duration{15 * time.Second, 20 * time.Second}},
		{40 * time.Second, true, 1000, [2]time.Duration{0, time.Second}, [2]time.Duration{15 * time.Second, 20 * time.Second}},
		{40 * time.Second, true, math.MinInt64, [2]time.Duration{0, 200 * time.Millisecond}, [2]time.Duration{15 * time.Second, 20 * time.Second}},
		{40 * time.Second, true, math.MaxInt64, [2]time.Duration{0, 20 * time.Second}, [2]time.Duration{15 * time.Second, 20 * time.Second}},
	} {
		synctest.Test(t, func(t *testing.T) {
			key := job.NewKey()
			s, err := server.New(server.Config{Allow: []job.ID{key.ID()}, DontListen: true, Lease: c.lease})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 2)
			go func() { done <- s.Run(ctx) }()
			<-s.Ready()
			id, err := ident.New()
			if err != nil {
				t.Fatal(err)
			}
			renewed := make(chan time.Time, 8)
			in, err := rendezvous.Dial(ctx, rendezvous.Config{
				InProcess: s, Key: key, Name: "a", Identity: id,
				Hints: func() rendezvous.Hints { renewed <- time.Now(); return 0 }, // asked for each renewal
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := in.Join(ctx); err != nil {
				t.Fatal(err)
			}
			joined := time.Now()
			go func() { _ = in.Run(ctx) }()
			synctest.Wait()
			if c.news {
				if err := in.Hear(rendezvous.Inbox{V: 1, Type: rendezvous.InboxRelays, SpreadMS: c.spreadMS}); err != nil {
					t.Error(err)
				}
			}
			last := joined
			for _, want := range [][2]time.Duration{c.first, c.then, c.then} {
				at := <-renewed
				if d := at.Sub(last); d < want[0] || d > want[1] {
					t.Errorf("%+v: after %v, want %v", c, d, want)
				}
				last = at
			}
			_ = in.Close()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// A service that grants an absurd lease does no harm.
func TestAbsurdLease(t *testing.T) {
	for _, lease := range []time.Duration{-time.Hour, time.Millisecond, 1_000_000 * time.Hour} {
		if _, err := server.New(server.Config{DontListen: true, Lease: lease}); err == nil {
			t.Errorf("%v is taken", lease)
		}
	}
	for _, ms := range []int64{math.MinInt64, 0, 99, 100, 86_400_000, 86_400_001, math.MaxInt64} {
		want := time.Duration(min(ms, 86_400_000)) * time.Millisecond
		if ms < 100 {
			want = 0
		}
		if got := rendezvous.LeaseOf(ms); got != want {
			t.Errorf("%d ms: %v, want %v", ms, got, want)
		}
	}
}
