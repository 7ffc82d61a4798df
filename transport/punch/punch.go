package punch

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// Config is what a Machine is made of. Key and Controlling must be set, all else has a default.
type Config struct {
	Key         [32]byte // shared by the two instances alone
	Controlling bool     // exactly one of the two is

	// Begun is when the endpoint began, of which Key is. Sequence numbers count from then, so that they go on if the Machine is made anew,
	// also when the wall clock has been set back since. Zero: from the first one.
	Begun time.Time

	// Rand fills a slice, for jitter only; nil = crypto/rand.
	Rand func([]byte)

	// NoRelay says that no data can go through the relay: while a path is selected Route stays
	// Direct, and a path that is lost stays selected until a better one is found. CALLs are still
	// put out; drop them if there is no way to carry them. A Relay event changes it.
	NoRelay bool

	// FirstRepeat is from the first probe to the second and from that to the third, and doubles then. So whenever a NAT
	// on the way opens, a probe comes before twice that time has passed. 0 = 30 ms
	FirstRepeat time.Duration
	MaxRepeat   time.Duration // between two probes of one candidate. 0 = 2 s
	Round       time.Duration // length of one attempt. 0 = 4 s
	// DoubtMin and DoubtMax bound the silence after a send that raises doubt, which is 2 RTT + 90 ms; but it is never
	// less than 1.5 RTT. 0 = 150 ms and 600 ms
	DoubtMin, DoubtMax time.Duration
	LostAfter          time.Duration // length of doubt, or 2 RTT if that is more. 0 = 1 s
	RetryMin           time.Duration // from a failed round to the next, doubling. 0 = 5 s
	RetryMax           time.Duration // 0 = 60 s
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		v    *time.Duration
		zero time.Duration
	}{
		{&c.FirstRepeat, 30 * time.Millisecond}, {&c.MaxRepeat, 2 * time.Second},
		{&c.Round, 4 * time.Second}, {&c.DoubtMin, 150 * time.Millisecond}, {&c.DoubtMax, 600 * time.Millisecond},
		{&c.LostAfter, time.Second}, {&c.RetryMin, 5 * time.Second}, {&c.RetryMax, time.Minute},
	} {
		if *d.v <= 0 {
			*d.v = d.zero
		}
	}
	if c.Rand == nil {
		c.Rand = func(b []byte) { _, _ = rand.Read(b) } // never fails (crypto/rand)
	}
	return c
}

// Event is one of SetLocal, Start, Relay, Disturbed, Thawed, Packet, Traffic and Opened.
type Event interface{ event() }

// SetLocal gives the instance's own candidates, of which the first MaxCandidates count, and its NAT.
// Once started, a change goes to the peer in a CALL.
type SetLocal struct {
	Candidates []netip.AddrPort
	NAT        NAT
}

// Start gives the peer's candidates from a verified offer or answer and starts a round at once. An answer says what its
// sender was told of this side's candidates. If they are not those of SetLocal any more the peer is called too, over the relay.
type Start struct {
	Remote   []netip.AddrPort
	NAT      NAT // the peer's
	Outlooks Outlooks
	Told     []netip.AddrPort // nil: nothing is known of that
}

// Relay tells that data can, or can no longer, go through the relay (see Config.NoRelay).
type Relay struct{ Usable bool }

// Disturbed tells that the network is another, or the path has changed: it must prove itself, and a round starts at once.
type Disturbed struct{ Reason string }

// Thawed tells that the process was frozen, for seconds at least. If the path was in doubt, or a talk is under way and the peer owed an answer, that is as
// Disturbed. Else the path is doubted when the peer is next talked to (see Traffic), or data of it comes by the relay. If neither happens within some seconds,
// it is probed once, and without a path a round starts: who has many peers talks to few of them, and would have all others answer.
type Thawed struct{ Talking bool } // as in Traffic

