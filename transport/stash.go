package transport

import (
	"time"

	"github.com/fnwire/fnwire/internal/ident"
)

const (
	stashPeers   = 32
	stashPackets = 8
	stashFor     = 2 * time.Second
)

// stash keeps the first relayed packets of instances that are not admitted yet. The peer dials as
// soon as it has sent its answer, and its first packet may overtake the answer, which takes another
// way; without the stash QUIC would wait for its retransmission timer. The relay has checked that the
// sender belongs to the job. It is used under hub.mu.
type stash struct {
	peers map[ident.Short]*stashed
}

type stashed struct {
	until   time.Time
	packets [][]byte
	tags    []uint32
}

func (s *stash) add(now time.Time, from ident.Short, tag uint32, packet []byte) {
	e := s.peers[from]
	if e != nil && now.After(e.until) {
		delete(s.peers, from)
		e = nil
	}
	if e == nil {
		s.expire(now)
		if len(s.peers) >= stashPeers {
			return
		}
		if s.peers == nil {
			s.peers = make(map[ident.Short]*stashed)
		}
		e = &stashed{until: now.Add(stashFor)}
		s.peers[from] = e
	}
	if len(e.packets) < stashPackets {
		e.packets = append(e.packets, append([]byte(nil), packet...))
		e.tags = append(e.tags, tag)
	}
}

func (s *stash) expire(now time.Time) {
	for k, e := range s.peers {
		if now.After(e.until) {
			delete(s.peers, k)
		}
	}
}

func (s *stash) take(now time.Time, from ident.Short) *stashed {
	e := s.peers[from]
	delete(s.peers, from)
	if e == nil || now.After(e.until) {
		return nil
	}
	return e
}

// stray keeps the first flight of a handshake from an instance that is not admitted (yet).
func (h *hub) stray(from ident.Short, tag uint32, packet []byte) {
	h.stats.strangers.Add(1)
	if !isLongHeader(packet) || len(packet) > smallBuffer {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stash.add(time.Now(), from, tag, packet)
}

// replay delivers what was kept for p, which has just been admitted.
func (h *hub) replay(p *remote) {
	h.mu.Lock()
	kept := h.stash.take(time.Now(), p.short)
	h.mu.Unlock()
	if kept == nil {
		return
	}
	for i, b := range kept.packets {
		buf := getBuffer(h.small)
		n := copy(buf.b, b)
		c := cutter{hub: h, t: h.tables.Load(), buf: buf, data: buf.b[:n]}
		c.fromRelay(p, uint16(kept.tags[i]), buf.b[:n], buf.b[:n])
		c.flush()
		buf.release()
	}
}
