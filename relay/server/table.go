package server

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/relay"
)

const (
	unprovenFor     = 10 * time.Second
	idleFor         = time.Minute     // clients ping four times in it
	seenStep        = time.Second     // how exactly that is measured
	freshFor        = 2 * time.Minute // how far a bind's time may be off
	revokedFor      = time.Hour
	amplification   = 3
	gonePerSecond   = 40 // so 10 at once
	checksPerSecond = 16 // so 4 at once

	// remembered is how many instances are remembered for each session that is allowed. Functions come
	// and go faster than their binds can be forgotten.
	remembered = 4
)

// origin is where frames come from and go to: a UDP address, or one connection over TLS.
type origin struct {
	addr netip.AddrPort
	link *link // nil: UDP
}

// session is one origin of one instance. It never moves: another origin is another session.
type session struct {
	short  ident.Short
	job    job.ID
	key    [32]byte
	at     origin
	prefix netip.Prefix

	proven  atomic.Bool
	in, out atomic.Int64 // bytes, counted until proven
	seen    atomic.Int64 // when it was heard last, a time.Duration

	packets, bytes bucket // of DATA that it sends
	gone, checks   bucket // of GONE that it gets, of signatures that are checked for it

	// guarded by the table's mutex
	nonce   relay.Nonce
	expires time.Duration // of the token
	drop    time.Duration // when it ends unless proven before
}

func (s *session) ends() time.Duration {
	if s.proven.Load() {
		return min(s.expires, time.Duration(s.seen.Load())+idleFor)
	}
	return min(s.expires, s.drop)
}

// touch notes that something came from the address of s.
func (s *session) touch(now time.Duration) {
	if now-time.Duration(s.seen.Load()) >= seenStep {
		s.seen.Store(int64(now))
	}
}

// maySend accounts for n bytes out and reports whether they keep within what an unproven address may get.
func (s *session) maySend(n int) bool {
	if s.proven.Load() {
		return true
	}
	if s.out.Add(int64(n)) <= amplification*s.in.Load() {
		return true
	}
	s.out.Add(int64(-n))
	return false
}

// holder is what the relay remembers of one Short. It outlives its sessions for as long as an old bind
// would be taken for fresh.
type holder struct {
	job     job.ID
	stamp   int64         // milliseconds, of the latest bind
	keep    time.Duration // until when stamp matters
	revoked time.Duration // until when binds are refused
	active  *session      // gets the packets
	pending *session      // unproven, at another address
}

// table is the relay's state. All its methods may be called from any goroutine; times count from the
// start of the server.
type table struct {
	limits Limits

	mu        sync.RWMutex // guards what follows
	byOrigin  map[origin]*session
	byShort   map[ident.Short]*holder
	perJob    map[job.ID]int
	perPrefix map[netip.Prefix]int
	sessions  int
	holders   map[job.ID]int // as in byShort
}

func newTable(l Limits) *table {
	return &table{
		limits: l, byOrigin: make(map[origin]*session), byShort: make(map[ident.Short]*holder),
		perJob: make(map[job.ID]int), perPrefix: make(map[netip.Prefix]int), holders: make(map[job.ID]int),
	}
}

// source returns the live session at an origin, from which something came.
func (t *table) source(from origin, now time.Duration) *session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if s := t.byOrigin[from]; s != nil && now < s.ends() {
		s.touch(now)
		return s
	}
	return nil
}

// dest returns the live session that gets an instance's packets.
func (t *table) dest(to ident.Short, now time.Duration) *session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if h := t.byShort[to]; h != nil && h.active != nil && now < h.active.ends() {
		return h.active
	}
	return nil
}

// proven returns the live sessions that get packets and have proven their address.
func (t *table) proven(now time.Duration) (all []*session) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, h := range t.byShort {
		if s := h.active; s != nil && s.proven.Load() && now < s.ends() {
			all = append(all, s)
		}
	}
	return all
}

func (t *table) nonceOf(s *session) relay.Nonce {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return s.nonce
}

// request is a bind whose token and signature were checked.
type request struct {
	short   ident.Short
	job     job.ID
	key     [32]byte
	from    origin
	nonce   relay.Nonce
	stamp   int64         // milliseconds
	fresh   time.Duration // until when the bind could be repeated
	expires time.Duration // of the token
	bytes   int           // of the frame
}

// bind makes or prolongs a session. Without session and reason the request is to be ignored.
func (t *table) bind(r request, now time.Duration) (*session, relay.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byShort[r.short]
	if h == nil {
		switch {
		case len(t.byShort) >= remembered*t.limits.Sessions:
			return nil, relay.ReasonFull
		case t.holders[r.job] >= remembered*t.limits.PerJob: // or one job could use up what all share
			return nil, relay.ReasonJobFull
		}
		h = &holder{job: r.job}
	}
	at := h.at(r.from)
	switch {
	case now < h.revoked:
		return nil, relay.ReasonRevoked
	case h.replay(at, r.nonce, r.stamp):
		return nil, 0
	case at == nil && r.from.link != nil && t.byOrigin[r.from] != nil:
		return nil, 0 // a connection is for one instance
	}
	if at == nil {
		if reason := t.full(r, h); reason != 0 {
			return nil, reason
		}
		at = t.add(r, h, now)
		t.remember(r.short, h)
	}
	h.stamp, h.keep = r.stamp, max(h.keep, r.fresh)
	at.touch(now)
	at.nonce, at.expires = r.nonce, r.expires
	at.in.Add(int64(r.bytes))
	return at, 0
}

// replay reports whether a bind was seen before, or is older than one that was; at is the holder's session at its origin.
// The same one from the same origin is a repetition.
func (h *holder) replay(at *session, n relay.Nonce, stamp int64) bool {
	return stamp < h.stamp || stamp == h.stamp && (at == nil || at.nonce != n)
}

