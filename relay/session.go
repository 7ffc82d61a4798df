package relay

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstRetry  = 100 * time.Millisecond // doubles to
	lastRetry   = time.Second
	silentAfter = 2 * time.Second        // without an answer to binds
	frameAge    = 10 * time.Second       // then a bind is made anew, for the relay's check of its time
	proveFor    = 3 * time.Second        // then a lost session is bound anew
	idlePing    = 15 * time.Second       // more or less a tenth; keeps mappings of NATs alive
	busyPing    = 100 * time.Millisecond // of sending and hearing nothing, then pings
	firstPing   = 50 * time.Millisecond  // to the second, or one and a half round trips; then as long again, then doubling
	doubtTries  = 2                      // unanswered: other ways are better
	pingTries   = 5
	mostRTT     = 3 * time.Second // an answer later than that tells that this process was frozen, not how far the relay is
	refusedWait = time.Second     // doubles to
	refusedMost = 30 * time.Second
)

type phase int

const (
	phaseIdle  phase = iota // no token
	phaseBind               // BIND sent, waiting for CHALLENGE
	phaseProve              // PROVE sent, waiting for BOUND
	phaseBound
	phaseRefused
)

// session is what Run and HandlePacket share under the client's mutex. It does no I/O.
type session struct {
	state State
	err   error
	token []byte
	phase phase

	nonce      Nonce // of the bind under way
	boundNonce Nonce // of the session that stands, as the relay knows it
	stamp      int64 // milliseconds, of the last bind
	cookie     Cookie
	frame      []byte    // BIND or PROVE under way
	made, last time.Time // when frame was made, and sent last
	started    time.Time // of the phase
	next       time.Time // when to send or look again; zero is at once
	tries      int
	refusals   int

	ping     Nonce // under way if pinging; the last byte is the try
	pinging  bool
	asked    [pingTries]time.Time // when each try of the ping was sent
	look     time.Time            // when to look at sent and heard; zero while idle
	expires  time.Time
	observed netip.AddrPort
	instance uint64
	rtt      time.Duration // smoothed
	most     bool          // rtt is an upper bound

	doubt    bool // pings are unanswered, or the session is lost
	draining bool // the relay has told that it is about to end
}

func (s *session) startBind() {
	s.phase, s.frame, s.tries, s.next, s.pinging = phaseBind, nil, 0, time.Time{}, false
	s.started = time.Time{}
}

func (s *session) startPing() {
	s.pinging, s.tries, s.next = true, 0, time.Time{}
}

// sample notes the time from a frame to its answer. A rise counts at once for half, since a relay that is waited for too short a time is doubted; a fall
// counts for a quarter.
func (s *session) sample(d time.Duration) {
	switch {
	case d < 0 || d > mostRTT:
	case s.rtt == 0, s.most:
		s.rtt, s.most = d, false
	case d > s.rtt:
		s.rtt += (d - s.rtt) / 2
	default:
		s.rtt += (d - s.rtt) / 4
	}
}

// sampleFrame notes the answer to frame. If that was sent more than once, so that the answer may be to any of them, the time from the first is an upper
// bound: better than nothing, and than what the time from the last one shows to be too little.
func (s *session) sampleFrame(now time.Time) {
	d := now.Sub(s.made)
	switch {
	case s.tries == 1:
		s.sample(d)
	case d >= 0 && d <= mostRTT && (s.rtt == 0 || now.Sub(s.last) > s.rtt):
		s.rtt, s.most = d, true
	}
}

// tried returns which try of the ping under way has this nonce.
func (s *session) tried(n Nonce) (try int, ok bool) {
	last := len(n) - 1
	try = int(n[last])
	n[last] = 0
	return try, s.pinging && n == s.ping && try < s.tries
}

// Run binds, keeps the session alive and binds again when it is lost, until ctx ends; it then returns
// nil. It is called once.
func (c *Client) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer c.usable.Store(false)
	var wg sync.WaitGroup
	defer wg.Wait()
	if c.cfg.Deliver != nil {
		wg.Go(func() { c.backup.run(ctx) })
	}
	var out []byte
	for {
		c.mu.Lock()
		now := time.Now()
		frame, next := c.step(now)
		c.publish()
		next = c.backup.look(now, next, frame != nil)
		out = append(out[:0], frame...)
		c.mu.Unlock()
		if len(out) > 0 {
			// A lost frame is sent again.
			_ = c.cfg.Send(c.cfg.Addr, out, len(out))
		}
		timer.Reset(max(next.Sub(now), 0))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.wake:
		}
	}
}

