package punch

import (
	"net/netip"
	"slices"
	"time"
)

// Two instances of which at least one is behind a NAT that maps by destination meet like this. One side opens extra sockets and
// sends a PROBE from each to a single address: a fan, whose mappings all admit that address. The other side
// sends PROBEs from that address to the ports that the fan may have been given: a sweep. One that hits is answered from
// the socket that it reached, and from there on it is a path like any other.
//
// Random ports, birthday method: 256 sockets, and at most 2,048 random ports of 64,512. A sweep of n misses with
// a chance of about (1 - 256/64512)^n: 10 % after 580 probes, 1.7 % after 1,024, 0.03 % after 2,048.
//
// Ports in order: STUN is asked from a socket opened before the fan's and from one opened after them, so the fan's ports
// lie in between, whatever the NAT's step is and whoever else makes mappings at that moment.
//
// Both in order: the sweeping side lets STUN tell where its NAT's counter stands, and the fan goes to a port some
// mappings ahead. Each probe of the sweep uses up one port, so one of them leaves from there, unless others used
// up more ports meanwhile; so each try looks further ahead, with a bigger fan.
const (
	birthdaySockets = 256
	birthdayProbes  = 2048
	birthdayBurst   = 16 // every birthdayEvery: 320 a second, 30 kB/s with UDP and IP headers
	birthdayEvery   = 50 * time.Millisecond
	birthdayAfter   = 1500 * time.Millisecond // of plain probing: a lenient filter has shown by then
	birthdayFor     = 10 * time.Second

	predictSockets = 4   // against one port for all destinations; doubled, and more, against another sequence
	predictAhead   = 8   // mappings from the sweeping side's counter to the fan's target, at first
	predictProbes  = 256 // at most, in one sweep
	predictBurst   = 32  // every predictEvery
	predictEvery   = 10 * time.Millisecond
	predictAfter   = 10 * time.Millisecond // what the round sends first must not use up ports later
	predictFor     = 2 * time.Second
	predictTries   = 5 // in a row
	predictSweeps  = 3 // over the same ports, which uses up no more of them

	sweepAgain  = 250 * time.Millisecond
	sweepSettle = time.Second
	callAgain   = 500 * time.Millisecond
	noSockets   = time.Second      // until sockets are asked for again
	hardMin     = 15 * time.Second // from a failed attempt, or predictTries of them, to the next; doubles
	hardMax     = 10 * time.Minute
)

// Open asks for extra sockets.
type Open struct {
	// First is the number of the first; the others count on from there. No number is used twice.
	First, Count int
	// Sample says that a STUN server is asked from the first socket before Data is sent, and another one from the last
	// socket afterwards; the two may be one and the same. They send nothing else.
	Sample bool
	// Data is sent to To from each of the other sockets, in order. To is zero if there is nothing to send.
	To   netip.AddrPort
	Data []byte
}

// Opened is the answer to Open. Count is how many sockets were opened, 0 if none could or should be. First and Last are
// what STUN told, if it was asked and has answered.
type Opened struct {
	Number      int // Open.First
	Count       int
	First, Last netip.AddrPort
}

// Kinds of attempt in a CALL.
const (
	attemptNone   = 0
	attemptSample = 1 // first and last are ports of the sender's two newest mappings: aim a fan ahead of them
	attemptFan    = 2 // the sender's fan is open, with ports between first and last, or anywhere if both are 0: sweep
)

// attempt is what a CALL says of one.
type attempt struct {
	kind        byte
	number      uint16
	first, last uint16
}

// hard is the state of the hard methods.
type hard struct {
	outlooks Outlooks
	next     time.Time // of the next attempt of our own
	wait     time.Time // no attempt before; outlives the round
	pause    time.Duration
	tries    int

	active  bool // an attempt of our own is under way: a fan, or a sample for the peer's
	ends    time.Time
	limit   time.Time      // of ends
	first   int            // socket
	to      netip.AddrPort // where its fan is aimed
	count   int
	sockets int  // that were ever asked for
	open    bool // some are
	kept    int  // the one of the last path
	call    attempt
	recall  time.Time

	heard uint16 // number of the peer's attempt that was acted on
	sweep sweep
}

