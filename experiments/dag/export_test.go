package dag

import (
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
