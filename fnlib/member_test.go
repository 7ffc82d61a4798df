package fnlib_test

import (
	"context"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
)

// Instances that are gone make room for new ones.
func TestMembersMakeRoom(t *testing.T) {
	w := newWorld(t, 1)
	a := w.join(t, "a")
	w.join(t, "b")
	fnlib.FillMembers(a)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := a.Ping(ctx, "b", fnlib.Auto); err != nil {
		t.Error(err)
	}
}

// When a node's home relay dies, new peers reach it through another.
func TestHomeRelayDies(t *testing.T) {
	w := newWorld(t, 2)
	a := w.join(t, "a")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	home := ""
	usable := func() (n int) {
		for _, r := range a.Relays() {
			if r.Err == nil && r.RTT > 0 {
				n++
			}
			if r.Home {
				home = r.ID
			}
		}
		return n
	}
	for usable() < 2 {
		time.Sleep(10 * time.Millisecond)
	}
	w.rels[int(home[1]-'1')].stop()
	dead := func() bool {
		for _, r := range a.Relays() {
			if r.ID == home && r.Err != nil {
				return true
			}
		}
		return false
	}
	for ; !dead(); time.Sleep(50 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("the relay's death was not noticed")
		}
	}
	w.join(t, "b")
	p, err := a.Ping(ctx, "b", fnlib.RelayOnly)
	if err != nil || p.Link.Path != "relay" {
		t.Errorf("%+v, %v", p, err)
	}
}