// sweep is a series of probes to ports of the peer's NAT that nobody named.
type sweep struct {
	ip     netip.Addr
	ports  func(i int) uint16
	count  int
	at     int // next index
	rounds int // over the same ports, still to come
	birth  bool
	next   time.Time // zero = no sweep runs
	done   bool      // all is sent; replies may be under way
	bursts []burst
}

// burst is probes of consecutive sequence numbers.
type burst struct {
	at       time.Time
	sequence uint64
	ports    []uint16
	flags    byte
}

func (m *Machine) method() Method {
	if !m.here.Public.Addr().Is4() || !m.there.Public.Addr().Is4() || m.here.Public.Addr() == m.there.Public.Addr() {
		return MethodPlain
	}
	return MethodFor(m.here, m.there)
}

// fans reports whether this side's part is the fan.
func (m *Machine) fans() bool {
	switch {
	case m.there.Mapping == MappingStable:
		return true
	case m.here.Mapping == MappingStable:
		return false
	}
	return m.cfg.Controlling
}

// begins reports whether this side takes the first step. With two sequences that is the sample of the sweeping side.
func (m *Machine) begins() bool {
	both := m.here.Mapping == MappingSequential && m.there.Mapping == MappingSequential
	return m.fans() != both
}

// hardPossible reports whether an attempt makes sense now. Without a relay the sides cannot agree on one.
func (m *Machine) hardPossible() bool {
	method := m.method()
	return m.started && m.wanted && !m.cfg.NoRelay && !m.path.selected() &&
		(method == MethodPredict || method == MethodBirthday)
}

// scheduleHard is for a new round.
func (m *Machine) scheduleHard() {
	after := predictAfter
	if m.method() == MethodBirthday && m.outlook() != OutlookGood {
		after = birthdayAfter
	}
	m.hard.next = m.now.Add(after)
	if m.hard.next.Before(m.hard.wait) {
		m.hard.next = m.hard.wait
	}
}

// forgetHard is for news of either side: all tries count afresh.
func (m *Machine) forgetHard() {
	m.endAttempt()
	m.hard.tries, m.hard.pause, m.hard.wait = 0, hardMin, time.Time{}
	if m.outlook() == OutlookPoor {
		m.hard.pause = hardMax
	}
}

// nextAttempt is when an attempt of our own may begin; zero if none may.
func (m *Machine) nextAttempt() time.Time {
	h := &m.hard
	if h.active || h.sweep.running() || m.nominating() || !m.hardPossible() || !m.begins() {
		return time.Time{}
	}
	return h.next
}

func (m *Machine) advanceHard() {
	h := &m.hard
	if m.due(m.nextAttempt()) {
		m.beginAttempt()
	}
	if h.active {
		switch {
		case !m.hardPossible(): // there is a path, or no traffic
			m.endAttempt()
		case m.due(h.ends):
			m.attemptFailed()
		case m.due(h.recall):
			h.recall = m.now.Add(callAgain)
			m.hardCall()
		}
	}
	if m.due(h.sweep.next) {
		m.sweepOn()
	}
	if !h.active {
		m.closeSockets()
	}
}

func (m *Machine) wakeHard(w *time.Time) {
	h := &m.hard
	earlier(w, m.nextAttempt())
	if h.active {
		earlier(w, h.ends)
		earlier(w, h.recall)
	}
	earlier(w, h.sweep.next)
}

func (m *Machine) beginAttempt() {
	m.hard.tries++
	switch {
	case m.method() == MethodBirthday:
		m.openFan(birthdaySockets, false, m.there.Public, birthdayFor)
	case m.fans():
		m.openFan(predictSockets, true, m.there.Public, predictFor)
	default:
		m.openFan(0, true, netip.AddrPort{}, predictFor)
	}
}

