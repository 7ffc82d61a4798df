package punch

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// moves counts changes of the route to or from the relay: each costs QUIC its congestion window.
func moves(x *side, from int) (n int) {
	relay := false
	for _, h := range x.history[from:] {
		if now := h.Route == RouteRelay; now != relay {
			relay = now
			n++
		}
	}
	return n
}

// ANCHORS, "flapping on a lossy direct path": of a path that loses 30 % each way, the relay hardly hears.
func TestLossyPathDoesNotFlap(t *testing.T) {
	for _, gap := range []time.Duration{5 * ms, 50 * ms, 300 * ms} {
		s := directPair(t, simConfig{seed: 7})
		s.net.Loss = func(_, _ netip.Addr) float64 { return 0.3 }
		from := len(s.a.history)
		s.talk(s.a, gap, 10*time.Minute)
		n := moves(s.a, from)
		t.Logf("data every %v: %d moves in 10 min, generation %d", gap, n, s.a.m.State().Generation)
		if n > 8 {
			t.Errorf("data every %v: %d moves\n%s", gap, n, s.a.story())
		}
	}
}

// A path that comes and goes is left alone for longer and longer, and used again when it has become steady.
func TestPathThatComesAndGoesDoesNotFlap(t *testing.T) {
	for _, period := range []time.Duration{1500 * ms, 3 * time.Second, 10 * time.Second} {
		s := directPair(t, simConfig{})
		from := len(s.a.history)
		for range int(5 * time.Minute / (2 * period)) {
			s.cut(true, true)
			s.talk(s.a, 20*ms, period)
			s.cut(false, false)
			s.talk(s.a, 20*ms, period)
		}
		n := moves(s.a, from)
		t.Logf("gone every %v: %d moves in 5 min, generation %d", period, n, s.a.m.State().Generation)
		if n > 20 {
			t.Errorf("gone every %v: %d moves\n%s", period, n, s.a.story())
		}
		s.talk(s.a, 20*ms, 70*time.Second)
		if !s.bothDirect() {
			t.Errorf("gone every %v: not direct %v after it has become steady\n%s\n%s", period, 70*time.Second, s.a.story(), s.b.story())
		}
		s.talk(s.a, 20*ms, 2*time.Minute) // then nothing is held against it
		s.cut(true, true)
		s.talk(s.a, 20*ms, 2*time.Second)
		s.cut(false, false)
		s.talk(s.a, 20*ms, 7*time.Second)
		if !s.bothDirect() {
			t.Errorf("gone every %v: a steady path is not taken again at once\n%s", period, s.a.story())
		}
	}
}

// However often: the hold stays at a minute.
func TestHoldStays(t *testing.T) {
	m := New(Config{})
	m.now, m.path.since = epoch, epoch
	for n := range 100 {
		m.strike()
		if hold := m.hold.Sub(m.now); n > 5 && hold != mostHold {
			t.Fatalf("held for %v after %d lost paths", hold, n+1)
		}
	}
}

// A path whose MTU shrinks below the packets that are sent on it carries small probes still. It is left, and taken again as a new
// one, on which QUIC begins with small packets; whoever sends.
func TestPathThatNarrows(t *testing.T) {
	for _, talker := range []string{"a", "b"} {
		s := directPair(t, simConfig{})
		x := s.a
		if talker == "b" {
			x = s.b
		}
		x.size, x.sizeOf = MaxSize, 2
		s.talk(x, 10*ms, time.Second)
		cut := s.net.Now()
		s.net.MTU = 1252
		s.talk(x, 10*ms, time.Second)
		relay, ok := x.since(cut, func(h State) bool { return h.Route == RouteRelay })
		if limit := 800 * ms; !ok || relay > limit {
			t.Errorf("%s sends: left after %v (%v)\n%s", talker, relay, ok, x.story())
		}
		s.talk(x, 10*ms, time.Second)
		if !s.bothDirect() || s.a.m.State().Generation != 3 {
			t.Errorf("%s sends: %s\n%s", talker, s.a.story(), s.b.story())
		}
		x.size, x.sizeOf = 1252, 3
		n := len(s.a.history) + len(s.b.history)
		s.talk(x, 10*ms, time.Minute)
		if got := len(s.a.history) + len(s.b.history); got != n {
			t.Errorf("%s sends: %d changes more\n%s", talker, got-n, x.story())
		}
	}
}