// Packet is a datagram that arrived with a first byte of 0x10 to 0x1f. A zero From means that it came
// through the relay. Data is not kept.
type Packet struct {
	From   netip.AddrPort
	Socket int // that it arrived at: 0, or the number of an extra one (see Open)
	Data   []byte
}

// Traffic is the tick: what the owner saw of the peer. Step wants it every 50 ms or so while data
// flows on a direct path, and when Output.Wake is reached. Times that have not come yet are zero.
type Traffic struct {
	Sent     time.Time // last time anything was sent on the selected direct path
	Used     time.Time // last time that something was said to the peer, or was read of what it said, as far as a direct path would carry it
	Size     int       // of the packets that are sent on it, if they come in batches; 0 = not known
	Received time.Time // last time anything of the peer was heard on it
	// RelayReceived is the last time that data of the current generation came through the relay:
	// the peer doubts the path.
	RelayReceived time.Time
	Wanted        bool // data flows or a direct path is asked for; rounds are repeated only then
	Talking       bool // something may be under way. Else what was sent last is not waited for: an acknowledgement is never answered
	// KeepAlive is the pause that fits the NAT here, as far as other peers' paths have shown (see Pace); 0 = not known.
	KeepAlive time.Duration
}

func (SetLocal) event()  {}
func (Start) event()     {}
func (Relay) event()     {}
func (Disturbed) event() {}
func (Thawed) event()    {}
func (Packet) event()    {}
func (Traffic) event()   {}
func (Opened) event()    {}

// Datagram is to be sent. A zero To means through the
// relay.
type Datagram struct {
	To     netip.AddrPort
	Socket int // 0, or the number of an extra one (see Open)
	Data   []byte
	// Guess says that nobody named the address: one of the ports that the peer's NAT may have chosen. The owner sends as
	// many as its budget for the address allows.
	Guess bool
}

// Output is what the owner must do after a Step, at once and in order.
type Output struct {
	Send    []Datagram
	Close   bool      // all extra sockets but Keep
	Keep    int       // the one that stays open; 0 = none
	Open    *Open     // extra sockets; nil = none
	Wake    time.Time // call Step with Traffic by then; zero = no need
	Changed bool      // State has another phase, route, path, generation or reason
	// Survived and Died are pauses in which the path was idle and after which it worked, or was found dead; 0 = none. They
	// are for the Pace that all peers share.
	Survived, Died time.Duration
}

// Machine is the state of the paths to one peer. It is not safe for concurrent use.
type Machine struct {
	cfg  Config
	tag  Tag
	seal *sealer
	now  time.Time
	wake time.Time
	out  Output

	started, wanted bool
	talking         bool // Traffic.Talking
	local, remote   []netip.AddrPort
	here, there     NAT
	candidates      []*candidate
	lastPath        end // probed in later rounds though nobody named it

	round    round
	nextTry  time.Time     // of the next round, if wanted
	backoff  time.Duration // then the next but one
	credit   time.Time     // limits rounds: see allowRound
	owed     bool          // a round waits for credit
	owedCall bool

	hard       hard
	how        Method     // by which the selected path was found
	nomination nomination // controlling
	deferred   deferred   // controlled
	path       path
	pace       Pace          // of this peer's paths
	others     time.Duration // Traffic.KeepAlive
	strikes    int           // paths lost in a row
	hold       time.Time     // until when no path is chosen
	thaw       thaw
	generation uint16 // of the last path that was selected
	nominated  uint16 // highest generation that was ever offered

	sequence  uint64
	pending   []transaction
	seen      window // of the peer's PROBEs
	seenCalls uint64 // newest CALL

	since    time.Time
	observed netip.AddrPort
	reason   string
	counters Counters
}

// New returns a Machine that does nothing until it is started.
func New(cfg Config) *Machine {
	cfg = cfg.withDefaults()
	return &Machine{
		cfg: cfg, tag: TagOf(cfg.Key), seal: newSealer(cfg.Key), backoff: cfg.RetryMin, reason: notTried, hard: hard{pause: hardMin},
	}
}

