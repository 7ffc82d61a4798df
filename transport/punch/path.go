package punch

import (
	"fmt"
	"net/netip"
	"time"
)

const (
	doubtEvery = 100 * time.Millisecond // between two probes of a path in doubt
	lostEvery  = time.Second            // the same once it counts as lost (NoRelay)
	// relayFresh is how recent data from the relay must be to mean that the peer doubts the path.
	relayFresh   = 300 * time.Millisecond
	confirmCount = 3                      // probes after success, so that the other NAT opens too
	narrowAfter  = 300 * time.Millisecond // of doubt in which small probes are answered and others are not
	steadyFor    = time.Minute            // a path that lived so long is not held against its successors
	firstHold    = 2 * time.Second        // after the second path that was lost; doubles to
	mostHold     = time.Minute
	maxChecks    = 3 // probes between the first unanswered send and the doubt

	talkPause = 300 * time.Millisecond // without a word: what came until then was a talk
	longTalk  = 500 * time.Millisecond // after which the path is probed once when it falls silent

	measureEvery = KeepAliveMost   // the RTT, while the peer talks: no keep-alive does it then
	chatPause    = 5 * time.Second // without a word: what came until then is worth measuring for; keep-alives are further apart
)

// path is the selected direct path; its zero value means none.
type path struct {
	addr       end
	generation uint16
	rtt        time.Duration
	since      time.Time      // when it was selected
	observed   netip.AddrPort // own address as the peer saw it then,
	mapped     netip.AddrPort // and last

	sent       time.Time // last send of any kind
	heard      time.Time // last authentic packet
	confirmed  time.Time // last REPLY
	proof      time.Time // when the newest probe that was answered was sent
	unanswered time.Time // first send known after heard; zero = none
	checks     int       // probes sent since unanswered
	talk       time.Time // when the peer began to talk, with no pause of talkPause since,
	talked     time.Time // and its last word; zero = the silence after it was looked into
	chat       bool      // the word before that was less than chatPause earlier
	measure    time.Time // when a probe is due if the peer talks
	relayFirst time.Time // first relayed data known after heard; zero = none
	relayLast  time.Time
	idle       time.Duration // the keep-alive, jittered
	pause      time.Duration // before the send at unanswered, in which nothing was sent or heard
	survived   time.Duration // that pause, once something was heard after it
	size       int           // of the packets that are sent on it; 0 = small ones only

	confirms int // probes still to send after success
	nextConf time.Time

	doubt  time.Time // when doubt began; zero = sure
	small  time.Time // when a small probe was answered in doubt; zero = not yet
	tell   bool      // the doubt is our own, so the peer must know
	next   time.Time // of the next probe in doubt
	again  time.Time // when in doubt a round begins; zero = it has begun
	gaveUp bool      // NoRelay: doubt has lasted for LostAfter
}

func (p *path) selected() bool { return p.addr.IsValid() }

// sure reports whether the path is selected and not in doubt.
func (p *path) sure() bool { return p.selected() && p.doubt.IsZero() }

// hear notes that something of the peer arrived at t.
func (p *path) hear(t time.Time) {
	if !t.After(p.heard) {
		return
	}
	p.heard = t
	if !t.Before(p.unanswered) {
		p.answer()
	}
	if !t.Before(p.relayFirst) {
		p.relayFirst = time.Time{}
	}
}

// answer notes that what was sent has come through.
func (p *path) answer() {
	p.survived = max(p.survived, p.pause)
	p.unanswered, p.checks, p.pause = time.Time{}, 0, 0
}

// transmit notes a send at t.
func (p *path) transmit(t time.Time) {
	if !t.After(p.sent) {
		return
	}
	if p.unanswered.IsZero() && !t.Before(p.heard) {
		p.unanswered, p.pause = t, min(t.Sub(p.heard), t.Sub(p.sent))
	}
	p.sent = t
}

// listen notes a packet of the peer's that is no probe.
func (p *path) listen(t time.Time) {
	if t.Sub(p.talked) > talkPause {
		p.talk = t
	}
	if t.After(p.heard) {
		p.chat = t.Sub(p.talked) < chatPause
		p.talked = t
	}
}

