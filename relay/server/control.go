package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
)

// cookieFor is the least time for which a cookie is good; the most is twice that.
const cookieFor = 15 * time.Second

// The checks of signatures, some 50 µs each, share one goroutine. While packets are forwarded it works one part in
// checkShare of the machine's time, so that a flood of binds costs what it costs on the largest machines: little.
const (
	checkShare     = 8
	checkRest      = time.Millisecond      // the least that it sleeps
	checkLook      = 10 * time.Millisecond // how often it looks whether packets are forwarded
	linkBinds      = 4                     // of a connection, that come before those of strangers
	knownQueue     = 256                   // frames
	strangersQueue = 64                    // frames; more wait in the kernel
)

// controlFrame is a BIND or PROVE on its way to the goroutine that checks signatures.
type controlFrame struct {
	conn udpx.Socket // for answers over UDP
	from origin
	n    int
	b    [relay.BindBytes]byte
}

// controlQueue has what is to be checked.
type controlQueue struct {
	known    chan controlFrame // from who has shown before that it belongs here: comes first
	stranger chan controlFrame
}

func newControlQueue() controlQueue {
	return controlQueue{known: make(chan controlFrame, knownQueue), stranger: make(chan controlFrame, strangersQueue)}
}

// next waits for a frame. It returns false when ctx has ended.
func (q controlQueue) next(ctx context.Context, m *controlFrame) bool {
	select {
	case *m = <-q.known:
		return true
	default:
	}
	select {
	case *m = <-q.known:
	case *m = <-q.stranger:
	case <-ctx.Done():
		return false
	}
	return true
}

// submit takes a BIND or PROVE that is worth a look, which costs no more than a hash or two.
func (f *forwarder) submit(p []byte) {
	queue := f.control.stranger
	switch p[0] {
	case relay.TypeProve:
		if m, ok := relay.ParseProve(p); !ok || !f.checkCookie(f.from, m) {
			f.dropped[dropStranger].Add(1)
			return
		}
		queue = f.control.known
	default:
		m, ok := relay.ParseBind(p)
		if !ok {
			f.dropped[dropMalformed].Add(1)
			return
		}
		of, peer := token.Claims(m.Token[:])
		if f.table.stale(ident.ShortOf(of, peer[:]), f.from, m.Nonce, m.Time.UnixMilli()) {
			f.dropped[dropReplay].Add(1)
			return
		}
		if f.knows() {
			queue = f.control.known
		}
	}
	if !f.gate.admits(f.from.addr.Addr(), f.now) {
		f.dropped[dropLimit].Add(1)
		return
	}
	m := controlFrame{conn: f.conn, from: f.from, n: len(p)}
	copy(m.b[:], p)
	select {
	case queue <- m:
		return
	default:
	}
	if f.patient != nil && queue == f.control.stranger {
		// What comes meanwhile waits in the kernel, or is dropped there at no cost.
		select {
		case queue <- m:
			return
		case <-f.patient:
		}
	}
	f.dropped[dropLimit].Add(1)
}

// knows tells whether the next BIND comes from an address with a session, or a connection over TLS, whose address is no forgery
// and which had to be paid for with a handshake. Each has a few that come first, and then queues with strangers.
func (f *forwarder) knows() bool {
	if f.from.link != nil && f.binds < linkBinds {
		f.binds++
		return true
	}
	s := f.table.source(f.from, f.now)
	return s != nil && s.proven.Load() && s.checks.take(1, f.now)
}

// handleControl checks signatures apart from the forwarding, so that a flood of binds costs binds only.
func (s *Server) handleControl(ctx context.Context) {
	rest := max(0, checkShare/runtime.GOMAXPROCS(0)-1) // units of time for each of work
	var m controlFrame
	var owed, looked time.Duration
	var packets uint64
	busy := false
	for s.control.next(ctx, &m) {
		began := s.now()
		if began-looked >= checkLook {
			now := s.packetsIn.Load()
			busy, packets, looked = now != packets, now, began
		}
		out := s.answer(m.b[:m.n], m.from, time.Now())
		// By construction no answer is longer than its request.
		if len(out) > 0 && len(out) <= m.n {
			s.reply(m.conn, out, m.from)
		}
		if busy {
			owed += (s.now() - began) * time.Duration(rest)
		}
		if owed >= checkRest {
			began = s.now()
			select {
			case <-ctx.Done():
			case <-time.After(owed):
			}
			owed -= min(owed, s.now()-began)
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
	if s.draining.Load() {
		return refuse(relay.ReasonDraining)
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
	now := s.now()
	sess := s.table.find(from, m, now)
	if sess != nil && !sess.checks.take(1, now) {
		s.dropped[dropLimit].Add(1)
		return nil
	}
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
