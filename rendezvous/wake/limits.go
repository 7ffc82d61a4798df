package wake

import (
	"context"
	"time"

	"github.com/fnwire/fnwire/internal/job"
)

type nameKey struct {
	job  job.ID
	name string
}

type name struct {
	turn   gate // lets one event in
	users  int
	bucket bucket
}

// gate lets as many in as its capacity is.
type gate chan struct{}

// try returns ErrBusy if the gate is full.
func (g gate) try() error {
	select {
	case g <- struct{}{}:
		return nil
	default:
		return ErrBusy
	}
}

// wait returns ErrBusy if the gate was full until the timer fired.
func (g gate) wait(ctx context.Context, timer *time.Timer) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-timer.C:
		return ErrBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g gate) leave() { <-g }

// bucket of tokens, by the generic cell rate algorithm.
type bucket struct{ full time.Time } // when it will be

// take takes one and returns how long it is until there was one. If that is longer than patience nothing is taken.
func (b *bucket) take(now time.Time, burst int, every, patience time.Duration) (wait time.Duration, ok bool) {
	full := b.full
	if full.Before(now) {
		full = now
	}
	wait = max(full.Sub(now)-time.Duration(burst-1)*every, 0)
	if wait > patience {
		return 0, false
	}
	b.full = full.Add(every)
	return wait, true
}

// enter waits for the name's turn, and for the rates of name and hook.
func (s *Sender) enter(ctx context.Context, h *Hook, k nameKey) (leave func(), err error) {
	s.mu.Lock()
	one := s.names[k]
	if one == nil {
		if s.forget(); len(s.names) >= maxNames {
			s.mu.Unlock()
			return nil, ErrBusy
		}
		one = &name{turn: make(gate, 1)}
		s.names[k] = one
	}
	if one.users >= perName {
		s.mu.Unlock()
		return nil, ErrBusy
	}
	one.users++
	s.mu.Unlock()
	out := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		one.users--
	}
	timer := time.NewTimer(s.cfg.MaxPause)
	defer timer.Stop()
	if err := one.turn.wait(ctx, timer); err != nil {
		out()
		return nil, err
	}
	leave = func() { one.turn.leave(); out() }
	wait, ok := s.charge(h, one)
	if err = ErrBusy; ok {
		err = sleep(ctx, wait)
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// charge takes from the buckets of hook and name and returns how long to wait until there was something in both.
func (s *Sender) charge(h *Hook, one *name) (wait time.Duration, ok bool) {
	now, patience := time.Now(), s.cfg.MaxPause/2
	h.mu.Lock()
	wait, ok = h.bucket.take(now, 10*h.rate, time.Second/time.Duration(h.rate), patience)
	h.mu.Unlock()
	if !ok {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	longer, ok := one.bucket.take(now, s.cfg.Burst, s.cfg.Every, patience)
	return max(wait, longer), ok
}

// forget drops names about which there is nothing to remember, now and then. It needs s.mu.
func (s *Sender) forget() {
	if n := len(s.names); n < 1024 || n&(n-1) != 0 && n < maxNames {
		return
	}
	now := time.Now()
	for k, one := range s.names {
		if one.users == 0 && !one.bucket.full.After(now) {
			delete(s.names, k)
		}
	}
}