// Some NATs end a mapping after a time, whatever passes, and give another port. Each time data goes both ways until the path has
// been found anew, none goes by the relay alone, and little is lost.
func TestMappingsThatEndDespiteTraffic(t *testing.T) {
	strictly, leniently := easy, fullCone
	strictly.kind.Preserve = false
	leniently.kind.PerMapping = true // which means nothing to a lenient filter
	for _, tt := range []struct {
		which string
		p     place
		lost  int
	}{{"a", strictly, 5}, {"b", strictly, 25}, {"a", leniently, 5}, {"b", leniently, 25}} {
		which, p := tt.which, tt.p
		for _, every := range []time.Duration{10 * time.Second, 30 * time.Second, 65 * time.Second} {
			s := directPair(t, simConfig{a: p, b: p})
			x := s.a
			if which == "b" {
				x = s.b
			}
			from, in, ends := len(s.a.history), s.b.dataIn, int(5*time.Minute/every)
			for range ends {
				s.talk(s.a, 10*ms, every)
				x.nat.Forget()
				s.net.After(time.Second, x.gather) // a second later the owner has asked STUN
			}
			s.talk(s.a, 10*ms, 2*time.Second)
			s.net.Run(100 * ms)
			sent := ends*int(every/(10*ms)) + 200
			lost := sent - (s.b.dataIn - in)
			t.Logf("%s's %v, every %v: %d ends, %d of %d packets lost, 10 ms apart, %d moves", which, p, every, ends, lost, sent, moves(s.a, from))
			if n := moves(s.a, from); n > 0 || lost > tt.lost*ends || !s.bothDirect() {
				t.Errorf("%s's %v, every %v: %d moves, %d packets lost\n%s\n%s", which, p, every, n, lost, s.a.story(), s.b.story())
			}
		}
	}
}

// A NAT that forgets within 10 s is learnt of by a path or two; then an idle path lives on.
func TestMappingLifetimeIsLearnt(t *testing.T) {
	p := easy
	p.kind.Timeout = 10 * time.Second
	s := directPair(t, simConfig{a: p, b: p})
	s.net.Run(3 * time.Minute)
	if s.bothDirect() == false {
		t.Fatalf("no direct path\n%s\n%s", s.a.story(), s.b.story())
	}
	g, probes := s.a.m.State().Generation, s.a.m.State().Counters.Probes
	t.Logf("generation %d, keep-alive %v and %v", g, s.a.m.pause(), s.b.m.pause())
	s.net.Run(10 * time.Minute)
	if st := s.a.m.State(); !s.bothDirect() || st.Generation != g {
		t.Errorf("the idle path dies still\n%s\n%s", s.a.story(), s.b.story())
	} else if n := st.Counters.Probes - probes; n > 130 {
		t.Errorf("%d probes in 10 minutes", n)
	}
}

// Who only listens notices that its NAT has forgotten the path, although it waits for no answer: soon after the peer seems to fall silent,
// and by one probe. The relay, whose mapping the NAT has forgotten too, cannot tell it.
func TestListenerFindsItsPathGone(t *testing.T) {
	s := directPair(t, simConfig{})
	tell := func(d time.Duration, listenerTicks bool) {
		end := s.net.Now().Add(d)
		var say, tick func()
		say = func() {
			if s.net.Now().Before(end) {
				s.a.say(dataAnswer)
				s.net.After(25*ms, say)
			}
		}
		tick = func() {
			if s.net.Now().Before(end) {
				s.a.tick()
				if listenerTicks {
					s.b.tick()
				}
				s.net.After(50*ms, tick)
			}
		}
		say()
		tick()
		s.net.Run(d)
	}
	tell(2*time.Second, true)
	gone := s.net.Now()
	s.relayDown = true
	s.b.nat.Forget()
	tell(time.Second, false)
	if !s.b.received.After(gone) || s.net.Now().Sub(s.b.received) > 100*ms {
		t.Errorf("the last word came %v after the NAT forgot\n%s\n%s", s.b.received.Sub(gone), s.a.story(), s.b.story())
	}

	// A word now and then is no talk, and costs no probes.
	m := s.b.m
	m.path.talk, m.path.talked = time.Time{}, time.Time{}
	for range 5 {
		s.net.Run(400 * ms)
		tell(30*ms, true)
		if at := m.silentAt(); !at.IsZero() {
			t.Errorf("a probe %v after a word", at.Sub(s.net.Now()))
		}
	}
}

// A peer that answers an offer is called at once if more is known here than the offer said, whenever that was learnt.
func TestCallIfMoreIsKnown(t *testing.T) {
	host, mapped := netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("198.51.100.1:4000")
	for _, c := range []struct {
		told []netip.AddrPort
		call bool
	}{
		{nil, false},
		{[]netip.AddrPort{}, true},
		{[]netip.AddrPort{host}, true},
		{[]netip.AddrPort{host, mapped}, false},
	} {
		m := New(Config{Key: [32]byte{1}})
		now := time.Now()
		m.Step(now, SetLocal{Candidates: []netip.AddrPort{host, mapped}})
		out := m.Step(now, Start{Remote: []netip.AddrPort{host}, Told: c.told})
		called := slices.ContainsFunc(out.Send, func(d Datagram) bool { return !d.To.IsValid() && d.Data[0] == TypeCall })
		if called != c.call {
			t.Errorf("told %v: called %v, want %v", c.told, called, c.call)
		}
	}
}
