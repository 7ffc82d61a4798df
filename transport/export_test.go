package transport

import (
	"context"
	"log/slog"
	"time"
)

var discard = slog.New(slog.DiscardHandler)

// AbandonPaths begins to move the QUIC connection to n paths by the relay, one after another, and gives each up when the server has
// had time to hear of it. It must not be called while the link follows a direct path.
func (l *Link) AbandonPaths(ctx context.Context, n uint16) error {
	for i := range n {
		path, err := l.conn.AddPath(l.shimFor(firstFresh + 100 + i))
		if err != nil {
			return err
		}
		if err := path.Probe(ctx); err != nil {
			return err
		}
		if err := path.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Thaw does what follows a freeze of the process.
func (e *Endpoint) Thaw() { e.thawed(time.Now()) }

// Talking tells whether a stream is open with the link's peer that a direct path would carry.
func (l *Link) Talking() bool { return l.peer.talking() }
