package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
)

// cookieFor is the least time for which a cookie is good; the most is twice that.
const cookieFor = 15 * time.Second

// controlFrame is a BIND or PROVE on its way to the goroutine that checks signatures.
type controlFrame struct {
	conn *udpx.Conn // for answers over UDP
	from origin
	n    int
	b    [relay.BindBytes]byte
}

// handleControl checks signatures apart from the forwarding, so that a flood of binds costs binds only.
func (s *Server) handleControl(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-s.control:
			out := s.answer(f.b[:f.n], f.from, time.Now())
			// By construction no answer is longer than its request.
			if len(out) > 0 && len(out) <= f.n {
				s.reply(f.conn, out, f.from)
			}
		}
	}
}

func (s *Server) answer(b []byte, from origin, wall time.Time) []byte {
	if b[0] == relay.TypeBind {
		return s.bind(b, from, wall)
	}
	return s.prove(b, from)
}

// bind returns CHALLENGE, REFUSED or, for who is not known, nothing.
func (s *Server) bind(b []byte, from origin, wall time.Time) []byte {
	m, ok := relay.ParseBind(b)
	key := s.cfg.TokenKey()
	if !ok || key == nil {
		s.dropped[dropStranger].Add(1)
		return nil
	}
	// Expiry is looked at last, since only who shows a genuine token learns about it.
	tok, err := token.Verify(key, s.cfg.ID, time.Unix(0, 0), m.Token[:])
	if err != nil || !relay.VerifyBind(b, s.cfg.ID, tok.Peer[:]) {
		s.dropped[dropStranger].Add(1)
		return nil
	}
	refuse := func(r relay.Reason) []byte {
		s.refused[min(int(r), len(s.refused)-1)].Add(1)
		return relay.AppendRefused(nil, relay.Refused{Reason: r, Nonce: m.Nonce})
	}
	if !wall.Before(tok.Expires) {
		return refuse(relay.ReasonExpired)
	}
	if wall.Sub(m.Time).Abs() > freshFor {
		return refuse(relay.ReasonClock)
	}
	now := s.now()
	r := request{
		short: ident.ShortOf(tok.Job, tok.Peer[:]), job: tok.Job, key: tok.Peer, from: from, nonce: m.Nonce,
		stamp: m.Time.UnixMilli(), fresh: now + m.Time.Sub(wall) + freshFor, expires: now + tok.Expires.Sub(wall), bytes: len(b),
	}
	sess, reason := s.table.bind(r, now)
	switch {
	case reason != 0:
		return refuse(reason)
	case sess == nil:
		s.dropped[dropReplay].Add(1)
		return nil
	}
	if !sess.maySend(relay.ChallengeBytes) {
		s.dropped[dropAmplification].Add(1)
		return nil
	}
	s.challenged.Add(1)
	return relay.AppendChallenge(nil, relay.Challenge{Nonce: m.Nonce, Cookie: s.cookie(from, r.short, m.Nonce, s.coarse())})
}

// prove returns BOUND or nothing.
func (s *Server) prove(b []byte, from origin) []byte {
	m, ok := relay.ParseProve(b)
	if !ok || !s.checkCookie(from, m) {
		s.dropped[dropStranger].Add(1)
		return nil
	}
	sess := s.table.find(from, m, s.now())
	if sess == nil || !relay.VerifyProve(b, s.cfg.ID, sess.key[:]) {
		s.dropped[dropStranger].Add(1)
		return nil
	}
	expires, ok := s.table.prove(sess)
	if !ok {
		return nil
	}
	s.bound.Add(1)
	s.log.Debug("relay: bound", "short", m.Short, "addr", from.addr, "tls", from.link != nil)
	left := (expires - s.now() + time.Second - 1) / time.Second
	return relay.AppendBound(nil, relay.Bound{
		Nonce: m.Nonce, Lifetime: uint32(min(max(left, 1), 1<<31)), Observed: from.addr, Instance: s.random,
	})
}

func (s *Server) coarse() uint32 { return uint32(s.now() / cookieFor) }

func (s *Server) cookie(from origin, short ident.Short, n relay.Nonce, coarse uint32) (c relay.Cookie) {
	binary.BigEndian.PutUint32(c[:], coarse)
	h := hmac.New(sha256.New, s.secret[:])
	ip, kind := from.addr.Addr().As16(), byte(0)
	if from.link != nil {
		kind = 1
	}
	h.Write(c[:4])
	h.Write(ip[:])
	h.Write([]byte{byte(from.addr.Port() >> 8), byte(from.addr.Port()), kind})
	h.Write(short[:])
	h.Write(n[:])
	copy(c[4:], h.Sum(nil))
	return c
}

func (s *Server) checkCookie(from origin, m relay.Prove) bool {
	made := binary.BigEndian.Uint32(m.Cookie[:])
	if now := s.coarse(); made > now || now-made > 1 {
		return false
	}
	want := s.cookie(from, m.Short, m.Nonce, made)
	return hmac.Equal(want[:], m.Cookie[:])
}