// confirm notes a REPLY. Doubt ends only by one to a probe that was sent since the doubt began:
// packets merely heard may come over a path that is broken the other way.
func (p *path) confirm(now time.Time, t transaction) {
	p.hear(now)
	p.answer()
	p.addRTT(now.Sub(t.at), now.Sub(p.confirmed) >= measureEvery)
	p.confirmed, p.measure = now, now.Add(measureEvery)
	if t.at.After(p.proof) {
		p.proof = t.at
	}
	if p.doubt.IsZero() || t.at.Before(p.doubt) {
		return
	}
	if t.size >= p.checkSize() {
		p.doubt, p.small, p.gaveUp = time.Time{}, time.Time{}, false
	} else if p.small.IsZero() {
		p.small = now
	}
}

// checkSize is that of probes which a path in doubt must carry.
func (p *path) checkSize() int { return max(p.size, PaddedSize) }

// addRTT smooths. A fall counts for half if the last sample is old: a talk has few, and a failure is noticed late until the RTT has
// fallen. Where samples are many, that would make a path that jitters seem faster than it is, and doubted.
func (p *path) addRTT(d time.Duration, old bool) {
	switch {
	case p.rtt == 0:
		p.rtt = d
	case d < p.rtt && old:
		p.rtt -= (p.rtt - d) / 2
	default:
		p.rtt += (d - p.rtt) / 8
	}
}

// choose selects a path; an older one is forgotten.
func (m *Machine) choose(addr end, generation uint16, rtt time.Duration) {
	if c := m.find(addr); c != nil && c.rtt > 0 {
		rtt = c.rtt
	}
	m.path = path{
		addr: addr, generation: generation, rtt: rtt, since: m.now, sent: m.now, heard: m.now,
		confirmed: m.now, measure: m.now.Add(measureEvery), observed: m.observed, mapped: m.observed, confirms: confirmCount,
	}
	m.path.idle = m.keepAlive()
	m.path.nextConf = m.now.Add(m.confirmGap())
	m.generation, m.nominated = generation, max(m.nominated, generation)
	m.hardWon(addr)
	m.lastPath = addr
	m.nomination, m.deferred = nomination{}, deferred{}
	m.backoff, m.reason, m.thaw.open = m.cfg.RetryMin, "", false
	m.owed, m.owedCall = false, false
	m.settle()
}

// settle has what is left of the round look for a neighbour only, since there is a path.
func (m *Machine) settle() {
	neighbour := m.sameNetwork(m.path.addr.AddrPort)
	for _, c := range m.candidates {
		if neighbour || !c.local || c.addr == m.path.addr {
			c.next = time.Time{}
		}
	}
}

// keepAlive is the pause after which the path is probed, with a jitter of a tenth, so that of both sides one does it at a time.
func (m *Machine) keepAlive() time.Duration {
	d := m.pause()
	return m.between(d*9/10, d*11/10)
}

func (m *Machine) pause() time.Duration {
	if m.path.selected() && m.sameNetwork(m.path.addr.AddrPort) {
		return neighbourAlive
	}
	if own := m.pace.Pause(); m.others == 0 || own < m.others {
		return own
	}
	return m.others
}

// learnPause notes what a pause did to the path. Pauses that no NAT is so quick as to forget in say nothing.
func (m *Machine) learnPause(survived, died time.Duration) {
	switch {
	case died >= keepAliveLeast:
		m.pace.Died(m.now, died)
		m.out.Died = died
	case survived >= keepAliveLeast:
		m.pace.Survived(m.now, survived)
		m.out.Survived = survived
	}
}

func (m *Machine) confirmGap() time.Duration {
	return m.between(20*time.Millisecond, 60*time.Millisecond)
}

// traffic takes over what the owner saw. Times from before the path was selected belong to an
// older one.
func (m *Machine) traffic(e Traffic) {
	m.wanted, m.others = e.Wanted, e.KeepAlive
	if m.sinceThaw(e.Used) || m.sinceThaw(e.RelayReceived) {
		m.useThawed()
	}
	p := &m.path
	if !p.selected() {
		return
	}
	if e.Received.After(p.since) {
		p.listen(e.Received)
		p.hear(e.Received)
	}
	if e.Sent.After(p.since) && (m.talking || m.now.Sub(e.Sent) < thawSlack) { // else it is the last word before a freeze, of which there was no tick
		p.transmit(e.Sent)
	}
	if p.idle > m.pause()*11/10 {
		p.idle = m.keepAlive()
	}
	p.size = min(max(p.size, e.Size), MaxSize)
	if e.RelayReceived.After(p.since) && e.RelayReceived.After(p.heard) {
		p.relayLast = e.RelayReceived
		if p.relayFirst.IsZero() {
			p.relayFirst = e.RelayReceived
		}
	}
}