// openFan asks for n sockets that send a probe to an address, and for those that sample.
func (m *Machine) openFan(n int, sample bool, to netip.AddrPort, lasts time.Duration) {
	m.closeSockets()
	h := &m.hard
	o := &Open{First: h.sockets + 1, Count: n, Sample: sample, To: to}
	switch {
	case sample && n == 0:
		o.Count = 1
	case sample:
		o.Count += 2
	}
	if to.IsValid() {
		o.Data = m.fanProbe(to)
	}
	h.sockets += o.Count
	h.active, h.open, h.limit = true, true, m.now.Add(2*lasts)
	h.first, h.count = o.First, o.Count
	h.ends, h.recall = m.now.Add(lasts), time.Time{}
	h.to = to
	h.call = attempt{number: uint16(m.nextSequence())}
	m.counters.Attempts++
	m.out.Open = o
}

// fanProbe is one PROBE for all sockets of a fan: its only purpose is the mappings. A lenient filter may let it through, so it
// is a proper one.
func (m *Machine) fanProbe(to netip.AddrPort) []byte {
	m.sendProbe(end{AddrPort: to}, 0, 0, ProbeSize)
	last := len(m.out.Send) - 1
	data := m.out.Send[last].Data
	m.out.Send = m.out.Send[:last]
	return data
}

// opened goes on when the sockets are there and STUN has answered.
func (m *Machine) opened(e Opened) {
	h := &m.hard
	if !h.active || e.Number != h.first {
		return
	}
	if e.Count < h.count/2+1 { // others have them: no failure, and worth another look soon
		m.endAttempt()
		h.next = m.now.Add(m.between(noSockets, 2*noSockets))
		return
	}
	h.call.kind = attemptFan
	if m.method() == MethodPredict {
		if !m.sampled(unmap(e.First), unmap(e.Last)) {
			if m.method() == MethodPredict {
				m.attemptFailed()
			} else { // another method, at once
				m.endAttempt()
				h.tries, h.next = 0, m.now
			}
			return
		}
		h.call.first, h.call.last = e.First.Port(), e.Last.Port()
	}
	if h.count == 1 {
		h.call.kind = attemptSample
		m.closeSockets()
	}
	h.recall = m.now.Add(callAgain)
	m.hardCall()
}

// sampled reports whether the NAT numbers ports in order as expected, and learns its step. One that does not is
// random from now on.
func (m *Machine) sampled(first, last netip.AddrPort) bool {
	if !first.IsValid() || !last.IsValid() {
		return false // no STUN server has answered
	}
	if first.Addr() != m.here.Public.Addr() || last.Addr() != first.Addr() {
		return false // another network, or a pool of addresses
	}
	apart := int(last.Port()) - int(first.Port())
	steps := max(m.hard.count-1, 1)
	step := apart / steps
	if abs(apart) > max(predictProbes, 8*steps) || step == 0 || abs(step) > 127 {
		if (apart > 0) == (m.here.Step > 0) || m.hard.tries > 1 { // else it may just have wrapped around
			m.here.Mapping, m.here.Step = MappingRandom, 0
			m.call(flagAnswer)
		}
		return false
	}
	if abs(step) < abs(int(m.here.Step)) || steps == 1 || m.here.Step == 0 || (step > 0) != (m.here.Step > 0) {
		m.here.Step = int8(step)
	}
	return true
}

func abs(n int) int { return max(n, -n) }

// hardCall tells the peer of the attempt.
func (m *Machine) hardCall() {
	if m.hard.call.kind == attemptNone {
		return
	}
	m.callAbout(flagAnswer, m.hard.call)
}

// receiveAttempt acts on what a CALL says of the peer's attempt; a repeated one is known by its number.
func (m *Machine) receiveAttempt(a attempt) {
	h := &m.hard
	method := m.method()
	if a.kind == attemptNone || a.number == h.heard || m.path.selected() || !m.hardPossible() {
		return
	}
	switch {
	case a.kind == attemptSample && method == MethodPredict && m.fans() && !m.begins():
		m.aim(a)
	case a.kind == attemptFan && !m.fans() && (method == MethodBirthday || a.first != a.last):
		m.startSweep(a, method)
	default:
		return
	}
	h.heard = a.number
}

// aim opens a fan that is meant for a port that the peer's NAT is about to use.
func (m *Machine) aim(a attempt) {
	step := int(a.last) - int(a.first)
	if step == 0 || abs(step) > predictProbes {
		return
	}
	ahead := predictAhead << min(m.hard.tries, 3)
	port := int(a.last) + ahead*step
	if port < minPort || port > maxPort {
		return // the next sample comes from after the wrap
	}
	m.hard.tries++
	m.openFan(2*ahead, true, netip.AddrPortFrom(m.there.Public.Addr(), uint16(port)), predictFor)
}

