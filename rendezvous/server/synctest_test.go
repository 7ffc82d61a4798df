package server_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// inBubble runs a server in a bubble of virtual time until stop.
func inBubble(t *testing.T, cfg server.Config) (s *server.Server, stop func()) {
	t.Helper()
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	return s, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestVirtualTime shows that an embedded NATS and its clients work in a bubble of virtual time: hours
// of leases and parked offers pass in no time, to the millisecond.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := job.NewKey()
		s, stop := inBubble(t, server.Config{Allow: []job.ID{key.ID()}, DontListen: true, RelaySecret: secret})
		inProcess := func(c *rendezvous.Config) { c.InProcess = s }
		a, b := dial(t, "", key, "a", inProcess), dial(t, "", key, "b", inProcess)
		a.join(t)
		life, end := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- a.Run(life) }()

		if r := a.offer(t, "b"); r.Delivered {
			t.Error("delivered to nobody")
		}
		time.Sleep(rendezvous.MaxPark - time.Second)
		if j := b.join(t); len(j.Parked) != 1 {
			t.Errorf("%d offers after just under ten minutes, want 1", len(j.Parked))
		}
		if r := a.offer(t, "b"); !r.Delivered {
			t.Error("not delivered")
		}
		<-b.envelopes
		if err := b.Leave(within(t)); err != nil {
			t.Fatal(err)
		}
		a.offer(t, "b")
		time.Sleep(rendezvous.MaxPark + time.Second)
		if j := b.join(t); len(j.Parked) != 0 {
			t.Errorf("%d offers after more than ten minutes, want none", len(j.Parked))
		}

		// b renews nothing: its lease ends when it should.
		time.Sleep(server.DefaultLease - time.Second)
		if _, err := a.Lookup(within(t), "b"); err != nil {
			t.Errorf("a second before the lease ends: %v", err)
		}
		time.Sleep(time.Second)
		_, err := a.Lookup(within(t), "b")
		want(t, err, rendezvous.ErrNotFound)

		// An announced relay is gone 30 s after its last word.
		relayCtx, silence := context.WithCancel(t.Context())
		silent := make(chan error, 1)
		go func() {
			silent <- rendezvous.AnnounceRelay(relayCtx, rendezvous.AnnounceConfig{InProcess: s, Secret: secret, Relay: relayInfo("r", 1)})
		}()
		if r := <-a.relays; len(r) != 1 || r[0].ID != "r" {
			t.Errorf("relays %+v", r)
		}
		time.Sleep(time.Hour) // tokens are renewed meanwhile
		fresh := 0
		for len(a.relays) > 0 {
			if r := <-a.relays; len(r) != 1 {
				t.Errorf("relays %+v", r)
			}
			fresh++
		}
		if fresh < 20 || fresh > 28 { // one for each 2.5 minutes
			t.Errorf("%d fresh tokens in an hour", fresh)
		}
		silence()
		want(t, <-silent, context.Canceled)
		time.Sleep(rendezvous.AnnounceTTL + server.DefaultLease/2)
		if r := <-a.relays; len(r) != 0 {
			t.Errorf("relays %+v", r)
		}

		// A wait held for longer than one request lasts ends at the moment of the join.
		waited := make(chan time.Time, 1)
		go func() {
			_, _ = a.Wait(within(t), "c")
			waited <- time.Now()
		}()
		time.Sleep(3 * time.Second)
		c := dial(t, "", key, "c", inProcess)
		joined := time.Now()
		c.join(t)
		if at := <-waited; at.Sub(joined) > time.Millisecond {
			t.Errorf("heard of the join %v later", at.Sub(joined))
		}

		end()
		want(t, <-ran, context.Canceled)
		for _, in := range []*instance{a, b, c} {
			_ = in.Close()
		}
		stop()
	})
}

// TestLeaseAmongMany: leases grow with the names that are held, of whatever job, once there are very many.
func TestLeaseAmongMany(t *testing.T) {
	for _, c := range []struct {
		others      int
		base, lease time.Duration
	}{
		{0, 0, server.DefaultLease},
		{3000, 0, server.DefaultLease},
		{6000, 0, 2 * server.DefaultLease},
		{12000, 0, 100 * time.Second},
		{6000, 4 * time.Second, 8 * time.Second},
		{12000, time.Hour, time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			key := job.NewKey()
			s, stop := inBubble(t, server.Config{Allow: []job.ID{key.ID()}, DontListen: true, Lease: c.base})
			if err := s.Hold(t.Context(), job.NewKey().ID(), c.others); err != nil {
				t.Fatal(err)
			}
			inProcess := func(c *rendezvous.Config) { c.InProcess = s }
			a, b := dial(t, "", key, "a", inProcess), dial(t, "", key, "b", inProcess)
			if j := a.join(t); j.Lease != c.lease {
				t.Errorf("among %d others, with %v: a lease of %v, want %v", c.others, c.base, j.Lease, c.lease)
			}
			time.Sleep(c.lease - time.Second)
			if _, err := b.Lookup(within(t), "a"); err != nil {
				t.Errorf("a second before the lease ends: %v", err)
			}
			time.Sleep(time.Second)
			_, err := b.Lookup(within(t), "a")
			want(t, err, rendezvous.ErrNotFound)
			for _, in := range []*instance{a, b} {
				_ = in.Close()
			}
			stop()
		})
	}
}
