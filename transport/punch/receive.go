package punch

import (
	"slices"
	"time"
)

// receive reads a datagram and counts it as refused unless it was good for something.
func (m *Machine) receive(p Packet) {
	msg, err := m.seal.open(p.Data)
	if err != nil || msg.flags&flagControlling == m.role() {
		m.counters.Refused++
		return
	}
	from := end{AddrPort: unmap(p.From), Socket: p.Socket}
	relayed := !from.Addr().IsValid()
	ok := false
	switch {
	case msg.kind == TypeCall:
		ok = relayed && m.receiveCall(msg)
	case relayed || !m.usable(from.AddrPort) || !m.expected(from):
	case msg.kind == TypeProbe:
		ok = m.receiveProbe(from, msg)
	case msg.kind == TypeReply:
		ok = m.receiveReply(from, msg)
	}
	if !ok {
		m.counters.Refused++
	}
}

func (m *Machine) receiveCall(msg message) bool {
	if msg.sequence <= m.seenCalls {
		return false
	}
	m.seenCalls = msg.sequence
	remote := unmapAll(msg.candidates)
	if len(remote) == 0 {
		remote = m.remote
	}
	news := !slices.Equal(remote, m.remote)
	m.remote, m.started = remote, true
	if msg.nat.Mapping != MappingUnknown {
		news = news || msg.nat.Mapping != m.there.Mapping
		m.there = msg.nat
	}
	if news {
		m.backoff = m.cfg.RetryMin
		m.forgetHard()
	}
	switch p := &m.path; {
	case p.selected() && p.generation <= msg.generation:
		m.strike()
		m.drop("peer gave the direct path up", false)
		return true
	case p.selected():
		if m.suspect("peer called"); p.sure() {
			m.probePath(0, ProbeSize) // the NAT here may have forgotten what the peer misses
		}
	}
	m.receiveAttempt(msg.attempt)
	answer := msg.flags&flagAnswer != 0
	if !answer && !m.path.sure() {
		m.call(flagAnswer) // our last CALL may be lost, and with it candidates that the peer lacks
	}
	// A repeated CALL must not repeat a round that has just begun.
	begun := m.round.active && m.round.ends.Sub(m.now) >= m.cfg.Round-time.Second
	if news || !answer && !begun {
		m.startRound(false)
	}
	return true
}

func (m *Machine) receiveProbe(from end, msg message) bool {
	if msg.flags&flagNominate != 0 && (m.cfg.Controlling || msg.generation < m.generation) {
		return false
	}
	if !m.seen.fresh(msg.sequence) {
		return false
	}
	m.round.heard = true
	most := maxReflexive
	if from.Socket != 0 {
		most += maxGuessed
		m.prolong()
	}
	c := m.learn(from, most)
	if c != nil {
		c.heard = m.now
	}
	if from == m.path.addr {
		m.path.hear(m.now)
		if msg.flags&flagDoubt != 0 && m.path.sure() && m.now.Sub(m.path.confirmed) > max(2*m.path.rtt, m.cfg.DoubtMin) {
			m.enterDoubt("peer doubts the direct path", false)
		}
	}
	if msg.flags&flagNominate != 0 {
		m.receiveNomination(c, from, msg)
		return true
	}
	m.peerKnows(msg, time.Time{})
	if m.path.selected() && msg.generation < m.path.generation && m.now.Sub(m.path.since) > 2*m.path.rtt {
		m.probePath(0, ProbeSize) // the reply shows whether the peer forgot the path
	}
	m.reply(from, msg)
	if c == nil || c.addr == m.path.addr {
		return true
	}
	m.counter(c)
	m.nominateEarly(c)
	return true
}

// reply answers a PROBE, in its own length.
func (m *Machine) reply(from end, msg message) {
	m.counters.Replies++
	flags, g := flagNominate|m.role(), msg.generation
	if msg.flags&flagNominate == 0 {
		flags, g = m.plainFlags(), m.known()
	}
	m.send(from, message{
		kind: TypeReply, flags: flags, generation: g,
		tag: msg.tag, sequence: msg.sequence, observed: from.AddrPort, size: msg.size,
	})
}

