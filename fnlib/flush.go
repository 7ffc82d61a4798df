package fnlib

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/fnwire/fnwire/transport"
)

const (
	ackDelay      = 30 * time.Millisecond // QUIC acknowledges what it got 25 ms later at most (RFC 9000, 13.2.1)
	confirmWithin = 2 * time.Second       // a sender that has not shown by then that it knows its receipt asks for it another time
)

// Flush waits until nothing is under way: each state that was handed to Send is accepted or stored, or its Send has failed; the sender
// of each state that was accepted here knows; what a Get that has ended was asked to pass on to others is sent; and QUIC owes nobody an acknowledgement. It is what a handler does last on a platform that
// freezes the process as soon as the handler has returned: without it nothing is lost either, but peers wait for what this node has not
// said until it is thawed, and the states of a Send in a goroutine of its own until then or until SIGTERM. It takes no time if
// there is nothing, up to 30 ms otherwise once all is said. What a Conn carries is the application's to wait for. The error matches the context's,
// ErrClosed or ErrFenced.
func (n *Node) Flush(ctx context.Context) error {
	for {
		idle, last := n.busy.state()
		var quiet <-chan time.Time
		if idle == nil {
			rest := ackDelay - time.Since(last)
			if rest <= 0 {
				return nil
			}
			quiet = time.After(rest)
		}
		select {
		case <-idle:
		case <-quiet:
		case <-ctx.Done():
			return fmt.Errorf("fnlib: flush: %w", ctx.Err())
		case <-n.ctx.Done():
			return fmt.Errorf("fnlib: flush: %w", n.Err())
		}
	}
}

// busy counts what Flush waits for.
type busy struct {
	mu   sync.Mutex // guards what follows
	n    int
	idle chan struct{} // closed when n is 0 again; nil while it is
	last time.Time     // when something ended, or a word was said
}

// begin notes that something is under way; the returned function notes its end, once.
func (b *busy) begin() (end func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n++; b.idle == nil {
		b.idle = make(chan struct{})
	}
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.last = time.Now()
		if b.n--; b.n == 0 {
			close(b.idle)
			b.idle = nil
		}
	})
}

// state returns what is closed when nothing is under way; nil if nothing is, since last.
func (b *busy) state() (idle <-chan struct{}, last time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.idle, b.last
}

// conclude says the last word on a state, and closes its stream when the sender has ended it, as it does when it knows.
func (n *Node) conclude(s *transport.Stream, p reply) error {
	t := n.trafficOf(s.Link())
	defer t.update(func() { t.wrote = true })
	_ = s.SetWriteDeadline(time.Now().Add(headerDeadline))
	if _, err := s.Write(appendReply(nil, p)); err != nil || p.status != statusAccepted {
		_ = s.Close() // the sender need not go on
		return err
	}
	_ = s.CloseWrite()
	end := n.busy.begin()
	_ = s.SetReadDeadline(time.Now().Add(confirmWithin))
	n.wg.Go(func() {
		defer end()
		_, _ = io.Copy(io.Discard, s) // to the end, or there is nothing to wait for; of what came early there are bytes
		_ = s.Close()
	})
	return nil
}
