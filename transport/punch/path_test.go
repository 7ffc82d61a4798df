package punch

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// directPair returns two instances that have been direct for a while.
func directPair(t testing.TB, c simConfig) *sim {
	if c.rtt == 0 {
		c.rtt = 40 * ms
	}
	if c.a == (place{}) {
		c.a, c.b = easy, easy
	}
	if c.seed == 0 {
		c.seed = 11
	}
	s := newSim(t, c)
	s.connect(s.b, c.rtt/2)
	s.waitDirect(20 * time.Second)
	s.net.Run(time.Second)
	return s
}

func (s *sim) cut(aToB, bToA bool) {
	s.net.Loss = func(from, _ netip.Addr) float64 {
		fromA := from == s.a.publicAddr()
		if fromA && aToB || !fromA && bToA {
			return 1
		}
		return 0
	}
}

func (x *side) publicAddr() netip.Addr {
	a, _ := x.host.MappedFor(stun)
	return a.Addr()
}

// since returns when x first was in a state after t, as time after t.
func (x *side) since(t time.Time, is func(State) bool) (time.Duration, bool) {
	for _, h := range x.history {
		if !h.Since.Before(t) && is(h) {
			return h.Since.Sub(t), true
		}
	}
	return 0, false
}

// doubtAfter is what ARCHITECTURE says of the silence that raises doubt: two round trips and 90 ms, from 150 to 600 ms, but never
// less than one and a half round trips.
func doubtAfter(rtt time.Duration) time.Duration {
	return max(min(max(2*rtt+90*ms, 150*ms), 600*ms), rtt*3/2)
}

// The machine keeps to the formula, and a live path has answered a check by then.
func TestDoubtAfter(t *testing.T) {
	for rtt, want := range map[time.Duration]time.Duration{
		0: 150 * ms, 20 * ms: 150 * ms, 40 * ms: 170 * ms, 60 * ms: 210 * ms, 100 * ms: 290 * ms, 200 * ms: 490 * ms, 300 * ms: 600 * ms, 400 * ms: 600 * ms,
		600 * ms: 900 * ms,
	} {
		m := New(Config{})
		m.path.rtt, m.path.unanswered = rtt, epoch
		if got := m.doubtAfter(); got != want || doubtAfter(rtt) != want {
			t.Errorf("rtt %v: doubt after %v, want %v", rtt, got, want)
		}
		if answer := m.checkAt().Add(rtt); answer.After(m.doubtAt()) {
			t.Errorf("rtt %v: the answer to a check comes after %v", rtt, answer.Sub(epoch))
		}
	}
}

func TestPathDies(t *testing.T) {
	for _, tt := range []struct {
		name       string
		aToB, bToA bool
	}{{"both ways", true, true}, {"a to b", true, false}, {"b to a", false, true}} {
		for _, talker := range []string{"a", "b"} {
			for _, rtt := range []time.Duration{4 * ms, 40 * ms, 60 * ms, 85 * ms, 150 * ms, 300 * ms, 400 * ms, 600 * ms} {
				s := directPair(t, simConfig{rtt: rtt})
				x := s.a
				if talker == "b" {
					x = s.b
				}
				s.talk(x, 10*ms, 2*time.Second)
				cut := s.net.Now()
				s.cut(tt.aToB, tt.bToA)
				s.talk(x, 10*ms, 6*time.Second)
				// What is under way still arrives, for half a round trip; a tick comes every 50 ms. The other side has the news, or
				// doubts too, a round trip later at most. So up to a round trip of 60 ms both doubt within 300 ms, one up to 85 ms.
				after := doubtAfter(rtt) + rtt/2 + 50*ms
				first := after + time.Hour
				for _, y := range []*side{s.a, s.b} {
					both, ok := y.since(cut, func(h State) bool { return h.Route == RouteBoth })
					first = min(first, both)
					if limit := after + rtt; !ok || both > limit || rtt <= 60*ms && both > 300*ms {
						t.Errorf("%s, %s talks, rtt %v, %s: both after %v (%v)", tt.name, talker, rtt, y.name, both, ok)
					}
					relay, ok := y.since(cut, func(h State) bool { return h.Route == RouteRelay })
					if limit := both + max(time.Second, 2*rtt) + 50*ms; !ok || relay > limit {
						t.Errorf("%s, %s talks, rtt %v, %s: relay after %v (%v)", tt.name, talker, rtt, y.name, relay, ok)
					}
					t.Logf("%s, %s talks, rtt %v, %s: both %v relay %v", tt.name, talker, rtt, y.name, both, relay)
				}
				if first > after || rtt <= 85*ms && first > 300*ms {
					t.Errorf("%s, %s talks, rtt %v: the first doubts after %v", tt.name, talker, rtt, first)
				}
				s.cut(false, false)
				s.talk(x, 10*ms, 10*time.Second)
				if !s.bothDirect() || s.a.m.State().Generation <= 2 {
					t.Errorf("%s, %s talks, rtt %v: not back\n%s\n%s", tt.name, talker, rtt, s.a.story(), s.b.story())
				}
			}
		}
	}
}