func (m *Machine) receiveReply(from end, msg message) bool {
	i := slices.IndexFunc(m.pending, func(t transaction) bool {
		return t.sequence == msg.sequence && t.tag == msg.tag
	})
	var t transaction
	guessed := i < 0
	if !guessed {
		t = m.pending[i]
	} else if t, guessed = m.hard.sweep.guess(msg, m.tag); !guessed {
		return false
	}
	// Symmetric paths only: a reply from elsewhere says nothing about the address that was probed.
	if t.addr != from || t.size != msg.size || (t.flags^msg.flags)&flagNominate != 0 ||
		msg.flags&flagNominate != 0 && t.generation != msg.generation || m.now.Sub(t.at) > pendingFor {
		return false
	}
	if !guessed {
		m.pending = slices.Delete(m.pending, i, i+1)
	}
	m.round.heard, m.round.answered = true, true
	if m.usableSelf(msg) {
		m.observed = msg.observed
	}
	c := m.find(from)
	if c == nil && guessed {
		c = m.learn(from, maxReflexive+maxGuessed)
	}
	if c != nil {
		c.answered = m.now
		if rtt := m.now.Sub(t.at); msg.flags&flagNominate == 0 || c.rtt == 0 || rtt < c.rtt {
			c.rtt = rtt
		}
	}
	if msg.flags&flagNominate == 0 {
		m.peerKnows(msg, t.at)
	}
	if from == m.path.addr {
		was := m.path.sure()
		if m.path.confirm(m.now, t); m.path.sure() {
			m.reason = ""
			if !was {
				m.settle()
			}
		}
		m.noticeMapping(c)
	}
	switch {
	case msg.flags&flagNominate != 0:
		if m.nomination.active() && m.nomination.addr == from && m.nomination.generation == msg.generation {
			m.choose(from, msg.generation, m.now.Sub(t.at))
		}
	case m.deferred.addr == from && from.IsValid():
		m.acceptDeferred()
	}
	if c != nil && m.cfg.Controlling {
		m.consider(c)
	}
	return true
}

// peerKnows notes the last generation that the peer knew of, at the earliest at the given time (zero
// if that is not known). Three cases of disagreement end the path: the peer lost it, it is a new
// Machine that knows nothing of it, or it took a nomination that we gave up because no reply came.
func (m *Machine) peerKnows(msg message, at time.Time) {
	generation := msg.generation
	m.nominated = max(m.nominated, generation)
	switch p := &m.path; {
	case !p.selected():
	case generation >= p.generation && msg.flags&flagGivenUp != 0:
		m.strike()
		m.drop("peer gave the direct path up", false)
	case generation < p.generation && at.After(p.since):
		m.drop("peer started afresh", true)
	case generation > p.generation && m.cfg.Controlling && !m.nomination.active():
		m.drop("peer is on another path", true)
	}
}

// noticeMapping nominates the path again if the peer sees us at another address than when it was
// selected: it still sends to the old one.
func (m *Machine) noticeMapping(c *candidate) {
	if p := &m.path; m.observed != p.mapped {
		m.learnPause(0, p.survived) // the peer sees a new mapping: the NAT here has forgotten the old one
		p.mapped, p.survived = m.observed, 0
	}
	if m.cfg.Controlling && c != nil && c.narrow == 0 && m.observed != m.path.observed &&
		!m.nomination.active() && m.now.Sub(m.path.since) > time.Second {
		m.nominate(c, false)
	}
}

// usableSelf reports whether the address that the peer saw can be ours at all.
func (m *Machine) usableSelf(msg message) bool {
	return msg.observed.Port() != 0 && !msg.observed.Addr().IsUnspecified()
}
