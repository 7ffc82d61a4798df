package fnlib

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/fnwire/fnwire/transport"
)

// getStall is how long a getter may take nothing. It asks only for what it has room for, so it is gone, or frozen.
const getStall = 30 * time.Second

// getBufs are buffers of answers under way.
var getBufs = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// serveGet answers who asks for states that this node keeps, or gets itself, one request after the other.
func (n *Node) serveGet(s *transport.Stream) error {
	n.trafficOf(s.Link()).begin(false)() // counted as seen
	a := asked{aborted: make(chan struct{})}
	defer n.kept.leave(&a.entry)
	s.AfterAborted(func() { close(a.aborted) })
	for {
		g, err := readGet(s)
		if err != nil {
			return err
		}
		if err := n.answerGet(s, g, &a); err != nil {
			return err
		}
		_ = s.SetReadDeadline(time.Time{}) // until the getter has room for more
		var kind [1]byte
		if n, _ := io.ReadFull(s, kind[:]); n == 0 { // it has no further request, whatever the end was
			return s.Close()
		}
		if kind[0] != streamGet {
			return fmt.Errorf("%w: type %#x after a GET", errWire, kind[0])
		}
		_ = s.SetReadDeadline(time.Now().Add(headerDeadline))
	}
}

// asked is what the requests of one stream have in common.
type asked struct {
	entry   entry
	aborted chan struct{} // closed when the peer wants no more
}

// answerGet answers one request.
func (n *Node) answerGet(s *transport.Stream, g getRequest, a *asked) error {
	leave := n.kept.admit(s.Link().Peer())
	if leave == nil {
		return n.writeGot(s, appendGot(nil, gotHeader{status: gotBusy}), nil)
	}
	defer leave()
	switch g.what {
	case getDone:
		return n.writeGot(s, appendGot(nil, gotHeader{status: n.kept.count(g.id, g.by)}), nil)
	case getDrop:
		return n.writeGot(s, appendGot(nil, gotHeader{status: n.kept.drop(g.id)}), nil)
	}
	h, got := n.kept.look(g.id)
	switch {
	case got.status == gotUnknown:
		return n.passOn(s, n.kept.underWay(g.id), g, a.aborted)
	case got.status != gotHere:
		return n.writeGot(s, appendGot(nil, got), nil)
	}
	if uint64(g.first)+uint64(g.count) > uint64(len(h.digests)) {
		return fmt.Errorf("%w: GET of %d blocks from %d, of %d", errWire, g.count, g.first, len(h.digests))
	}
	if g.what == getDigests && s.Link().Status().RTT < leadRTT {
		got.place, got.lead = n.kept.enter(&a.entry, h, n.nameOf(s.Link().Peer()))
	}
	head := appendGot(nil, got)
	if g.what == getDigests {
		head = appendDigests(head, h.digests)
	}
	if got.lead != "" {
		g.count = 0
	}
	from := int64(g.first) * blockSize
	to := min(int64(g.first+g.count)*blockSize, h.size)
	return n.writeGot(s, head, io.NewSectionReader(h.content, from, to-from))
}

// writeGot writes an answer, as fast as the peer takes it. body may be nil.
func (n *Node) writeGot(s *transport.Stream, head []byte, body io.Reader) error {
	r := io.Reader(bytes.NewReader(head))
	if body != nil {
		r = io.MultiReader(r, body)
	}
	buf := getBufs.Get().(*[64 << 10]byte)
	defer getBufs.Put(buf)
	for {
		m, err := r.Read(buf[:])
		if m > 0 {
			_ = s.SetWriteDeadline(time.Now().Add(getStall))
			if _, err := s.Write(buf[:m]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			t := n.trafficOf(s.Link())
			t.update(func() { t.wrote = true })
			return nil
		}
		if err != nil {
			return err
		}
	}
}