// TestOutageLosesLittle counts what data an outage costs: only what is sent before both sides doubt.
func TestOutageLosesLittle(t *testing.T) {
	s := directPair(t, simConfig{})
	s.talk(s.a, 10*ms, time.Second)
	s.net.Run(100 * ms)
	s.cut(true, true)
	in := s.b.dataIn
	s.talk(s.a, 10*ms, 5*time.Second)
	s.net.Run(100 * ms)
	if lost := 500 - (s.b.dataIn - in); lost > 25 {
		t.Errorf("%d packets of 500 lost, 10 ms apart", lost)
	} else {
		t.Logf("%d packets of 500 lost, 10 ms apart", lost)
	}
}

// A path that was chosen while it was slow is known to have become faster after five minutes of talk, so its end is noticed as soon as that of
// any such path. That costs a probe in 25 s; words that are further apart, as keep-alives of links are, cost none.
func TestPathGetsFaster(t *testing.T) {
	for _, gap := range []time.Duration{50 * ms, 3 * time.Second} {
		for _, first := range []time.Duration{600 * ms, 2 * time.Second} {
			s := directPair(t, simConfig{rtt: first})
			s.talk(s.a, gap, 10*time.Second)
			s.net.Delay = func(_, _ netip.Addr) time.Duration { return 20 * ms }
			s.rtt = 40 * ms
			s.talk(s.a, gap, 4*time.Minute)
			probes := s.a.m.State().Counters.Probes
			s.talk(s.a, gap, time.Minute)
			if n := s.a.m.State().Counters.Probes - probes; gap < time.Second && n > 3 {
				t.Errorf("a word every %v, RTT %v at first: %d probes in a minute", gap, first, n)
			}
			cut := s.net.Now()
			s.cut(true, true)
			s.talk(s.a, gap, 5*time.Second)
			both, ok := s.a.since(cut, func(h State) bool { return h.Route == RouteBoth })
			if limit := doubtAfter(40*ms) + 70*ms; !ok || both > limit {
				t.Errorf("a word every %v, RTT %v at first: both ways after %v (%v), want %v", gap, first, both, ok, limit)
			}
		}
	}
	s := directPair(t, simConfig{})
	s.talk(s.a, 25*time.Second, 10*time.Minute)
	if s.a.m.path.chat || s.b.m.path.chat {
		t.Error("keep-alives are taken for a talk")
	}
}

func TestShortOutageKeepsPath(t *testing.T) {
	s := directPair(t, simConfig{})
	s.talk(s.a, 10*ms, time.Second)
	s.cut(true, true)
	s.talk(s.a, 10*ms, 700*ms)
	s.cut(false, false)
	s.talk(s.a, 10*ms, time.Second)
	if !s.bothDirect() || s.a.m.State().Generation != 2 {
		t.Errorf("%s\n%s", s.a.story(), s.b.story())
	}
}

