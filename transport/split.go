package transport

import (
	"time"

	"github.com/quic-go/quic-go"
)

const (
	splitAfter = 2                // looks in a row at which a link lost a tenth or more
	splitTrial = 4                // looks until a trial is judged; what is lost at the first was sent before
	splitAgain = 30 * time.Second // after a trial that helped: the loss must come back with the batches, and go again
	splitPause = time.Minute      // until the next trial otherwise
	splitFor   = 10 * time.Minute // for which packets are sent one by one, before batches are tried again
)

// split finds out whether a network card drops batches (UDP_SEGMENT) and lets single packets go, which some virtual ones do without
// telling anybody. When a link loses much, packets are sent one by one for a while. If that helps, the loss comes back with the batches, and
// it helps again, it stays so for some minutes, which costs CPU time only: congestion comes and goes by itself, but not so. It is for mind.
type split struct {
	link       *Link     // of the trial
	left       int       // looks until it is judged
	sent, lost uint64    // packets of the link before those that count
	helped     *Link     // of the last trial, if it helped
	ended      time.Time // when it did
	found      bool      // batches are dropped, as it showed
}

// look is called once a second for each link.
func (s *split) look(e *Endpoint, l *Link, st quic.ConnectionStats) {
	sent, lost := st.PacketsSent-l.lastSent, st.PacketsLost-l.lastLost
	l.lastSent, l.lastLost = st.PacketsSent, st.PacketsLost
	now := time.Now()
	switch {
	case s.found:
		if now.Sub(s.ended) >= splitFor {
			s.found = false
			e.hub.batches(true)
		}
	case s.link == l:
		if s.left--; s.left == splitTrial-1 {
			s.sent, s.lost = st.PacketsSent, st.PacketsLost
		}
		if s.left == 0 {
			s.judge(e, st.PacketsSent-s.sent, st.PacketsLost-s.lost, now)
		}
	case s.link != nil && s.link.conn.Context().Err() != nil: // it will not be judged
		s.link = nil
		e.hub.batches(true)
	case s.link != nil:
	case lost < 5 || lost*10 < sent:
		l.lossy = 0
	default:
		l.lossy++
		since := now.Sub(s.ended)
		if since >= splitAgain {
			s.helped = nil
		}
		if l.lossy >= splitAfter && (s.helped == l || since >= splitPause) {
			l.lossy, s.link, s.left = 0, l, splitTrial
			e.hub.batches(false)
		}
	}
}

// judge ends a trial, given what was sent and lost meanwhile.
func (s *split) judge(e *Endpoint, sent, lost uint64, now time.Time) {
	l, helps := s.link, lost*20 < sent
	s.found = helps && s.helped == l
	s.link, s.helped, s.ended = nil, nil, now
	if s.found {
		e.log.Warn("transport: packets are sent one by one: the network card loses those that are sent in batches", "for", splitFor)
		return
	}
	if helps {
		s.helped = l
	}
	e.hub.batches(true)
}