// The ports that a NAT chooses from.
const (
	minPort   = 1024
	maxPort   = 1<<16 - 1
	portCount = maxPort - minPort + 1
)

func (s *sweep) running() bool { return !s.next.IsZero() }

// startSweep goes only where the peer's candidates are: at an address that its authenticated messages named.
func (m *Machine) startSweep(a attempt, method Method) {
	ip := m.there.Public.Addr()
	if !m.usable(m.there.Public) || !slices.ContainsFunc(m.remote, func(r netip.AddrPort) bool { return r.Addr() == ip }) {
		return
	}
	s := sweep{ip: ip, next: m.now, birth: method == MethodBirthday}
	if s.birth {
		s.count, s.ports = birthdayProbes, m.randomPorts()
	} else {
		s.rounds = predictSweeps - 1
		s.count, s.ports = portsBetween(a, m.sweepStep())
	}
	if m.hard.sweep.ip == ip {
		s.bursts = m.hard.sweep.bursts // the last replies may be under way
	}
	if m.hard.active {
		m.hard.ends = m.now.Add(predictFor) // ours was the sample for this
	}
	m.hard.sweep = s
}

// sweepStep is 0 for every port: only where each probe costs a port of our own NAT do they matter.
func (m *Machine) sweepStep() int {
	if m.here.Mapping == MappingStable {
		return 0
	}
	return int(m.there.Step)
}

// portsBetween counts the ports from first to last, both exclusive, in steps; 0 means each.
func portsBetween(a attempt, step int) (count int, port func(int) uint16) {
	first, apart := int(a.first), int(a.last)-int(a.first)
	if step == 0 || (step > 0) != (apart > 0) {
		step = apart / abs(apart)
	}
	count = max(0, min((abs(apart)-1)/abs(step), predictProbes))
	return count, func(i int) uint16 { return uint16(first + (i+1)*step) }
}

// randomPorts returns distinct ports in an order that nobody foresees: a stride that shares no factor with their number
// (2, 3 and 7) goes through all.
func (m *Machine) randomPorts() func(int) uint16 {
	var b [4]byte
	m.cfg.Rand(b[:])
	start, stride := int(b[0])<<8|int(b[1]), int(b[2])<<8|int(b[3])|1
	for stride%3 == 0 || stride%7 == 0 {
		stride += 2
	}
	return func(i int) uint16 { return uint16(minPort + (start+i*stride)%portCount) }
}

// sweepOn sends the next burst.
func (m *Machine) sweepOn() {
	s := &m.hard.sweep
	if s.done || !m.hardPossible() || m.fans() {
		m.endSweep()
		if s.done && !m.nominating() && !m.path.selected() {
			m.reason = m.inVain()
		}
		return
	}
	n, gap := predictBurst, predictEvery
	if s.birth {
		n, gap = birthdayBurst, birthdayEvery
	}
	s.next = m.now.Add(gap)
	if m.nominating() {
		return
	}
	n = min(n, s.count-s.at)
	m.sweepBurst(n)
	if s.at < s.count {
		return
	}
	if s.rounds == 0 {
		s.done, s.next = true, m.now.Add(sweepSettle)
		return
	}
	s.at, s.rounds = 0, s.rounds-1
	s.next = m.now.Add(sweepAgain)
}

func (m *Machine) sweepBurst(n int) {
	s := &m.hard.sweep
	s.bursts = slices.DeleteFunc(s.bursts, func(b burst) bool { return m.now.Sub(b.at) > pendingFor })
	b := burst{at: m.now, flags: m.plainFlags(), ports: make([]uint16, n)}
	for i := range n {
		port := s.ports(s.at)
		s.at++
		b.ports[i] = port
		seq := m.nextSequence()
		if i == 0 {
			b.sequence = seq
		}
		m.counters.Guesses++
		m.out.Send = append(m.out.Send, Datagram{To: netip.AddrPortFrom(s.ip, port), Guess: true, Data: m.seal.seal(message{
			kind: TypeProbe, flags: b.flags, generation: m.known(), tag: m.tag, sequence: seq, size: ProbeSize,
		})})
	}
	s.bursts = append(s.bursts, b)
}