// TestNoFlapping talks for ten minutes over a lossy path.
func TestNoFlapping(t *testing.T) {
	for _, gap := range []time.Duration{5 * ms, 50 * ms, 300 * ms, 3 * time.Second} {
		s := directPair(t, simConfig{seed: 5})
		s.net.Loss = func(_, _ netip.Addr) float64 { return 0.05 }
		s.relayLoss = 0.05
		n := len(s.a.history) + len(s.b.history)
		s.talk(s.a, gap, 10*time.Minute)
		changes := len(s.a.history) + len(s.b.history) - n
		t.Logf("data every %v: %d changes of state in 10 min, generation %d", gap, changes, s.a.m.State().Generation)
		if s.a.m.State().Generation != 2 || changes > 20 {
			t.Errorf("data every %v: flapping: %d changes\n%s\n%s", gap, changes, s.a.story(), s.b.story())
		}
	}
}

// TestTrailingAnswer: the last packet of a conversation is never answered, and that is no reason
// to doubt the path.
func TestTrailingAnswer(t *testing.T) {
	for _, rtt := range []time.Duration{2 * ms, 40 * ms, 200 * ms, 350 * ms, 800 * ms} {
		s := directPair(t, simConfig{rtt: rtt})
		n := len(s.a.history) + len(s.b.history)
		for range 20 {
			s.a.say(dataAsk)
			s.talk(s.a, time.Hour, 3*time.Second)
		}
		if got := len(s.a.history) + len(s.b.history); got != n {
			t.Errorf("rtt %v: %d changes\n%s\n%s", rtt, got-n, s.a.story(), s.b.story())
		}
	}
}

func TestKeepAlive(t *testing.T) {
	p := easy
	p.kind.Timeout = 20 * time.Second
	s := directPair(t, simConfig{a: p, b: p})
	probes := s.a.m.State().Counters.Probes
	s.net.Run(10 * time.Minute)
	if !s.bothDirect() || s.a.m.State().Generation != 2 {
		t.Fatalf("idle path was lost\n%s\n%s", s.a.story(), s.b.story())
	}
	if n := s.a.m.State().Counters.Probes - probes; n > 60 {
		t.Errorf("%d probes in 10 idle minutes", n)
	}
}

func TestIdlePathDies(t *testing.T) {
	s := directPair(t, simConfig{})
	s.cut(true, true)
	s.net.Run(20 * time.Second)
	for _, x := range []*side{s.a, s.b} {
		if st := x.m.State(); st.Route != RouteRelay {
			t.Errorf("%s: %+v", x.name, st)
		}
	}
	// Nothing is wanted, so nothing more is tried.
	s.a.wanted, s.b.wanted = false, false
	s.net.Run(2 * time.Minute)
	rounds := s.a.m.State().Counters.Rounds
	s.net.Run(10 * time.Minute)
	if n := s.a.m.State().Counters.Rounds; n != rounds {
		t.Errorf("%d rounds though nothing is wanted", n-rounds)
	}
	// Then it is.
	s.cut(false, false)
	s.a.wanted, s.b.wanted = true, true
	s.talk(s.a, 50*ms, 2*time.Second)
	if !s.bothDirect() {
		t.Errorf("%s\n%s", s.a.story(), s.b.story())
	}
}

func TestFreeze(t *testing.T) {
	for _, d := range []time.Duration{25 * time.Second, 5 * time.Minute} {
		for _, talking := range []bool{false, true} {
			s := directPair(t, simConfig{})
			s.talk(s.b, 50*ms, time.Second)
			s.net.Run(time.Second) // in which the last word is answered
			s.a.frozen = true
			if talking {
				s.talk(s.b, 50*ms, d)
			} else {
				s.net.Run(d)
			}
			s.a.frozen = false
			thaw := s.net.Now()
			calls := s.a.m.State().Counters.Calls
			s.a.tick()
			if st := s.a.m.State(); st.Phase != Direct || st.Counters.Calls != calls {
				t.Errorf("frozen for %v, and nothing is said yet: %+v", d, st)
			}
			s.a.say(dataAsk)
			s.a.tick()
			if st := s.a.m.State(); st.Phase != Doubt || st.Counters.Calls != calls+1 {
				t.Errorf("frozen for %v: %+v", d, st)
			}
			s.waitDirect(5 * time.Second)
			s.net.Run(2 * time.Second)
			if !s.bothDirect() || s.a.m.thaw.open {
				t.Errorf("frozen for %v: not stable\n%s\n%s", d, s.a.story(), s.b.story())
			}
			t.Logf("frozen for %v, talking %v: direct after %v\n%s\n%s", d, talking, s.a.m.State().Since.Sub(thaw), s.a.story(), s.b.story())
		}
	}
}

