package dag

import (
	"fmt"
	"io"
	"net/http"

	"github.com/fnwire/fnwire/fnlib/store"
)

// Apply is apply.
func (g *Graph) Apply(t Task, in []io.Reader) (io.Reader, error) { return g.apply(t, in) }

// OverStore is a function that hands over by a store.
func OverStore(name string, s store.Store) *Function {
	return &Function{name: name, hand: always(overStore{s}), http: &http.Client{Transport: &http.Transport{}}}
}

// Announced are the edges that the executor of a leaf tells of at its start.
func (g *Graph) Announced(leaf int) (all []Ask) {
	x := &executor{Event: Event{Run: "r", Schedule: g.Schedule(leaf), Start: leaf}, name: fmt.Sprint(leaf)}
	for _, e := range x.placed() {
		all = append(all, e.ask(false, false))
	}
	return all
}
