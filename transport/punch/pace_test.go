package punch

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/natsim"
)

func TestPace(t *testing.T) {
	const s = time.Second
	var p Pace
	now := epoch
	survive := func(n int, pause time.Duration) {
		for range n {
			now = now.Add(pause)
			p.Survived(now, pause)
		}
	}
	expect := func(what string, want time.Duration) {
		t.Helper()
		if got := p.Pause(); got != want {
			t.Fatalf("%s: %v, want %v", what, got, want)
		}
	}
	expect("at first", 15*s)
	survive(3, 15*s)
	survive(100, 10*s)
	expect("after three, and short ones, which say nothing", 15*s)
	survive(1, 15*s)
	expect("after four", 18750*ms)
	survive(20, 25*s)
	expect("after many: the most", KeepAliveMost)
	p.Died(now, 18*s)
	expect("a death after less than what was survived", KeepAliveMost)
	p.Died(now, 18*s)
	expect("the second in a row", 12*s)
	survive(20, 12*s)
	expect("while the ban lasts", 12*s)
	survive(50, 12*s)
	if got := p.Pause(); got <= 12*s {
		t.Fatalf("after the ban: %v", got)
	}
	p.Died(now, 30*s)
	survive(100, 15*s) // 25 min: the second ban is longer than that...
	p.Died(now, 8*s)
	p.Died(now, 8*s)
	p.Died(now, 6*s)
	expect("never less", keepAliveLeast)
	p.Survived(now, 9*s) // what failed was not the NAT here
	survive(4, 9*s)
	expect("a longer one was survived: no ban", keepAliveLeast*5/4)
}

// exchanges counts what the two machines send in a time in which nobody says anything.
func (s *sim) exchanges(d time.Duration) int {
	n := s.a.m.State().Counters.Probes + s.b.m.State().Counters.Probes
	s.net.Run(d)
	return s.a.m.State().Counters.Probes + s.b.m.State().Counters.Probes - n
}

// Keep-alives come no oftener than the NATs need: seldomer as time shows that they may, and more seldom still inside one network.
func TestKeepAlivesBecomeFewer(t *testing.T) {
	s := directPair(t, simConfig{})
	first := s.exchanges(4 * time.Minute)
	s.net.Run(30 * time.Minute)
	later := s.exchanges(4 * time.Minute)
	t.Logf("%d in 4 minutes, %d half an hour later", first, later)
	if first > 20 || later > 11 || !s.bothDirect() || s.a.m.State().Generation != 2 {
		t.Errorf("%d in 4 minutes, %d half an hour later\n%s", first, later, s.a.story())
	}
	s = newSim(t, simConfig{seed: 2, a: easy, lan: true, rtt: 40 * ms})
	s.net.LANDelay = ms
	s.connect(s.b, 20*ms)
	s.waitDirect(2 * time.Second)
	s.net.Run(20 * time.Second)
	if n := s.exchanges(10 * time.Minute); n > 11 || s.a.m.State().Path != s.b.host.Addr() {
		t.Errorf("%d keep-alives in 10 minutes in one network, at %v", n, s.a.m.State().Path)
	}
}

// What was learnt with one peer is used for the next one, whose path does not die for it.
func TestPaceIsShared(t *testing.T) {
	p := easy
	p.kind.Timeout = 12 * time.Second
	s := directPair(t, simConfig{a: p, b: easy})
	s.net.Run(time.Minute)
	var shared Pace
	died := max(s.a.died, s.b.died)
	if died == 0 {
		t.Fatalf("no pause was too long\n%s", s.a.story())
	}
	shared.Died(s.net.Now(), died)
	next := directPair(t, simConfig{a: p, b: easy, seed: 12, pause: shared.Pause()})
	next.net.Run(5 * time.Minute)
	if died := max(next.a.died, next.b.died); died != 0 || next.a.m.State().Generation != 2 {
		t.Errorf("a pause of %v was too long for the next peer\n%s", died, next.a.story())
	}
}

// A NAT that has forgotten an idle path is punched anew while the path is only doubted: no word goes by the relay alone, whichever
// NAT it is and whether it gives the same port or another, of which the owner is told by STUN.
func TestForgottenPathIsPunchedBeforeItIsGivenUp(t *testing.T) {
	for _, preserve := range []bool{true, false} {
		for _, which := range []string{"a", "b"} {
			p := easy
			p.kind.Preserve = preserve
			s := directPair(t, simConfig{a: p, b: p})
			x := s.a
			if which == "b" {
				x = s.b
			}
			s.talk(s.a, 10*ms, time.Second)
			from := len(s.a.history)
			x.nat.Forget()
			s.net.After(200*ms, x.gather)
			s.net.Run(20 * time.Second)
			s.talk(s.a, 10*ms, time.Second)
			if n := moves(s.a, from); n > 0 || !s.bothDirect() {
				t.Errorf("%s's NAT, ports kept %v: %d moves\n%s\n%s", which, preserve, n, s.a.story(), s.b.story())
			}
		}
	}
}

// Where the filter lets it in, a keep-alive by a new mapping makes a new path of it, and the old one is not even doubted.
func TestMovedPeerIsFollowed(t *testing.T) {
	p := place{kind: natsim.Kind{Filtering: natsim.AddressDependent}}
	s := directPair(t, simConfig{a: p, b: p})
	s.net.Run(2 * time.Second)
	from := len(s.a.history)
	s.b.nat.Forget()
	s.b.say(dataAsk)
	s.b.tick()
	s.net.Run(time.Second)
	for _, h := range s.a.history[from:] {
		if h.Phase != Direct {
			t.Errorf("doubted\n%s", s.a.story())
		}
	}
	if st := s.a.m.State(); st.Generation != 3 || !s.bothDirect() {
		t.Errorf("not followed\n%s\n%s", s.a.story(), s.b.story())
	}
}

// Another address of the peer's that answers on the side is not taken for a move.
func TestStrayAnswerIsNoMove(t *testing.T) {
	s := directPair(t, simConfig{})
	s.talk(s.a, 10*ms, time.Second)
	m := s.a.m
	for _, c := range []*candidate{
		{addr: end{AddrPort: netip.AddrPortFrom(m.path.addr.Addr(), 9)}, heard: m.path.heard.Add(10 * ms)},
		{addr: end{AddrPort: netip.MustParseAddrPort("203.0.113.5:9")}, heard: m.path.heard.Add(time.Second)},
		{addr: end{AddrPort: netip.AddrPortFrom(m.path.addr.Addr(), 9), Socket: 5}, heard: m.path.heard.Add(time.Second)},
	} {
		if m.moved(c) {
			t.Errorf("%v", c.addr)
		}
	}
}
