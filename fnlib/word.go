package fnlib

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/fnwire/fnwire/transport"
)

// word is what the receiver says of a state.
type word struct {
	taken   chan struct{} // closed when the application has turned to it; maybe never
	further chan struct{} // poked when offset has grown; capacity 1
	offset  atomic.Int64  // how far the application has come
	come    chan struct{} // closed when the rest is set
	reply   reply
	err     error
}

func listenFor(s io.Reader) *word {
	w := &word{taken: make(chan struct{}), further: make(chan struct{}, 1), come: make(chan struct{})}
	go func() {
		defer close(w.come)
		said := false
		w.reply, w.err = readReply(s, func(offset int64) error {
			if offset < w.offset.Load() {
				return fmt.Errorf("%w: offset %d after %d", errWire, offset, w.offset.Load())
			}
			w.offset.Store(offset)
			if !said {
				said = true
				close(w.taken)
			}
			poke(w.further)
			return nil
		})
	}()
	return w
}

// early is the error of a word that came before the state was sent; nil if it is a reply, which says enough.
func (w *word) early() error {
	if w.err != nil {
		return w.err
	}
	return errEarly
}

var errEarly = fmt.Errorf("%w: the receiver has said its last word", transport.ErrReset)