// stale tells of a bind whose signatures were not checked whether it would be found a replay.
func (t *table) stale(short ident.Short, from origin, n relay.Nonce, stamp int64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h := t.byShort[short]
	return h != nil && h.replay(h.at(from), n, stamp)
}

func (t *table) remember(short ident.Short, h *holder) {
	if t.byShort[short] == nil {
		t.byShort[short] = h
		t.holders[h.job]++
	}
}

func (t *table) forget(short ident.Short, h *holder) {
	delete(t.byShort, short)
	if t.holders[h.job]--; t.holders[h.job] == 0 {
		delete(t.holders, h.job)
	}
}

func (t *table) full(r request, h *holder) relay.Reason {
	prefix := prefixOf(r.from.addr.Addr())
	switch {
	case t.perPrefix[prefix] >= t.limits.PerPrefix:
		return relay.ReasonPrefix
	case h.active != nil:
		return 0 // moves: at most one session more for each that is counted
	case t.sessions >= t.limits.Sessions:
		return relay.ReasonFull
	case t.perJob[r.job] >= t.limits.PerJob:
		return relay.ReasonJobFull
	}
	return 0
}

func (t *table) add(r request, h *holder, now time.Duration) *session {
	s := &session{
		short: r.short, job: r.job, key: r.key, at: r.from, prefix: prefixOf(r.from.addr.Addr()), drop: now + unprovenFor,
		packets: bucket{rate: t.limits.PacketsPerSecond}, bytes: bucket{rate: t.limits.BytesPerSecond},
		gone: bucket{rate: gonePerSecond}, checks: bucket{rate: checksPerSecond},
	}
	s.seen.Store(int64(now))
	t.sessions++
	t.perJob[s.job]++
	t.perPrefix[s.prefix]++
	if t.byOrigin[s.at] == nil {
		t.byOrigin[s.at] = s // else not before it is proven
	}
	if h.active == nil {
		h.active = s
	} else {
		if h.pending != nil {
			t.remove(h.pending)
		}
		h.pending = s
	}
	return s
}

func (h *holder) at(a origin) *session {
	switch {
	case h.active != nil && h.active.at == a:
		return h.active
	case h.pending != nil && h.pending.at == a:
		return h.pending
	}
	return nil
}

// find returns the session that a PROVE is about.
func (t *table) find(from origin, m relay.Prove, now time.Duration) *session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	h := t.byShort[m.Short]
	if h == nil {
		return nil
	}
	if s := h.at(from); s != nil && s.nonce == m.Nonce && now < s.ends() {
		return s
	}
	return nil
}

// prove makes s the one session of its Short and of its origin. It returns when s ends, and false
// if s ended meanwhile.
func (t *table) prove(s *session) (expires time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byShort[s.short]
	if h == nil || h.at(s.at) != s {
		return 0, false
	}
	s.proven.Store(true)
	if h.pending == s {
		old := h.active
		h.active, h.pending = s, nil
		t.uncount(old)
		if old.at.link != nil {
			old.at.link.out.End() // what is queued may still arrive
		}
	}
	if other := t.byOrigin[s.at]; other != s {
		if other != nil {
			t.detach(other)
		}
		t.byOrigin[s.at] = s
	}
	return s.expires, true
}

// detach removes s and what its holder has of it.
func (t *table) detach(s *session) {
	if h := t.byShort[s.short]; h != nil {
		switch s {
		case h.active:
			h.active, h.pending = h.pending, nil
		case h.pending:
			h.pending = nil
		}
	}
	t.remove(s)
}

// remove takes s out and ends its connection if it has one.
func (t *table) remove(s *session) {
	t.uncount(s)
	if s.at.link != nil {
		s.at.link.close()
	}
}

// uncount takes s out of the counts and of the index by origin.
func (t *table) uncount(s *session) {
	t.sessions--
	if t.perJob[s.job]--; t.perJob[s.job] == 0 {
		delete(t.perJob, s.job)
	}
	if t.perPrefix[s.prefix]--; t.perPrefix[s.prefix] == 0 {
		delete(t.perPrefix, s.prefix)
	}
	if t.byOrigin[s.at] == s {
		delete(t.byOrigin, s.at)
	}
}

// leave removes the session of a connection that ended.
func (t *table) leave(at origin) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.byOrigin[at]; s != nil {
		t.detach(s)
	}
}

func (t *table) revoke(id ident.Short, now time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byShort[id]
	if h == nil {
		h = &holder{}
		t.remember(id, h)
	}
	h.revoked = now + revokedFor
	live := h.active != nil
	for h.active != nil {
		t.detach(h.active)
	}
	return live
}

// sweep removes what has ended and returns how many sessions that were. Forwarding goes on while it looks.
func (t *table) sweep(now time.Duration) (ended int) {
	var due []ident.Short
	t.mu.RLock()
	for short, h := range t.byShort {
		if h.active != nil && now >= h.active.ends() || h.pending != nil && now >= h.pending.ends() || h.forgettable(now) {
			due = append(due, short)
		}
	}
	t.mu.RUnlock()
	if len(due) == 0 {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, short := range due {
		h := t.byShort[short]
		if h == nil {
			continue
		}
		for _, s := range []*session{h.pending, h.active} {
			if s != nil && now >= s.ends() {
				t.detach(s)
				ended++
			}
		}
		if h.forgettable(now) {
			t.forget(short, h)
		}
	}
	return ended
}

func (h *holder) forgettable(now time.Duration) bool {
	return h.active == nil && now >= h.keep && now >= h.revoked
}

func (t *table) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.sessions
}
