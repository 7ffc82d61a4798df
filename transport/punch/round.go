package punch

import (
	"slices"
	"time"
)

const (
	maxReflexive = 4 // addresses that nobody named and a PROBE came from, in one round
	maxGuessed   = 4 // more of these, which have answered a probe to a port that nobody named
	maxProbes    = 9 // plain probes in one round to an address that has not answered
	roundBurst   = 4 // rounds in a row before they are limited to one in RetryMin
	maxCalls     = 3 // CALLs in one round, while nothing is heard of the peer
	maxPending   = 256
)

// pendingFor is how long a reply to a probe is waited for.
const pendingFor = 5 * time.Second

// candidate is an address at which the peer may be.
type candidate struct {
	addr      end
	local     bool // in the same network as one of our own
	reflexive bool // not named by the peer
	sent      int  // plain probes in this round
	bytes     int  // in this round before an answer
	allowance int  // probes beyond maxProbes
	gap       time.Duration
	next      time.Time // of the next probe; zero = none
	last      time.Time // of the last probe
	heard     time.Time // last authentic PROBE from it
	answered  time.Time // last REPLY from it
	rtt       time.Duration
	narrow    int // failed nominations in this round
}

// round is one attempt.
type round struct {
	active   bool
	began    time.Time
	ends     time.Time
	early    bool // the one nomination of an address that has not answered was used
	heard    bool // an authentic PROBE or REPLY arrived
	answered bool // a REPLY arrived
	calls    int
	nextCall time.Time
}

// transaction is a probe that was not answered yet.
type transaction struct {
	addr       end
	at         time.Time
	sequence   uint64
	tag        Tag
	size       int
	flags      byte
	generation uint16
}

// allowRound takes one round from the credit, which holds roundBurst and refills in RetryMin each.
func (m *Machine) allowRound() bool {
	if m.now.Before(m.roundAllowed()) {
		return false
	}
	if m.credit.Before(m.now) {
		m.credit = m.now
	}
	m.credit = m.credit.Add(m.cfg.RetryMin)
	return true
}

func (m *Machine) roundAllowed() time.Time {
	if m.credit.IsZero() {
		return m.now
	}
	return m.credit.Add(-(roundBurst - 1) * m.cfg.RetryMin)
}

// startRound probes every candidate afresh, now or as soon as the credit allows.
func (m *Machine) startRound(call bool) {
	if !m.allowRound() {
		m.owed, m.owedCall = true, m.owedCall || call
		return
	}
	m.owed, m.owedCall = false, false
	m.counters.Rounds++
	m.counters.Unproven, m.counters.Target = 0, 0
	m.round = round{active: true, began: m.now, ends: m.now.Add(m.cfg.Round)}
	m.gather()
	m.scheduleHard()
	if m.reason == notTried {
		m.reason = "probing"
	}
	if call {
		m.call(0)
		m.round.calls, m.round.nextCall = 1, m.now.Add(m.cfg.FirstRepeat*8)
	}
}

// gather makes the candidates of a new round: those that the peer named, the address of the last
// path, and unnamed ones from which something came lately. What is known of them is kept.
func (m *Machine) gather() {
	old := m.candidates
	m.candidates = make([]*candidate, 0, len(m.remote)+maxReflexive)
	keep := func(a end, reflexive bool) {
		if m.find(a) != nil || !m.usable(a.AddrPort) {
			return
		}
		c := &candidate{addr: a}
		if i := slices.IndexFunc(old, func(o *candidate) bool { return o.addr == a }); i >= 0 {
			c.heard, c.answered, c.rtt = old[i].heard, old[i].answered, old[i].rtt
		}
		c.local, c.reflexive = m.sameNetwork(a.AddrPort), reflexive
		c.gap, c.next = m.cfg.FirstRepeat, m.now
		if m.path.selected() && !m.path.gaveUp && a == m.path.addr {
			c.next = time.Time{} // it has its own probes
		}
		m.candidates = append(m.candidates, c)
	}
	for _, a := range m.remote {
		keep(end{AddrPort: a}, false)
	}
	keep(m.lastPath, true)
	for _, o := range old {
		// Half of the places stay free for addresses that this round brings to light.
		if o.reflexive && m.now.Sub(o.heard) < pendingFor && m.reflexives() < maxReflexive/2 {
			keep(o.addr, true)
		}
	}
	slices.SortStableFunc(m.candidates, func(a, b *candidate) int {
		switch {
		case a.local == b.local:
			return 0
		case a.local:
			return -1
		}
		return 1
	})
}