// doubtAfter is the silence after a send that raises doubt: see Config.DoubtMin.
func (m *Machine) doubtAfter() time.Duration {
	rtt := m.path.rtt
	return max(min(max(2*rtt+90*time.Millisecond, m.cfg.DoubtMin), m.cfg.DoubtMax), rtt*3/2)
}

// checkAt is when a path that has not answered is probed before it is doubted. A trailing
// acknowledgement is never answered; this keeps it from raising doubt.
func (m *Machine) checkAt() time.Time {
	p := &m.path
	if p.unanswered.IsZero() || p.checks >= maxChecks {
		return time.Time{}
	}
	d := m.doubtAfter()
	first := max(min(d/2, d*7/8-p.rtt*5/4), d/4)
	return p.unanswered.Add(first + time.Duration(p.checks)*d/8)
}

func (m *Machine) doubtAt() time.Time {
	if m.path.unanswered.IsZero() {
		return time.Time{}
	}
	return m.path.unanswered.Add(m.doubtAfter())
}

// relayDoubtAt leaves the direct path the time by which it may be slower than the relay.
func (m *Machine) relayDoubtAt() time.Time {
	p := &m.path
	if p.relayFirst.IsZero() {
		return time.Time{}
	}
	t := p.relayFirst.Add(min(p.rtt/4+20*time.Millisecond, relayFresh*3/4))
	if t.Sub(p.relayLast) > relayFresh {
		return time.Time{}
	}
	return t
}

// silentAt is when a peer that was talking has been silent for so long that one probe shall tell whether it has said all, or the path is
// gone: who had nothing to say but acknowledgements waits for no answer, and would not notice. The probe also opens a NAT
// that has forgotten the path.
func (m *Machine) silentAt() time.Time {
	p := &m.path
	if p.talked.IsZero() || p.talked.Sub(p.talk) < longTalk {
		return time.Time{}
	}
	return p.talked.Add(max(talkPause, p.rtt*3/2))
}

// measureAt is when a path is probed only to learn its RTT: a talk keeps checks and keep-alives away.
func (m *Machine) measureAt() time.Time {
	p := &m.path
	if !p.chat || p.measure.After(p.talked.Add(chatPause)) {
		return time.Time{}
	}
	return p.measure
}

func (m *Machine) idleAt() time.Time {
	p := &m.path
	if p.sent.After(p.heard) {
		return p.sent.Add(p.idle)
	}
	return p.heard.Add(p.idle)
}

func (m *Machine) lostAt() time.Time {
	if m.path.gaveUp {
		return time.Time{}
	}
	return m.path.doubt.Add(max(m.cfg.LostAfter, 2*m.path.rtt))
}

// narrowAt is when a path that carries small packets only is given up. A new generation of it will begin with smaller ones.
func (m *Machine) narrowAt() time.Time {
	p := &m.path
	if p.small.IsZero() || p.gaveUp || m.cfg.NoRelay {
		return time.Time{}
	}
	return p.doubt.Add(max(narrowAfter, 3*p.rtt))
}

func (m *Machine) advancePath() {
	p := &m.path
	if p.survived > 0 {
		m.learnPause(p.survived, 0)
		p.survived = 0
	}
	if p.sure() {
		switch {
		case m.due(m.doubtAt()):
			if p.unanswered.Add(-p.pause).After(m.thaw.last) { // else it may be the freeze that the peer, or its NAT, did not survive
				m.learnPause(0, p.pause)
			}
			m.enterDoubt(m.silence(), true)
		case m.due(m.relayDoubtAt()) && m.now.Sub(p.relayLast) <= relayFresh:
			m.enterDoubt("peer sends through the relay", false)
		case m.due(m.checkAt()):
			p.checks++
			m.probePath(0, max(p.size, ProbeSize))
		case m.thaw.open: // all else waits
		case p.confirms > 0 && m.due(p.nextConf):
			p.confirms--
			p.nextConf = m.now.Add(m.confirmGap())
			m.probePath(0, ProbeSize)
		case m.due(m.silentAt()):
			p.talked = time.Time{}
			m.probePath(0, ProbeSize)
		case m.due(m.measureAt()):
			p.measure = m.now.Add(measureEvery)
			m.probePath(0, ProbeSize)
		case m.due(m.idleAt()):
			p.idle = m.keepAlive()
			m.probePath(0, ProbeSize)
		}
	}
	if !p.selected() || p.sure() {
		return
	}
	switch {
	case m.due(m.narrowAt()):
		m.lose("direct path has become too narrow", true)
	case m.due(m.lostAt()):
		m.lose(m.silence(), true)
	}
	if p.selected() && m.due(p.again) {
		p.again = time.Time{}
		if !m.roundInDoubt() { // else the peer has called
			m.startRound(p.tell)
		}
	}
	if p.selected() && m.due(p.next) {
		m.probeDoubt()
	}
}

