package server

import "sync/atomic"

// Why packets are dropped.
const (
	dropStranger      = iota // not authenticated, or no session
	dropMalformed            // no frame
	dropReplay               // an old bind
	dropGone                 // destination not bound
	dropCrossJob             // destination in another job
	dropLimit                // rate limits
	dropAmplification        // unproven address
	dropSend                 // the socket refused it
	dropQueue                // the destination's connection over TLS is too slow
	drops
)

var (
	dropNames   = [drops]string{"stranger", "malformed", "replay", "gone", "cross_job", "limit", "amplification", "send", "queue"}
	reasonNames = [...]string{"other", "expired", "clock", "full", "job_full", "prefix_full", "revoked", "draining"}
)

type counters struct {
	packetsIn, packetsOut, bytesIn, bytesOut atomic.Uint64 // DATA frames, with their headers
	challenged, bound, ended, stunAnswered   atomic.Uint64
	dropped                                  [drops]atomic.Uint64
	refused                                  [len(reasonNames)]atomic.Uint64
}

// Stats is what a relay did since its start.
type Stats struct {
	Sessions             int    // now
	Connections          int    // over TLS, now
	PacketsIn, BytesIn   uint64 // DATA frames of sessions, with their headers
	PacketsOut, BytesOut uint64
	Challenged, Bound    uint64 // binds accepted, addresses proven
	Ended                uint64 // sessions that expired
	STUN                 uint64 // binding requests answered
	Dropped              map[string]uint64
	Refused              map[string]uint64
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	st := Stats{
		Sessions: s.table.count(), Connections: s.links.count(),
		PacketsIn: s.packetsIn.Load(), BytesIn: s.bytesIn.Load(),
		PacketsOut: s.packetsOut.Load(), BytesOut: s.bytesOut.Load(),
		Challenged: s.challenged.Load(), Bound: s.bound.Load(), Ended: s.ended.Load(), STUN: s.stunAnswered.Load(),
		Dropped: make(map[string]uint64, drops), Refused: make(map[string]uint64, len(reasonNames)),
	}
	for i, n := range dropNames {
		st.Dropped[n] = s.dropped[i].Load()
	}
	for i, n := range reasonNames {
		st.Refused[n] = s.refused[i].Load()
	}
	return st
}