func (m *Machine) find(a end) *candidate {
	for _, c := range m.candidates {
		if c.addr == a {
			return c
		}
	}
	return nil
}

func (m *Machine) reflexives() int {
	n := 0
	for _, c := range m.candidates {
		if c.reflexive {
			n++
		}
	}
	return n
}

// learn returns the candidate for an address that an authentic message came from, or nil if there are
// too many that nobody named.
func (m *Machine) learn(a end, most int) *candidate {
	c := m.find(a)
	if c == nil && m.reflexives() < most {
		c = &candidate{addr: a, local: m.sameNetwork(a.AddrPort), reflexive: true, gap: m.cfg.FirstRepeat}
		m.candidates = append(m.candidates, c)
	}
	return c
}

func (m *Machine) advanceRound() {
	if m.owed && m.due(m.roundAllowed()) {
		m.startRound(m.owedCall)
	}
	if m.due(m.hold) {
		m.hold = time.Time{}
		if m.wanted && m.started && !m.path.selected() {
			m.startRound(true)
		}
	}
	if m.retries() && m.due(m.nextTry) {
		m.startRound(true)
	}
	m.advanceActive()
	if m.round.active || m.hardOn() {
		for _, c := range m.candidates {
			if m.due(c.next) {
				m.probe(c)
			}
		}
	}
}

func (m *Machine) advanceActive() {
	if !m.round.active {
		return
	}
	if m.due(m.round.nextCall) {
		m.round.nextCall = time.Time{}
		if !m.round.heard && !m.path.sure() {
			m.call(0)
			m.round.calls++
			if m.round.calls < maxCalls {
				m.round.nextCall = m.now.Add(m.cfg.FirstRepeat * 32)
			}
		}
	}
	if m.due(m.round.ends) {
		m.endRound()
		return
	}
	if m.due(m.hopelessAt()) {
		m.reason = hopeless(m.here, m.there)
	}
}

// hopelessAfter is how long two sides that no method fits probe each other before they say so: what
// STUN cannot see, a lenient filter or a way inside one network, has shown by then.
const hopelessAfter = time.Second

func (m *Machine) hopeless() bool { return MethodFor(m.here, m.there) == MethodNone }

// hopelessAt is when the round that runs is found to be in vain; zero if it is not, or has been.
func (m *Machine) hopelessAt() time.Time {
	if !m.hopeless() || m.round.heard || m.path.selected() || m.saidHopeless() {
		return time.Time{}
	}
	return m.round.began.Add(hopelessAfter)
}

func (m *Machine) saidHopeless() bool { return m.hopeless() && m.reason == hopeless(m.here, m.there) }

// retries reports whether the next round is only a matter of time.
func (m *Machine) retries() bool {
	return m.wanted && m.started && (!m.path.selected() || m.path.gaveUp) && !m.round.active &&
		!m.owed && !m.nomination.active() && !m.hardOn() && !m.nextTry.IsZero()
}

func (m *Machine) endRound() {
	m.round.active = false
	for _, c := range m.candidates {
		if !m.hardOn() || !c.reflexive {
			c.next = time.Time{}
		}
	}
	m.nextTry = m.now.Add(m.between(m.backoff*9/10, m.backoff*11/10))
	m.backoff = min(2*m.backoff, m.cfg.RetryMax)
	if m.path.selected() || m.nominating() {
		return
	}
	switch {
	case m.hopeless() && !m.round.heard:
		m.reason = hopeless(m.here, m.there)
	case m.hardOn():
		m.reason = m.hardReason()
	case len(m.candidates) == 0:
		m.reason = "peer has no usable candidate"
	case m.round.answered && m.cfg.Controlling:
		m.reason = "no path carries full-size packets"
	case m.round.answered:
		m.reason = "peer chose no path"
	case m.round.heard:
		m.reason = "peer is heard but does not hear us"
	default:
		m.reason = "no candidate answered"
	}
}

