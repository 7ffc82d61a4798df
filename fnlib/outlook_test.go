package fnlib_test

import (
	"testing"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/transport/punch"
)

// What an instance that has ended saw of hard NATs, later ones of its job go by when they meet a peer.
func TestOutlooksOutliveInstances(t *testing.T) {
	w := newWorld(t, 1)
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	stable, random := punch.NAT{Mapping: punch.MappingStable}, punch.NAT{Mapping: punch.MappingRandom}
	seen := punch.Outlooks(0).With(random, stable, punch.OutlookGood)
	c, err := rendezvous.Dial(t.Context(), rendezvous.Config{
		URL: w.url, Key: w.key, Name: "gone", Identity: id, Hints: func() rendezvous.Hints { return rendezvous.Hints(seen) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, b := w.join(t, "a"), w.join(t, "b")
	if _, err := a.Ping(t.Context(), "b", fnlib.Auto); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*fnlib.Node{a, b} {
		if got := fnlib.OutlooksOf(n); got != seen {
			t.Errorf("%s goes by %b, want %b", n.Name(), got, seen)
		}
	}
}
