package fnlib

import (
	"context"
	"sync"
	"time"

	"github.com/fnwire/fnwire/transport"
)

// wrote remembers that a stream on a link was closed with bytes perhaps still under way.
func (n *Node) wrote(l *transport.Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unflushed[l] = time.Now()
	for l := range n.unflushed {
		select {
		case <-l.Done():
			delete(n.unflushed, l)
		default:
		}
	}
}

// linger gives the last bytes of closed connections time to arrive, for closing a QUIC connection
// drops what is under way. QUIC does not tell when a stream is acknowledged, but a ping that is sent
// after it and comes back tells that the peer has everything, unless packets were lost in between;
// then it waits for the repetition.
func (n *Node) linger() {
	n.mu.Lock()
	links := make([]*transport.Link, 0, len(n.unflushed))
	for l, at := range n.unflushed {
		if time.Since(at) < 2*lingerTimeout {
			links = append(links, l)
		}
	}
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), lingerTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, l := range links {
		wg.Go(func() { flush(ctx, l) })
	}
	wg.Wait()
}

func flush(ctx context.Context, l *transport.Link) {
	for lost := l.Status().Lost; ; {
		if _, err := pingLink(ctx, l, [pingSize]byte{streamPing}); err != nil {
			return
		}
		now := l.Status().Lost
		if now == lost {
			return
		}
		lost = now
	}
}