// A path that nobody uses after a freeze is probed some seconds later, without a word before; one on which an answer is awaited at once, if a talk is under
// way: else it was an acknowledgement. What died in the freeze says nothing of how long NATs remember.
func TestFrozenWhileIdle(t *testing.T) {
	for _, d := range []time.Duration{4 * time.Second, time.Minute} { // of the shorter one only the event tells
		for _, cut := range []bool{false, true} {
			for _, unanswered := range []string{"", "an acknowledgement", "an acknowledgement before a tick", "an acknowledgement before a tick that is late", "a word"} {
				awaited := unanswered == "a word"
				s := directPair(t, simConfig{})
				s.talk(s.b, 50*ms, time.Second)
				s.net.Run(time.Second)
				s.a.wanted, s.b.wanted = false, false
				s.a.talks = awaited
				if unanswered != "" {
					s.cut(true, true)
					s.a.say(dataAsk)
					if awaited || unanswered == "an acknowledgement" {
						s.a.tick()
					}
				}
				s.a.frozen, s.b.frozen = true, true
				s.net.Run(d)
				s.cut(cut, cut)
				s.a.frozen, s.b.frozen = false, false
				before := s.a.m.State()
				if strings.HasSuffix(unanswered, "late") { // and comes before the freeze is noticed
					s.a.tick()
				}
				s.a.step(Thawed{Talking: awaited})
				s.b.step(Thawed{})
				s.a.tick()
				s.net.Run(ThawLeast - 10*ms)
				if st := s.a.m.State(); !awaited && (st.Counters != before.Counters || st.Phase != Direct) || awaited && st.Counters.Calls == before.Counters.Calls {
					t.Errorf("frozen for %v after %q: %+v, before %+v", d, unanswered, st, before)
				}
				s.net.Run(ThawMost + 5*time.Second)
				if st := s.a.m.State(); cut != (st.Route == RouteRelay) || s.a.m.thaw.open || !awaited && !cut && s.a.m.path.proof.Before(s.a.m.thaw.last) {
					t.Errorf("frozen for %v, cut %v, after %q: %+v", d, cut, unanswered, st)
				}
				if s.a.died > 0 && !awaited {
					t.Errorf("frozen for %v, cut %v: a pause of %v is said to have ended the path", d, cut, s.a.died)
				}
			}
		}
	}
}

// A path over which the peer may have something to say is probed at once, which opens the NAT here.
func TestFrozenListening(t *testing.T) {
	for _, talks := range []bool{false, true} {
		s := directPair(t, simConfig{})
		s.talk(s.b, 50*ms, time.Second)
		s.net.Run(time.Second)
		s.a.talks, s.a.frozen = talks, true
		s.net.Run(time.Minute)
		s.a.frozen = false
		before := s.a.m.State().Counters
		s.a.step(Thawed{Talking: talks})
		s.a.tick()
		if st := s.a.m.State(); st.Counters.Probes > before.Probes != talks || st.Counters.Calls != before.Calls || st.Phase != Direct {
			t.Errorf("talks %v: %+v", talks, st)
		}
	}
}