// frozenAfter is how late a wake-up may be before the process counts as having been frozen.
const frozenAfter = 5 * time.Second

// Step applies one event at the given time, which must not go back.
func (m *Machine) Step(now time.Time, ev Event) Output {
	if now.Before(m.now) {
		now = m.now
	}
	frozen := m.frozen(now)
	m.now, m.out = now, Output{}
	before := m.look()
	switch e := ev.(type) {
	case Traffic:
		m.talking = e.Talking
	case Thawed:
		m.talking = e.Talking
	}
	if frozen {
		m.thawed()
	}
	switch e := ev.(type) {
	case SetLocal:
		m.setLocal(e)
	case Start:
		m.start(e)
	case Relay:
		m.relay(e.Usable)
	case Disturbed:
		m.disturb(e.Reason)
	case Thawed:
		m.thawed()
	case Packet:
		m.receive(e)
	case Traffic:
		m.traffic(e)
	case Opened:
		m.opened(e)
	}
	m.advance()
	m.wake = m.nextWake()
	after := m.look()
	if after.phase != before.phase || after.route != before.route || after.path != before.path {
		m.since = now
	}
	m.out.Wake, m.out.Changed = m.wake, after != before
	return m.out
}

// frozen compares both clocks: a suspended virtual machine may not count the pause in its monotonic
// clock, and a stopped process sees no step of its wall clock. What wall clock wake carries is not known:
// it may come from a time of the owner's (Traffic), read before the clock was set.
func (m *Machine) frozen(now time.Time) bool {
	stepped := now.Round(0).Sub(m.now.Round(0)) - now.Sub(m.now)
	return !m.wake.IsZero() && (now.Sub(m.wake) > frozenAfter || stepped > frozenAfter)
}

// ThawLeast and ThawMost bound the time after a freeze in which a path that nobody uses is looked after.
const (
	ThawLeast = time.Second
	ThawMost  = 5 * time.Second
)

// thaw is what is to be done since the process was frozen.
type thaw struct {
	last  time.Time // when that was noticed last
	open  bool      // the path has not proved itself since
	due   time.Time // when it is to, at the latest
	stale bool      // it was left alone for longer than many NATs remember
}

const (
	frozenReason = "process was frozen"
	thawSlack    = time.Second // before a freeze is noticed: what comes in it came after the freeze, which takes longer
)

// thawed has a path that an answer was awaited on be looked after at once, and others later.
func (m *Machine) thawed() {
	// By either clock, as in frozen.
	if last := m.thaw.last; !last.IsZero() && max(m.now.Sub(last), m.now.Round(0).Sub(last.Round(0))) < frozenAfter { // noticed twice
		return
	}
	m.thaw = thaw{last: m.now}
	if p := &m.path; p.selected() {
		if !p.sure() || m.talking && !p.unanswered.IsZero() {
			m.disturb(frozenReason)
			return
		}
		p.unanswered, p.checks, p.pause = time.Time{}, 0, 0
		m.thaw.stale = m.now.Sub(p.heard) > KeepAliveMost && m.now.Sub(p.sent) > KeepAliveMost
	}
	m.forgetTries()
	m.thaw.open, m.thaw.due = true, m.now.Add(m.between(ThawLeast, ThawMost))
	if m.talking && m.path.selected() { // the peer may have something to say, and a NAT here let it in no more
		m.probePath(0, ProbeSize)
	}
}

// sinceThaw tells whether t is after the last freeze, and the path has not proved itself since.
func (m *Machine) sinceThaw(t time.Time) bool { return m.thaw.open && m.thaw.last.Sub(t) < thawSlack }

