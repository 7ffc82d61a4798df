package transport

import "github.com/quic-go/quic-go"

const (
	splitAfter = 2  // looks in a row at which a link lost a tenth or more
	splitTrial = 3  // looks until a trial is judged
	splitPause = 60 // looks until the next one
)

// split finds out whether a network card drops batches (UDP_SEGMENT) and lets single packets go, which some virtual ones do without
// telling anybody. When a link loses much, packets are sent one by one for a while; if that helps it stays so, which costs
// CPU time only. It is for mind.
type split struct {
	link  *Link // of the trial
	left  int   // looks until it is judged, or until the next may begin
	found bool  // batches are dropped
}

// look is called once a second for each link.
func (s *split) look(e *Endpoint, l *Link, st quic.ConnectionStats) {
	sent, lost := st.PacketsSent-l.lastSent, st.PacketsLost-l.lastLost
	l.lastSent, l.lastLost = st.PacketsSent, st.PacketsLost
	switch {
	case s.found:
	case s.link == l:
		if s.left--; s.left > 0 {
			return
		}
		s.link, s.left = nil, splitPause
		if s.found = lost*20 < sent; s.found {
			e.log.Warn("transport: packets are sent one by one from now on: the network card loses those that are sent in batches")
			return
		}
		e.hub.batches(true)
	case s.link != nil && s.link.conn.Context().Err() != nil: // it will not be judged
		s.link = nil
		e.hub.batches(true)
	case s.link != nil:
	case s.left > 0:
		s.left--
	case lost < 5 || lost*10 < sent:
		l.lossy = 0
	default:
		if l.lossy++; l.lossy >= splitAfter {
			l.lossy, s.link, s.left = 0, l, splitTrial
			e.hub.batches(false)
		}
	}
}