// A path that is used after a freeze is asked whether it lives. If it does, that is all: others are looked for only if it does not answer, or if it was
// left alone for longer than many NATs remember.
func TestUsedAfterFreeze(t *testing.T) {
	for _, c := range []struct {
		frozen       time.Duration
		cut, heard   bool // something of the peer has waited in the socket
		calls, later bool // at once, and within seconds
	}{
		{10 * time.Second, false, false, false, false},
		{10 * time.Second, true, false, false, true},
		{time.Minute, false, false, true, true},
		{time.Minute, true, false, true, true},
		{time.Minute, true, true, true, true},
	} {
		s := directPair(t, simConfig{})
		s.talk(s.b, 50*ms, time.Second)
		s.net.Run(time.Second)
		s.a.frozen, s.b.frozen = true, true
		s.net.Run(c.frozen)
		s.a.frozen, s.b.frozen = false, false
		s.cut(c.cut, c.cut)
		s.a.step(Thawed{})
		s.b.step(Thawed{})
		before := s.a.m.State().Counters
		called := func() bool { return s.a.m.State().Counters.Calls > before.Calls }
		if c.heard {
			s.a.received = s.net.Now()
			s.a.tick()
		}
		s.a.used = s.net.Now()
		s.a.say(dataAsk)
		s.a.tick()
		if st := s.a.m.State(); called() != c.calls || st.Route != RouteBoth {
			t.Errorf("%+v: called at once %v, %v", c, called(), st)
		}
		s.net.Run(3 * time.Second)
		st := s.a.m.State()
		if called() != c.later || (st.Phase == Direct) == c.cut {
			t.Errorf("%+v: called %v, %+v", c, called(), st)
		}
		if n := st.Counters.Probes - before.Probes; !c.cut && n > 8 {
			t.Errorf("%+v: %d probes of paths, though the one that was there lives", c, n)
		}
	}
}

// One who only listens after a freeze has the path looked after when the peer says something by the relay, as it does when it doubts the path.
func TestFrozenListener(t *testing.T) {
	s := directPair(t, simConfig{})
	s.talk(s.b, 50*ms, time.Second)
	s.net.Run(time.Second)
	s.a.frozen = true
	s.net.Run(4 * time.Second)
	s.a.frozen = false
	s.a.step(Thawed{})
	s.a.relayReceived = s.net.Now()
	s.a.tick()
	if st := s.a.m.State(); st.Phase != Doubt {
		t.Errorf("%+v", st)
	}
}

// A path that is found after a freeze has proved itself.
func TestNewPathAfterFreeze(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		s := directPair(t, simConfig{})
		frozen, other := s.a, s.b
		if name == "b" {
			frozen, other = s.b, s.a
		}
		s.talk(other, 50*ms, time.Second)
		s.net.Run(time.Second)
		frozen.frozen = true
		s.talk(other, 50*ms, 10*time.Second) // which gives the path up
		frozen.frozen = false
		before := frozen.m.State().Generation
		frozen.step(Thawed{})
		other.step(Disturbed{Reason: "test"})
		s.net.Run(ThawLeast - 10*ms)
		if st := frozen.m.State(); st.Phase != Direct || st.Generation == before || frozen.m.thaw.open {
			t.Errorf("%s: %+v, before generation %d; to be looked after: %v", name, st, before, frozen.m.thaw.open)
		}
	}
}

// TestNATRestarts: all mappings go, new ones have other ports.
func TestNATRestarts(t *testing.T) {
	for _, p := range []place{easy, fullCone} {
		s := directPair(t, simConfig{a: p, b: p})
		s.talk(s.a, 20*ms, time.Second)
		s.a.nat.Forget()
		s.a.gather()
		s.talk(s.a, 20*ms, 6*time.Second)
		if !s.bothDirect() {
			t.Errorf("%v\n%s\n%s", p, s.a.story(), s.b.story())
		}
	}
}

