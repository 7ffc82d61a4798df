package server_test

import (
	"testing"
	"time"

	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/relay/server"
)

// A relay that was told to end says so to who has proven its address, twice at most, and forwards meanwhile.
func TestDrain(t *testing.T) {
	w := newWorldOf(t, func(c *server.Config) { c.Drain = 4 * time.Second })
	a, b, unproven, late := w.raw(), w.raw(), w.raw(), w.raw()
	session := a.challenge()
	a.prove(session)
	b.bind()
	unproven.challenge()
	w.ask()

	for range 2 { // the second one comes unless it is lost, which on loopback it is not
		m, ok := relay.ParseRefused(a.receive())
		if !ok || m.Reason != relay.ReasonDraining || m.Nonce != session.Nonce {
			t.Fatalf("told %+v", m)
		}
	}
	b.receive()
	b.receive()
	a.data(b.short, "still here")
	b.wantData(a.short, "still here")
	unproven.silence()
	a.silence()

	frame, n := late.bindFrame()
	late.send(frame)
	if m, ok := relay.ParseRefused(late.receive()); !ok || m.Reason != relay.ReasonDraining || m.Nonce != n {
		t.Errorf("a bind was answered by %+v", m)
	}
	if got := w.srv.Stats().Refused["draining"]; got != 1 {
		t.Errorf("%d binds refused", got)
	}
}