func (m *Machine) advanceThaw() {
	switch {
	case !m.thaw.open:
	case m.path.sure() && m.path.proof.After(m.thaw.last):
		m.thaw.open = false
	case !m.due(m.thaw.due):
	case m.path.sure():
		m.thaw.open = false
		m.probePath(0, ProbeSize)
	default:
		m.disturb(frozenReason)
	}
}

// useThawed doubts a path that is used for the first time since a freeze. Other paths are looked for at once only if a NAT may have forgotten it.
func (m *Machine) useThawed() {
	if m.path.sure() && !m.thaw.stale {
		m.mistrust(frozenReason)
		return
	}
	m.disturb(frozenReason)
}

// mistrust has the path prove itself.
func (m *Machine) mistrust(reason string) {
	m.thaw.open = false
	if m.path.selected() {
		m.enterDoubt(reason, true)
	}
	m.forgetTries()
}

func (m *Machine) disturb(reason string) {
	m.mistrust(reason)
	if m.started {
		m.startRound(true)
	}
}

// forgetTries forgets what attempts have shown: the network may be another.
func (m *Machine) forgetTries() {
	m.backoff, m.strikes, m.hold = m.cfg.RetryMin, 0, time.Time{}
	m.forgetHard()
}

func (m *Machine) setLocal(e SetLocal) {
	local, nat := unmapAll(e.Candidates), e.NAT.known()
	if slices.Equal(local, m.local) && nat == m.here {
		return
	}
	m.local, m.here = local, nat
	m.forgetHard()
	if !m.started {
		return
	}
	m.backoff = m.cfg.RetryMin
	if m.path.selected() {
		m.call(0)
		return
	}
	m.startRound(true)
}

func (m *Machine) start(e Start) {
	m.started = true
	m.remote, m.there = unmapAll(e.Remote), e.NAT.known()
	m.backoff = m.cfg.RetryMin
	m.hard.outlooks = e.Outlooks
	m.forgetHard()
	m.suspect("peer started again")
	m.startRound(e.Told != nil && !slices.Equal(unmapAll(e.Told), m.local))
}

// relay gives up a path that was kept only because there was no relay.
func (m *Machine) relay(usable bool) {
	m.cfg.NoRelay = !usable
	if usable && m.path.gaveUp {
		m.drop(m.reason, true)
	}
}

// suspect starts a doubt if the path was not heard lately; otherwise the path is kept beside the
// round that follows.
func (m *Machine) suspect(reason string) {
	if m.path.sure() && m.now.Sub(m.path.heard) > time.Second {
		m.enterDoubt(reason, false)
	}
}

// advance does everything whose time has come.
func (m *Machine) advance() {
	m.advanceThaw()
	m.advancePath()
	m.advanceNomination()
	m.advanceRound()
	m.advanceHard()
}

// nextWake is the earliest time at which advance would do something.
func (m *Machine) nextWake() time.Time {
	var w time.Time
	if m.thaw.open {
		earlier(&w, m.thaw.due)
	}
	m.wakePath(&w)
	m.wakeNomination(&w)
	m.wakeRound(&w)
	m.wakeHard(&w)
	return w
}

// earlier moves w to t if t is set and earlier.
func earlier(w *time.Time, t time.Time) {
	if !t.IsZero() && (w.IsZero() || t.Before(*w)) {
		*w = t
	}
}

// due reports whether t is set and has come.
func (m *Machine) due(t time.Time) bool { return !t.IsZero() && !m.now.Before(t) }

// between returns a random duration in [lo, hi].
func (m *Machine) between(lo, hi time.Duration) time.Duration {
	var b [8]byte
	m.cfg.Rand(b[:])
	return lo + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(hi-lo+1))
}

// end is where the peer is: its address, and by which of our sockets it is reached there.
type end struct {
	netip.AddrPort
	Socket int
}

func unmapAll(in []netip.AddrPort) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, min(len(in), MaxCandidates))
	for _, a := range in {
		a = unmap(a)
		if len(out) < MaxCandidates && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