// step returns a frame to send, or nil, and when to call again.
func (c *Client) step(now time.Time) (frame []byte, next time.Time) {
	switch c.phase {
	case phaseBind:
		return c.stepBind(now)
	case phaseProve:
		return c.stepProve(now)
	case phaseBound:
		return c.stepBound(now)
	case phaseRefused:
		if now.Before(c.next) {
			return nil, c.next
		}
		c.startBind()
		return c.stepBind(now)
	default:
		return nil, now.Add(time.Hour)
	}
}

// publish shows what Send, Usable and HandlePacket look at without the mutex, under which it runs.
func (c *Client) publish() {
	c.up.Store(c.phase == phaseBound)
	well := c.state == StateUsable || c.state == StateBound
	if works := well && !c.doubt && !c.draining; works != c.works.Load() {
		c.works.Store(works)
		if c.cfg.OnChange != nil {
			defer c.cfg.OnChange()
		}
	}
}

func (c *Client) stepBind(now time.Time) ([]byte, time.Time) {
	if c.started.IsZero() {
		c.started = now
	}
	if c.state != StateRefused && now.Sub(c.started) >= silentAfter {
		if c.state != StateSilent {
			if c.backup.leg.Load() == nil {
				c.log.Warn("relay: no answer; asking on")
			}
			if c.onSilent != nil {
				c.onSilent()
			}
		}
		c.state, c.err = StateSilent, ErrNoAnswer
	}
	if now.Before(c.next) {
		return nil, c.next
	}
	if c.frame == nil || now.Sub(c.made) >= frameAge || c.stamp < c.backup.stamps.Load() {
		c.stamp = nextStamp(c.backup.stamps, now)
		c.nonce, c.made = newNonce(), now
		m := Bind{Nonce: c.nonce, Time: time.UnixMilli(c.stamp)}
		copy(m.Token[:], c.token)
		c.frame = AppendBind(c.frame[:0], c.cfg.ID, c.cfg.Identity.Ed25519, m)
	}
	c.retry(now)
	return c.frame, c.next
}

// nextStamp grows from one bind of an instance to the next, by whatever way.
func nextStamp(last *atomic.Int64, now time.Time) int64 {
	for {
		old := last.Load()
		if next := max(now.UnixMilli(), old+1); last.CompareAndSwap(old, next) {
			return next
		}
	}
}

func (c *Client) stepProve(now time.Time) ([]byte, time.Time) {
	if now.Sub(c.started) >= proveFor {
		c.startBind()
		return c.stepBind(now)
	}
	if now.Before(c.next) {
		return nil, c.next
	}
	if c.frame == nil {
		c.frame = AppendProve(nil, c.cfg.ID, c.cfg.Identity.Ed25519, Prove{Short: c.short, Nonce: c.nonce, Cookie: c.cookie})
		c.made = now
	}
	c.retry(now)
	return c.frame, c.next
}

func (s *session) retry(now time.Time) {
	s.next = now.Add(min(firstRetry<<min(s.tries, 10), lastRetry))
	s.last = now
	s.tries++
}

func (c *Client) stepBound(now time.Time) ([]byte, time.Time) {
	if !now.Before(c.expires) {
		c.startBind() // the relay will say what is wrong with the token
		return c.stepBind(now)
	}
	busy := c.busy(now)
	if busy && !c.pinging {
		c.startPing()
	}
	switch {
	case !c.pinging && now.Before(c.next):
		return nil, c.wakeAt()
	case !c.pinging:
		c.startPing()
	case now.Before(c.next):
		return nil, c.wakeAt()
	case c.tries >= pingTries:
		c.log.Info("relay: pings unanswered; binding again")
		c.doubt = true
		c.startBind()
		return c.stepBind(now)
	}
	if c.tries == 0 {
		c.ping = newNonce()
		c.ping[len(c.ping)-1] = 0
	}
	n := c.ping // an answer to any try counts, however late
	n[len(n)-1] = byte(c.tries)
	c.asked[c.tries] = now
	if c.tries >= doubtTries && !c.doubt {
		c.log.Debug("relay: pings unanswered", "rtt", c.rtt)
		c.doubt = true
	}
	wait := max(firstPing, c.rtt*3/2)
	c.next = now.Add(max(wait, min(wait<<max(c.tries-1, 0), lastRetry)))
	c.tries++
	return AppendPing(nil, Ping{Short: c.short, Nonce: n}), c.wakeAt()
}