// TestMove changes the network of each side in turn.
func TestMove(t *testing.T) {
	for _, which := range []string{"a", "b"} {
		s := directPair(t, simConfig{})
		x := s.a
		if which == "b" {
			x = s.b
		}
		s.talk(s.a, 20*ms, time.Second)
		moved := s.net.Now()
		x.nat = s.net.AddNAT(easy.kind, netip.MustParseAddr("203.0.113.9"))
		x.host.Move(netip.MustParseAddrPort("172.16.5.5:9999"), x.nat)
		s.net.After(100*ms, x.gather)
		s.talk(s.a, 20*ms, 5*time.Second)
		if !s.bothDirect() {
			t.Errorf("%s moved\n%s\n%s", which, s.a.story(), s.b.story())
		}
		for _, y := range []*side{s.a, s.b} {
			off, _ := y.since(moved, func(h State) bool { return h.Phase != Direct })
			back, _ := y.since(moved, func(h State) bool { return h.Phase == Direct })
			t.Logf("%s moved: %s in doubt after %v, direct again after %v", which, y.name, off, back)
		}
	}
}

// TestNewMachine replaces one side's Machine, as an owner may that had given its peer up.
func TestNewMachine(t *testing.T) {
	for _, which := range []string{"a", "b"} {
		for _, noRelay := range []bool{false, true} {
			s := directPair(t, simConfig{tweak: func(c *Config) { c.NoRelay = noRelay }})
			x := s.a
			if which == "b" {
				x = s.b
			}
			x.m = New(x.m.cfg)
			x.step(SetLocal{Candidates: x.cands})
			s.connect(x, 20*ms)
			s.net.Run(3 * time.Second)
			if !s.bothDirect() || s.a.m.State().Generation < 3 {
				t.Errorf("%s, no relay %v\n%s\n%s", which, noRelay, s.a.story(), s.b.story())
			}
		}
	}
}

func TestNeighbours(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		p := easy
		p.kind.Hairpin = hairpin
		s := newSim(t, simConfig{seed: 2, a: p, lan: true, rtt: 40 * ms})
		s.net.LANDelay = 3 * ms
		s.connect(s.b, 20*ms)
		s.waitDirect(2 * time.Second)
		s.net.Run(2 * time.Second)
		if got := s.a.m.State().Path; got != s.b.host.Addr() {
			t.Errorf("hairpin %v: path %v", hairpin, got)
		}
	}
}

func TestNoRelay(t *testing.T) {
	s := directPair(t, simConfig{tweak: func(c *Config) { c.NoRelay = true }})
	s.talk(s.a, 20*ms, time.Second)
	s.cut(true, true)
	s.talk(s.a, 20*ms, 30*time.Second)
	for _, x := range []*side{s.a, s.b} {
		if st := x.m.State(); st.Route != RouteDirect || st.Phase != Doubt {
			t.Errorf("%s: %+v", x.name, st)
		}
	}
	s.cut(false, false)
	s.talk(s.a, 20*ms, 3*time.Second)
	if !s.bothDirect() {
		t.Errorf("%s\n%s", s.a.story(), s.b.story())
	}
}

func TestNarrowPath(t *testing.T) {
	s := newSim(t, simConfig{seed: 1, a: easy, b: easy, rtt: 40 * ms})
	s.net.MTU = 1199
	s.connect(s.b, 20*ms)
	s.net.Run(4100 * ms)
	if st := s.a.m.State(); st.Phase != Idle || st.Reason != "no path carries full-size packets" {
		t.Errorf("%+v", st)
	}
	if st := s.b.m.State(); st.Phase != Idle || st.Reason != "peer chose no path" {
		t.Errorf("%+v", st)
	}
}

// TestTickIsFree holds the promise that a tick which sends nothing allocates nothing.
func TestTickIsFree(t *testing.T) {
	s := directPair(t, simConfig{})
	now := s.net.Now()
	m := s.a.m
	for now.Sub(s.net.Now()) < time.Second { // past the probes after success
		now = now.Add(50 * ms)
		m.Step(now, Traffic{Sent: now, Received: now, Wanted: true})
	}
	if n := testing.AllocsPerRun(1000, func() {
		now = now.Add(ms)
		m.Step(now, Traffic{Sent: now, Received: now, Wanted: true})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkTick(b *testing.B) {
	s := directPair(b, simConfig{})
	now := s.net.Now()
	for b.Loop() {
		now = now.Add(ms)
		s.a.m.Step(now, Traffic{Sent: now, Received: now, Wanted: true})
	}
}