// guess returns the transaction of a sweep's probe, once.
func (s *sweep) guess(msg message, tag Tag) (transaction, bool) {
	if msg.tag != tag {
		return transaction{}, false
	}
	for _, b := range s.bursts {
		if i := msg.sequence - b.sequence; i < uint64(len(b.ports)) && b.ports[i] != 0 {
			to := end{AddrPort: netip.AddrPortFrom(s.ip, b.ports[i])}
			b.ports[i] = 0
			return transaction{addr: to, at: b.at, sequence: msg.sequence, tag: tag, size: ProbeSize, flags: b.flags}, true
		}
	}
	return transaction{}, false
}

// endSweep leaves the bursts: replies may be under way.
func (m *Machine) endSweep() { m.hard.sweep.next = time.Time{} }

// expected reports whether a packet from there may come in at its socket: an extra one is there for one address.
func (m *Machine) expected(from end) bool {
	h := &m.hard
	return from.Socket == 0 || from == m.path.addr || from == m.lastPath ||
		h.active && from.Socket >= h.first && from.Socket < h.first+h.count && from.AddrPort == h.to
}

// hardOn reports whether an attempt of either side is under way.
func (m *Machine) hardOn() bool { return m.hard.active || m.hard.sweep.running() }

func (m *Machine) hardReason() string {
	if m.method() == MethodBirthday {
		return "looking for a port of a NAT with random ports"
	}
	return "looking for a port of a NAT with ports in order"
}

func (m *Machine) inVain() string {
	if m.method() == MethodBirthday {
		return "found no port of a NAT with random ports; trying again later"
	}
	return "found no port of a NAT with ports in order; trying again later"
}

// hardWon is for a path that was just selected: should it be lost, all begins afresh.
func (m *Machine) hardWon(a end) {
	m.how = m.foundBy(a)
	h := &m.hard
	h.tries, h.pause, h.wait = 0, hardMin, time.Time{}
}

// foundBy says how an address was found that is about to be the path.
func (m *Machine) foundBy(a end) Method {
	s := &m.hard.sweep
	guessed := len(s.bursts) > 0 && a.Addr() == s.ip && !slices.Contains(m.remote, a.AddrPort)
	if a.Socket != 0 || guessed {
		return m.method()
	}
	return MethodPlain
}

// closeSockets gives up the extra sockets but that of the last path, whose mappings may still be there.
func (m *Machine) closeSockets() {
	h := &m.hard
	if !h.open && h.kept == m.lastPath.Socket {
		return
	}
	h.open, h.kept = false, m.lastPath.Socket
	m.out.Close, m.out.Keep = true, h.kept
	gone := func(a end) bool { return a.Socket != 0 && a.Socket != h.kept }
	m.candidates = slices.DeleteFunc(m.candidates, func(c *candidate) bool { return gone(c.addr) })
	if gone(m.nomination.addr) {
		m.nomination = nomination{}
	}
	if gone(m.deferred.addr) {
		m.deferred = deferred{}
	}
}

// prolong keeps a fan open while a peer that has hit it and we settle on the path, but not for ever.
func (m *Machine) prolong() {
	h := &m.hard
	if until := m.now.Add(predictFor); h.active && until.After(h.ends) && until.Before(h.limit) {
		h.ends = until
	}
}

// endAttempt stops everything, for good or because there is a path.
func (m *Machine) endAttempt() {
	m.hard.active = false
	m.endSweep()
}

func (m *Machine) attemptFailed() {
	h := &m.hard
	m.endAttempt()
	m.reason = m.inVain()
	h.next = m.now
	if m.method() == MethodBirthday || h.tries >= predictTries {
		m.counters.Failed++
		h.tries = 0
		h.wait = m.now.Add(m.between(h.pause*9/10, h.pause*11/10))
		h.pause = min(2*h.pause, hardMax)
		h.next = h.wait
	}
}