// busy reports, once in each busyPing while packets are sent and once after, whether nothing came. When a conversation falls silent
// it may be over, or the relay may be gone: one ping tells, also to who had nothing to send but acknowledgements.
func (c *Client) busy(now time.Time) bool {
	if c.look.IsZero() {
		if c.sent.Load() {
			c.heard.Store(false)
			c.look = now.Add(busyPing)
		}
		return false
	}
	if now.Before(c.look) {
		return false
	}
	sent, heard := c.sent.Swap(false), c.heard.Swap(false)
	if sent {
		c.look = now.Add(busyPing)
	} else {
		c.look = time.Time{} // the next Send wakes Run
	}
	return !heard
}

func (s *session) wakeAt() time.Time {
	t := s.next
	if s.expires.Before(t) {
		t = s.expires
	}
	if !s.look.IsZero() && s.look.Before(t) {
		t = s.look
	}
	return t
}

// control takes a frame of the relay and reports whether Run has to look.
func (c *Client) control(b []byte, now time.Time) bool {
	switch b[0] {
	case TypeChallenge:
		m, ok := ParseChallenge(b)
		if !ok || c.phase != phaseBind || m.Nonce != c.nonce || c.frame == nil {
			return false
		}
		c.sampleFrame(now)
		c.cookie, c.boundNonce = m.Cookie, m.Nonce
		c.phase, c.frame, c.tries, c.next, c.started = phaseProve, nil, 0, time.Time{}, now
		c.doubt, c.draining = false, false
		c.state, c.err = StateUsable, nil
		c.usable.Store(true)
		return true
	case TypeBound:
		m, ok := ParseBound(b)
		if !ok || c.phase != phaseProve || m.Nonce != c.nonce {
			return false
		}
		c.bound(m, now)
		return true
	case TypePong:
		m, ok := ParsePong(b)
		try, asked := c.tried(m.Nonce)
		if !ok || !asked {
			return false
		}
		c.sample(now.Sub(c.asked[try]))
		c.pinging, c.tries, c.next, c.doubt = false, 0, now.Add(jitter(idlePing)), false
		c.heard.Store(true)
		return true
	case TypeUnbound:
		n, ok := ParseUnbound(b)
		if _, asked := c.tried(n); !ok || !asked {
			return false
		}
		c.log.Info("relay: session lost; binding again")
		c.startBind()
		c.doubt = true
		return true
	case TypeRefused:
		m, ok := ParseRefused(b)
		if ok && m.Reason == ReasonDraining && m.Nonce == c.boundNonce && c.phase == phaseBound {
			if !c.draining {
				c.log.Info("relay: it is about to end")
			}
			c.draining = true
			return true
		}
		if !ok || c.phase != phaseBind || m.Nonce != c.nonce || c.frame == nil {
			return false
		}
		c.refused(m.Reason, now)
		return true
	default:
		return false
	}
}

func (c *Client) bound(m Bound, now time.Time) {
	c.sampleFrame(now)
	if c.instance != 0 && c.instance != m.Instance {
		c.log.Info("relay: it was restarted")
	}
	if c.observed.IsValid() && c.observed != m.Observed && c.cfg.OnMoved != nil {
		defer c.cfg.OnMoved()
	}
	c.instance, c.observed = m.Instance, m.Observed
	c.expires = now.Add(time.Duration(m.Lifetime) * time.Second)
	c.phase, c.frame, c.tries, c.pinging = phaseBound, nil, 0, false
	c.next = now.Add(jitter(idlePing))
	c.state, c.err, c.refusals = StateBound, nil, 0
	c.log.Debug("relay: bound", "observed", m.Observed, "lifetime_s", m.Lifetime, "rtt", c.rtt)
}

func (c *Client) refused(r Reason, now time.Time) {
	c.phase, c.frame = phaseRefused, nil
	c.next = now.Add(jitter(min(refusedWait<<min(c.refusals, 10), refusedMost)))
	c.refusals++
	err := &RefusedError{Relay: c.cfg.ID, Reason: r}
	if r == ReasonClock {
		c.backup.stamps.Store(0) // which a clock that was ahead has made too high, for as long
	}
	if c.state != StateRefused {
		c.log.Warn("relay: refused", "reason", r.String())
	}
	c.state, c.err = StateRefused, err
}

// jitter returns d more or less a tenth.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5)
}
