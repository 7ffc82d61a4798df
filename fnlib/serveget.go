package fnlib

import (
	"io"
	"sync"
	"time"

	"github.com/fnwire/fnwire/transport"
)

// getStall is how long a getter may take nothing. It asks only for what it has room for, so it is gone, or frozen.
const getStall = 30 * time.Second

// getBufs are buffers of answers under way.
var getBufs = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// serveGet answers who asks for a state that this node keeps.
func (n *Node) serveGet(s *transport.Stream) error {
	g, err := readGet(s)
	if err != nil {
		return err
	}
	t := n.trafficOf(s.Link())
	defer t.begin(false)()
	leave := n.kept.admit(s.Link().Peer())
	if leave == nil {
		return writeGot(s, t, appendGot(nil, gotHeader{status: gotBusy}), nil)
	}
	defer leave()
	switch g.what {
	case getDone:
		return writeGot(s, t, appendGot(nil, gotHeader{status: n.kept.count(g.id, g.by)}), nil)
	case getDrop:
		return writeGot(s, t, appendGot(nil, gotHeader{status: n.kept.drop(g.id)}), nil)
	}
	h, got := n.kept.look(g.id)
	if got.status != gotHere {
		return writeGot(s, t, appendGot(nil, got), nil)
	}
	if uint64(g.first)+uint64(g.count) > uint64(len(h.digests)) {
		return errWire
	}
	head := appendGot(nil, got)
	if g.what == getDigests {
		head = appendDigests(head, h.digests)
	}
	from := int64(g.first) * blockSize
	to := min(int64(g.first+g.count)*blockSize, h.size)
	return writeGot(s, t, head, io.NewSectionReader(h.content, from, to-from))
}

// writeGot writes an answer, as fast as the peer takes it.
func writeGot(s *transport.Stream, t *traffic, head []byte, body *io.SectionReader) error {
	buf := getBufs.Get().(*[64 << 10]byte)
	defer getBufs.Put(buf)
	for len(head) > 0 {
		m := min(len(head), len(buf))
		_ = s.SetWriteDeadline(time.Now().Add(getStall))
		if _, err := s.Write(head[:m]); err != nil {
			return err
		}
		head = head[m:]
	}
	for body != nil {
		m, err := body.Read(buf[:])
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		_ = s.SetWriteDeadline(time.Now().Add(getStall))
		if _, err := s.Write(buf[:m]); err != nil {
			return err
		}
	}
	t.update(func() { t.wrote = true })
	return s.Close()
}