func (m *Machine) wakeRound(w *time.Time) {
	if m.owed {
		earlier(w, m.roundAllowed())
	}
	earlier(w, m.hold)
	if m.retries() {
		earlier(w, m.nextTry)
	}
	if m.round.active || m.hardOn() {
		for _, c := range m.candidates {
			earlier(w, c.next)
		}
	}
	if !m.round.active {
		return
	}
	earlier(w, m.round.ends)
	earlier(w, m.hopelessAt())
	earlier(w, m.round.nextCall)
}

// probe sends the next plain probe to c, if it may have one more.
func (m *Machine) probe(c *candidate) {
	c.next = time.Time{}
	if c.sent >= maxProbes+c.allowance {
		return
	}
	c.sent++
	if m.round.active || m.hardOn() {
		c.next = m.now.Add(c.gap)
		if c.sent > 1 { // the time since the first one doubles: see Config.FirstRepeat
			c.gap = min(2*c.gap, m.cfg.MaxRepeat)
		}
	}
	m.sendProbe(c.addr, 0, 0, ProbeSize)
}

// counter probes c because a PROBE came from it and it has not answered lately. The pace of its
// own probes stays as it is.
func (m *Machine) counter(c *candidate) {
	if m.now.Sub(c.answered) < time.Second || m.now.Sub(c.last) < m.cfg.FirstRepeat/30 {
		return
	}
	gap := c.gap
	m.probe(c)
	c.gap = gap
}

func (m *Machine) sendProbe(to end, flags byte, generation uint16, size int) {
	if flags&flagNominate == 0 {
		flags, generation = flags|m.plainFlags(), m.known()
	}
	t := transaction{addr: to, at: m.now, flags: flags | m.role(), generation: generation, size: size}
	t.tag = m.tag
	t.sequence = m.nextSequence()
	m.pending = slices.DeleteFunc(m.pending, func(o transaction) bool { return m.now.Sub(o.at) > pendingFor })
	if len(m.pending) >= maxPending {
		m.pending = slices.Delete(m.pending, 0, 1)
	}
	m.pending = append(m.pending, t)
	m.counters.Probes++
	if c := m.find(to); c != nil {
		c.last = m.now
		if c.answered.IsZero() && to != m.path.addr {
			c.bytes += size
			m.counters.Unproven += size
			m.counters.Target = max(m.counters.Target, c.bytes)
		}
	}
	m.send(to, message{
		kind: TypeProbe, flags: t.flags, generation: generation, tag: t.tag, sequence: t.sequence, size: size,
	})
}

// call tells the peer our candidates and to probe them now.
func (m *Machine) call(flags byte) { m.callAbout(flags, attempt{}) }

func (m *Machine) callAbout(flags byte, a attempt) {
	m.counters.Calls++
	m.send(end{}, message{
		kind: TypeCall, flags: flags | m.role(), generation: m.givenUp(), sequence: m.nextSequence(),
		candidates: m.local, nat: m.here, attempt: a,
		size: headerSize + len(m.local)*addressSize + natSize + attemptSize,
	})
}

// givenUp is the generation up to which no path of ours can come to life again.
func (m *Machine) givenUp() uint16 {
	switch {
	case m.path.selected():
		return m.path.generation - 1
	case m.nomination.active():
		return m.nomination.generation - 1
	}
	return m.known()
}

// known is the highest generation that this side has nominated or accepted.
func (m *Machine) known() uint16 {
	if m.cfg.Controlling {
		return m.nominated
	}
	return m.generation
}

func (m *Machine) send(to end, msg message) {
	m.out.Send = append(m.out.Send, Datagram{To: to.AddrPort, Socket: to.Socket, Data: m.seal.seal(msg)})
}

func (m *Machine) nextSequence() uint64 {
	if m.sequence == 0 {
		now := m.now
		if begun := m.cfg.Begun; !begun.IsZero() {
			now = begun.Add(now.Sub(begun)) // by the monotonic clock
		}
		m.sequence = uint64(max(now.UnixMicro(), 0))
	}
	m.sequence++
	return m.sequence
}

// plainFlags are those of a plain PROBE or its REPLY.
func (m *Machine) plainFlags() byte {
	if m.known() > 0 && !m.path.selected() && !m.nomination.active() {
		return m.role() | flagGivenUp
	}
	return m.role()
}

func (m *Machine) role() byte {
	if m.cfg.Controlling {
		return flagControlling
	}
	return 0
}
