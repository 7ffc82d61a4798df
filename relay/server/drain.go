package server

import (
	"time"

	"github.com/fnwire/fnwire/relay"
)

const (
	drainStep   = time.Millisecond // between packets of notices
	drainRounds = 2                // how often a session is told: a notice may get lost
)

// drain tells all sessions that the relay is about to end and goes on forwarding meanwhile, for the time of Config.Drain. Binds
// are refused from now on. Notices go to proven addresses only, evenly over half of that time; the other half is for who is
// told last. It returns early if a socket fails.
func (s *Server) drain(failed <-chan error) error {
	if s.cfg.Drain <= 0 {
		return nil
	}
	s.draining.Store(true)
	all := s.table.proven(s.now())
	s.log.Info("relay: about to end", "sessions", len(all), "in", s.cfg.Drain)
	end := time.NewTimer(s.cfg.Drain)
	defer end.Stop()
	tick := time.NewTicker(drainStep)
	defer tick.Stop()
	steps := max(int(s.cfg.Drain/2/drainStep), 1)
	perStep := (drainRounds*len(all) + steps - 1) / steps
	var out []byte
	for told := 0; ; {
		for range min(perStep, drainRounds*len(all)-told) {
			sess := all[told%len(all)]
			out = relay.AppendRefused(out[:0], relay.Refused{Reason: relay.ReasonDraining, Nonce: s.table.nonceOf(sess)})
			s.reply(s.ports[0], out, sess.at)
			told++
		}
		select {
		case <-end.C:
			return nil
		case err := <-failed:
			return err
		case <-tick.C:
		}
	}
}
