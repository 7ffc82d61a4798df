package server_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

func TestAsk(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	a := dial(t, s.URL(), key, "a")
	linked := true
	b := dial(t, s.URL(), key, "b", func(c *rendezvous.Config) {
		c.Linked = func(peer string) bool { return linked && peer == a.id.Peer.String() }
	})
	c := dial(t, s.URL(), key, "c") // answers nothing, as if it were frozen
	a.join(t)
	b.join(t)
	c.join(t)
	peerB, peerC := b.id.Peer.String(), c.id.Peer.String()
	if ok, err := a.Ask(within(t), peerB, time.Now()); !ok || err != nil {
		t.Errorf("with a link: %v, %v", ok, err)
	}
	linked = false
	if ok, err := a.Ask(within(t), peerB, time.Now()); ok || err != nil {
		t.Errorf("without a link: %v, %v", ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := a.Ask(ctx, peerC, time.Now()); err == nil || errors.Is(err, rendezvous.ErrGone) {
		t.Errorf("an instance that does not answer: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	gone := func(since time.Time) error {
		for end := time.Now().Add(10 * time.Second); ; { // the server may not have noticed yet
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, err := a.Ask(ctx, peerB, since)
			cancel()
			if errors.Is(err, rendezvous.ErrGone) || errors.Is(err, rendezvous.ErrNoService) || time.Now().After(end) {
				return err
			}
		}
	}
	want(t, gone(time.Now()), rendezvous.ErrGone)
	// It was silent before this instance was connected: it may be the rendezvous that was away.
	if err := gone(time.Now().Add(-time.Hour)); errors.Is(err, rendezvous.ErrGone) {
		t.Errorf("taken for gone: %v", err)
	}
	if _, err := a.Ask(within(t), "a.b", time.Now()); err == nil {
		t.Error("an illegal peer ID is asked")
	}
}
