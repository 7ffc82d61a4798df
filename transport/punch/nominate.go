package punch

import "time"

const (
	maxNominations  = 8 // full-size probes in one nomination
	maxNarrow       = 2 // nominations of one address in a round: one may fail by loss alone
	firstGeneration = 2
	// earlyFor is how long the nomination of an address that has not answered is waited for.
	earlyFor = time.Second
)

// nomination is the controlling side's check of one address with full-size packets.
type nomination struct {
	addr       end
	generation uint16
	tries      int
	gap        time.Duration
	next       time.Time
	early      bool // the address has sent a PROBE but not answered one: one try only
}

func (n *nomination) active() bool { return n.addr.IsValid() }

// nominating reports whether an address that answered is being checked.
func (m *Machine) nominating() bool { return m.nomination.active() && !m.nomination.early }

// deferred is a nomination that waits on the controlled side until its address has answered.
type deferred struct {
	addr end
	msg  message
	at   time.Time
}

// nominateEarly saves a round trip: a PROBE that got through shows one direction, and the nomination
// checks both.
func (m *Machine) nominateEarly(c *candidate) {
	if !m.cfg.Controlling || m.path.selected() || m.nomination.active() ||
		m.round.early || c.narrow > 0 || !m.started || m.held() {
		return
	}
	m.round.early = true
	m.nominate(c, true)
}

// consider decides whether an address that has just answered is to become the path.
func (m *Machine) consider(c *candidate) {
	n := &m.nomination
	switch {
	case c.narrow >= maxNarrow || c.addr == m.path.addr || m.held():
		return
	case n.active() && n.addr == c.addr:
		if n.generation < m.nominated { // the peer knows a higher one
			m.nominate(c, false)
		} else if n.early {
			n.early, n.gap = false, m.nominationGap(c)
			n.next = m.now.Add(n.gap)
		}
		return
	case n.active() && !n.early:
		return
	case m.path.sure() && (!c.local || m.sameNetwork(m.path.addr.AddrPort)) && !m.moved(c):
		return
	}
	m.nominate(c, false)
}

// moved reports whether an address that has answered seems to be where the peer of the path is now: its NAT gave it another port,
// by which it has been heard since the path was last. The path is kept until the new one is confirmed.
func (m *Machine) moved(c *candidate) bool {
	p := &m.path
	return c.addr.Addr() == p.addr.Addr() && c.addr.Socket == p.addr.Socket && c.heard.Sub(p.heard) > max(m.cfg.DoubtMin, p.rtt)
}

func (m *Machine) nominationGap(c *candidate) time.Duration {
	return max(m.cfg.FirstRepeat, c.rtt*3/2)
}

func (m *Machine) nominate(c *candidate, early bool) {
	g := max(m.generation, m.nominated, firstGeneration-1)
	if g == 1<<16-1 {
		m.reason = "generations are used up"
		return
	}
	m.nominated = g + 1
	m.nomination = nomination{addr: c.addr, generation: m.nominated, early: early, gap: m.nominationGap(c)}
	m.sendNomination()
	if early {
		m.nomination.next = m.now.Add(earlyFor)
	}
}

func (m *Machine) sendNomination() {
	n := &m.nomination
	n.tries++
	n.next = m.now.Add(n.gap)
	m.sendProbe(n.addr, flagNominate, n.generation, PaddedSize)
}

func (m *Machine) advanceNomination() {
	n := &m.nomination
	if !n.active() || !m.due(n.next) {
		return
	}
	switch {
	case n.early:
		*n = nomination{}
	case n.tries < maxNominations:
		m.sendNomination()
	default:
		m.nominationFailed()
	}
}

func (m *Machine) nominationFailed() {
	if c := m.find(m.nomination.addr); c != nil {
		c.narrow++
	}
	m.nomination = nomination{}
	if !m.path.selected() {
		m.reason = "no path carries full-size packets"
	}
	for _, c := range m.candidates {
		if c.narrow < maxNarrow && !c.answered.IsZero() && m.now.Sub(c.answered) < m.cfg.Round {
			if m.consider(c); m.nomination.active() {
				return
			}
		}
	}
}

func (m *Machine) wakeNomination(w *time.Time) {
	if m.nomination.active() {
		earlier(w, m.nomination.next)
	}
}

// receiveNomination is the controlled side's part. c may be nil: too many addresses.
func (m *Machine) receiveNomination(c *candidate, from end, msg message) {
	if msg.generation == m.generation {
		if from == m.path.addr {
			m.reply(from, msg)
		}
		return
	}
	if c == nil || msg.generation < firstGeneration || msg.generation < m.deferred.msg.generation {
		return
	}
	m.deferred = deferred{addr: from, msg: msg, at: m.now}
	if !c.answered.IsZero() && m.now.Sub(c.answered) < m.cfg.Round {
		m.acceptDeferred()
		return
	}
	// One more probe for each nomination: it costs less than what came.
	c.allowance++
	m.probe(c)
}

func (m *Machine) acceptDeferred() {
	d := m.deferred
	m.deferred = deferred{}
	if m.now.Sub(d.at) > m.cfg.Round || d.msg.generation <= m.generation {
		return
	}
	m.reply(d.addr, d.msg)
	var rtt time.Duration
	if c := m.find(d.addr); c != nil {
		rtt = c.rtt
	}
	m.choose(d.addr, d.msg.generation, rtt)
}
