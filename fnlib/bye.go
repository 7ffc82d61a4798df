package fnlib

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
	"time"

	"github.com/fnwire/fnwire/transport"
)

// Closing a QUIC connection drops what is under way, and what has arrived and was not read yet. So a
// node that closes says BYE on each link first, and the peer answers when its application has read
// everything to its end.

// traffic counts the streams of one link that matter for a BYE.
type traffic struct {
	mu       sync.Mutex // guards what follows
	opened   uint32     // by this side, CONN, SEND and GET
	accepted uint32     // opened by the peer
	reading  int        // streams whose end this side has not read yet
	untaken  int        // bytes at most under way in states that the peer's application has not taken; see reserve
	rate     float64    // bytes a second that the link took of the last state that told; 0: none did
	wrote    bool       // this side has closed a stream, so that bytes may be under way
	changed  chan struct{}
}

func newTraffic() *traffic { return &traffic{changed: make(chan struct{})} }

func (t *traffic) update(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *traffic) lastRate() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rate
}

// noteRate notes what the link took of a state, if that was enough to tell.
func (t *traffic) noteRate(p *pump) {
	if p.chooser == nil || p.wire < chunkSize {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rate = p.chooser.Rate()
}

// begin notes a stream that this side reads from; the returned function notes its end, once.
func (t *traffic) begin(opened bool) (end func()) {
	t.update(func() {
		t.reading++
		if opened {
			t.opened++
		} else {
			t.accepted++
		}
	})
	return sync.OnceFunc(func() { t.update(func() { t.reading-- }) })
}

// quiet waits until the peer's streams have all arrived and everything was read.
func (t *traffic) quiet(peerOpened uint32, stop ...<-chan struct{}) {
	timer := time.NewTimer(lingerTimeout)
	defer timer.Stop()
	for {
		t.mu.Lock()
		done, changed := t.reading == 0 && t.accepted >= peerOpened, t.changed
		t.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			return
		case <-stop[0]:
			return
		case <-stop[1]:
			return
		}
	}
}

// trafficOf returns the counts of a link. Those of a link that is gone are kept nowhere.
func (n *Node) trafficOf(l *transport.Link) *traffic {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.traffic[l]
	if t == nil {
		t = newTraffic()
		select {
		case <-l.Done():
		default:
			n.traffic[l] = t
		}
	}
	return t
}

// linger says BYE on all links on which bytes may be under way, and waits for the answers, and for words on early states, until by, but neither
// too short nor too long.
func (n *Node) linger(by time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), min(max(time.Until(by), lingerLeast), lingerTimeout))
	defer cancel()
	var wg sync.WaitGroup
	n.mu.Lock()
	for l, t := range n.traffic {
		t.mu.Lock()
		wrote, opened := t.wrote, t.opened
		t.mu.Unlock()
		if wrote {
			wg.Go(func() { bye(ctx, l, opened) })
		}
	}
	n.mu.Unlock()
	wg.Wait()
	for {
		said, _ := n.words.state()
		if said == nil {
			return
		}
		select {
		case <-said:
		case <-ctx.Done():
			return
		}
	}
}

func appendBye(b []byte, opened uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, streamBye), opened)
}

func bye(ctx context.Context, l *transport.Link, opened uint32) {
	s, err := l.OpenStream(ctx)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { s.Reset(resetAborted) })()
	if _, err := s.Write(appendBye(nil, opened)); err == nil {
		_, _ = io.ReadFull(s, make([]byte, 1)) // the answer, or the end of patience
	}
	_ = s.Close()
}

func (n *Node) serveBye(s *transport.Stream) error {
	var b [byeSize - 1]byte
	if _, err := io.ReadFull(s, b[:]); err != nil {
		return err
	}
	n.trafficOf(s.Link()).quiet(binary.BigEndian.Uint32(b[:]), s.Link().Done(), n.ctx.Done())
	_, err := s.Write([]byte{streamBye})
	_ = s.Close()
	return err
}