func (m *Machine) wakePath(w *time.Time) {
	p := &m.path
	switch {
	case p.sure():
		earlier(w, m.doubtAt())
		earlier(w, m.checkAt())
		if t := m.relayDoubtAt(); m.now.Before(t) {
			earlier(w, t)
		}
		if m.thaw.open {
			return
		}
		earlier(w, m.silentAt())
		earlier(w, m.measureAt())
		earlier(w, m.idleAt())
		if p.confirms > 0 {
			earlier(w, p.nextConf)
		}
	case p.selected():
		earlier(w, m.narrowAt())
		earlier(w, m.lostAt())
		earlier(w, p.next)
		earlier(w, p.again)
	}
}

func (m *Machine) silence() string {
	return fmt.Sprintf("direct path silent for %v", m.now.Sub(m.path.heard).Round(10*time.Millisecond))
}

func (m *Machine) probePath(flags byte, size int) {
	m.sendProbe(m.path.addr, flags, 0, size)
	m.path.transmit(m.now)
}

func (m *Machine) probeDoubt() {
	var flags byte
	if m.path.tell {
		flags = flagDoubt
	}
	m.path.next = m.now.Add(doubtEvery)
	if m.path.gaveUp {
		m.path.next = m.now.Add(lostEvery)
	}
	m.probePath(flags, m.path.checkSize())
	if m.path.size > PaddedSize && m.path.small.IsZero() {
		m.probePath(0, ProbeSize)
	}
}

// enterDoubt makes data go both ways until the path answers again or is lost. tell lets the peer
// know; a doubt that the peer caused is not told, or the two would keep each other in doubt.
//
// Another path is looked for before this one is given up: as soon as the first probe might have been answered, or at once where
// a NAT may have forgotten the path while it was idle.
func (m *Machine) enterDoubt(reason string, tell bool) {
	p := &m.path
	p.doubt, p.tell, p.next, p.small = m.now, tell, m.now, time.Time{}
	p.gaveUp = false
	p.again = m.now
	if p.pause < keepAliveLeast {
		p.again = m.now.Add(max(m.cfg.DoubtMin, p.rtt*3/2))
	}
	p.pause = 0
	m.reason = reason
}

// roundInDoubt reports whether a round that has begun since the path is doubted has enough time left.
func (m *Machine) roundInDoubt() bool {
	return m.round.active && m.path.selected() && !m.path.sure() &&
		!m.round.began.Before(m.path.doubt) && m.now.Sub(m.round.began) < m.cfg.Round/2
}

// lose gives the path up and looks for another. Without a relay it stays selected, because a dead
// path is as good as none.
func (m *Machine) lose(reason string, call bool) {
	if !m.cfg.NoRelay {
		m.strike()
		m.drop(reason, call)
		return
	}
	m.path.gaveUp, m.reason, m.backoff = true, reason, m.cfg.RetryMin
	m.startRound(call)
}

// strike notes that a path was lost. If that happens again and again, the next one is waited for longer and longer: a path that
// comes and goes is worse than the relay.
func (m *Machine) strike() {
	if m.now.Sub(m.path.since) >= steadyFor {
		m.strikes = 0
	}
	if m.strikes++; m.strikes > 1 {
		m.hold = m.now.Add(min(firstHold<<min(m.strikes-2, 5), mostHold)) // 2 s << 5 is more
	}
}

// held reports whether no path is to be chosen yet, because the last ones were lost soon.
func (m *Machine) held() bool { return m.now.Before(m.hold) }

// drop forgets the path, which the peer does not use or which is lost, and looks for another. A round that has begun when the path
// was doubted goes on, and probes its address too.
func (m *Machine) drop(reason string, call bool) {
	was, runs := m.path.addr, m.roundInDoubt()
	m.path = path{}
	m.reason, m.backoff = reason, m.cfg.RetryMin
	if !runs {
		m.startRound(call)
		return
	}
	if c := m.find(was); c != nil {
		c.next = m.now
	}
	if call {
		m.call(0)
	}
}
