package punch

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/natsim"
)

// TestMethodFor holds the table of the documentation.
func TestMethodFor(t *testing.T) {
	order := []Mapping{MappingStable, MappingSequential, MappingRandom, MappingBlocked, MappingUnknown}
	for i, line := range []string{
		"plain predict birthday none plain",
		"predict predict none none plain",
		"birthday none none none plain",
		"none none none none none",
		"plain plain plain none plain",
	} {
		for j, want := range strings.Fields(line) {
			if got := MethodFor(NAT{Mapping: order[i]}, NAT{Mapping: order[j]}); got.String() != want {
				t.Errorf("%d with %d: %v, want %s", order[i], order[j], got, want)
			}
		}
	}
}

// TestNATOfOtherVersions: what makes no sense to this version counts as unknown.
func TestNATOfOtherVersions(t *testing.T) {
	public := netip.MustParseAddrPort("198.51.100.7:4000")
	for _, tt := range []struct{ in, want NAT }{
		{NAT{}, NAT{}},
		{NAT{Mapping: mappings, Public: public}, NAT{}},
		{NAT{Mapping: 255, Step: 3, Public: public}, NAT{}},
		{NAT{Mapping: MappingSequential, Public: public}, NAT{}},
		{NAT{Mapping: MappingRandom}, NAT{}},
		{NAT{Mapping: MappingBlocked, Step: 1, Public: public}, NAT{Mapping: MappingBlocked}},
		{NAT{Mapping: MappingRandom, Step: 1, Public: public}, NAT{Mapping: MappingRandom, Public: public}},
		{NAT{Mapping: MappingSequential, Step: -1, Public: public}, NAT{Mapping: MappingSequential, Step: -1, Public: public}},
	} {
		if got := tt.in.known(); got != tt.want {
			t.Errorf("%+v: %+v", tt.in, got)
		}
	}
}

// TestHopeless: kinds that rule a direct path out say so after a second, and not when probing shows otherwise.
func TestHopeless(t *testing.T) {
	at := func(n byte, m Mapping) NAT {
		return NAT{Mapping: m, Step: 1, Public: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, n}), 1)}
	}
	for _, tt := range []struct {
		a, b   place
		ka, kb Mapping
		reason string // "" = direct
	}{
		{symmetric, symmetric, MappingRandom, MappingRandom, "both NATs are symmetric with random ports"},
		{symmetric, symmetric, MappingRandom, MappingSequential, "the NAT here is symmetric with random ports, the peer's symmetric with ports 1 apart"},
		{blocked, easy, MappingBlocked, MappingStable, "UDP is blocked here"},
		{easy, blocked, MappingStable, MappingBlocked, "UDP is blocked at the peer"},
		{easy, easy, MappingRandom, MappingRandom, ""}, // STUN was wrong
	} {
		s := newSim(t, simConfig{seed: 4, a: tt.a, b: tt.b, rtt: 40 * ms})
		s.a.step(SetLocal{Candidates: s.a.cands, NAT: at(1, tt.ka)})
		s.b.step(SetLocal{Candidates: s.b.cands, NAT: at(2, tt.kb)})
		s.b.step(Start{Remote: s.a.cands, NAT: at(1, tt.ka)})
		s.net.After(20*ms, func() { s.a.step(Start{Remote: s.b.cands, NAT: at(2, tt.kb)}) })
		s.net.Run(hopelessAfter + 10*ms)
		if s.a.m.State().Hopeless {
			t.Errorf("%v with %v: hopeless too soon", tt.a, tt.b)
		}
		s.net.Run(10 * time.Second)
		for _, x := range []*side{s.a, s.b} {
			if st := x.m.State(); st.Hopeless != (tt.reason != "") || x == s.a && st.Reason != tt.reason {
				t.Errorf("%v with %v: %s: %v, %q", tt.a, tt.b, x.name, st.Hopeless, st.Reason)
			}
		}
	}
}

// strict is a symmetric NAT as Linux is one, with ports step apart, or random ones if step is 0.
func strict(step int) place {
	return place{kind: natsim.Kind{Mapping: natsim.AddressPortDependent, Filtering: natsim.AddressPortDependent, PerMapping: true, Step: step}}
}

// hardPlaces are one of each kind of NAT that anything here tells apart.
func hardPlaces() []place {
	out := []place{withoutNAT, easy, strict(0), strict(1), strict(2), strict(-3), strict(5)}
	for _, f := range allBehaviours {
		out = append(out, place{kind: natsim.Kind{Filtering: f}}, // random, but stable, ports
			place{kind: natsim.Kind{Filtering: f, Step: 1}})
	}
	for _, f := range allBehaviours[:2] { // symmetric but lenient
		out = append(out, place{kind: natsim.Kind{Mapping: natsim.AddressPortDependent, Filtering: f}},
			place{kind: natsim.Kind{Mapping: natsim.AddressPortDependent, Filtering: f, Step: 1}})
	}
	return out
}

// sort is what STUN shows of a place.
func (p place) sort() Mapping {
	switch {
	case p.open || p.kind.Stable():
		return MappingStable
	case p.kind.Step != 0:
		return MappingSequential
	}
	return MappingRandom
}

// TestEveryPairOfHardNATs: who can meet does, in time, and by the method that the table names or plainly; who cannot says
// so. Nothing is left open behind.
func TestEveryPairOfHardNATs(t *testing.T) {
	direct, pairs := 0, 0
	slowest := map[string]time.Duration{}
	for i, a := range hardPlaces() {
		for j, b := range hardPlaces() {
			for _, rtt := range []time.Duration{10 * ms, 100 * ms} {
				pairs++
				s := newSim(t, simConfig{seed: uint64(100*i + j), a: a, b: b, rtt: rtt})
				s.connect(s.b, rtt/2)
				method := MethodFor(NAT{Mapping: a.sort()}, NAT{Mapping: b.sort()})
				want := punchable(a, b) || method != MethodNone
				s.net.RunUntil(epoch.Add(15*time.Second), s.bothDirect)
				took := s.net.Now().Sub(epoch)
				got := s.bothDirect()
				s.net.Run(5 * time.Second)
				if got != want || got != s.bothDirect() {
					t.Errorf("%v with %v, rtt %v: direct %v, want %v\n%s\n%s", a, b, rtt, got, want, s.a.story(), s.b.story())
					continue
				}
				for _, x := range []*side{s.a, s.b} {
					st := x.m.State()
					if len(x.extra) > 1 || len(x.extra) == 1 && st.Socket == 0 {
						t.Errorf("%v with %v: %d sockets left open", a, b, len(x.extra))
					}
					if got && st.Method != method && st.Method != MethodPlain {
						t.Errorf("%v with %v: %v", a, b, st.Method)
					}
					if !got && !st.Hopeless && !punchableByLuck(a, b) {
						t.Errorf("%v with %v: %q, not hopeless", a, b, st.Reason)
					}
				}
				if got {
					direct++
					how := s.a.m.State().Method
					key := how.String() + " of " + method.String()
					slowest[key] = max(slowest[key], took)
					if limit := map[Method]time.Duration{MethodPlain: time.Second, MethodPredict: 3 * time.Second, MethodBirthday: 10 * time.Second}[how]; took > limit {
						t.Errorf("%v with %v, rtt %v: %v after %v", a, b, rtt, how, took)
					}
				}
			}
		}
	}
	t.Logf("%d of %d pairs direct; slowest %v", direct, pairs, slowest)
}

// punchableByLuck: a lenient filter lets packets of the other side in although no symmetric way comes of it, so
// probing does not show that nothing can.
func punchableByLuck(a, b place) bool {
	return a.kind.Filtering != natsim.AddressPortDependent || b.kind.Filtering != natsim.AddressPortDependent
}

// TestBirthday: random ports against a port-restricted NAT, over many pairs and a lossy network.
func TestBirthday(t *testing.T) {
	for _, tt := range []struct {
		loss     float64
		fans     string
		median   time.Duration
		inTen    int // of 80, at least: the aim is 90 %
		outlook  Outlook
		earliest time.Duration
	}{
		{0, "a", 4 * time.Second, 78, OutlookOpen, birthdayAfter},
		{0.05, "b", 4 * time.Second, 76, OutlookOpen, birthdayAfter},
		{0, "b", 3 * time.Second, 78, OutlookGood, 0},
	} {
		var took []time.Duration
		in, most, probes := 0, 0, 0
		for seed := range uint64(80) {
			c := simConfig{seed: seed, a: strict(0), b: easy, rtt: 60 * ms, loss: tt.loss}
			if tt.fans == "b" {
				c.a, c.b = c.b, c.a
			}
			s := newSim(t, c)
			for _, x := range []*side{s.a, s.b} {
				x.step(Start{Remote: x.peer.cands, NAT: x.peer.behind, Outlooks: Outlooks(0).With(x.behind, x.peer.behind, tt.outlook)})
			}
			if s.net.RunUntil(epoch.Add(10*time.Second), s.bothDirect) {
				in++
			}
			took = append(took, s.net.Now().Sub(epoch))
			for _, x := range []*side{s.a, s.b} {
				most, probes = max(most, x.most), max(probes, x.m.State().Counters.Guesses)
			}
			if d := took[len(took)-1]; d < tt.earliest {
				t.Errorf("seed %d: direct after %v, before plain probing was over", seed, d)
			}
		}
		slices.Sort(took)
		t.Logf("loss %v, %s fans, outlook %d: %d of 80 in 10 s, median %v, 90 %% %v; at most %d sockets, %d guesses",
			tt.loss, tt.fans, tt.outlook, in, took[40], took[72], most, probes)
		if in < tt.inTen || took[40] > tt.median || most > birthdaySockets || probes > birthdayProbes {
			t.Errorf("loss %v, %s fans", tt.loss, tt.fans)
		}
	}
}

// noise lets neighbours behind a NAT make n new mappings a second.
func (s *sim) noise(x *side, n int) {
	if n == 0 {
		return
	}
	h := s.net.AddHost(netip.MustParseAddrPort("10.9.9.9:999"), x.nat)
	port := uint16(1)
	var next func()
	next = func() {
		h.Send(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.99"), port), []byte("noise"))
		port++
		s.net.After(time.Duration(s.net.Rand().ExpFloat64()*float64(time.Second)/float64(n)), next)
	}
	next()
}

// TestPredict: ports in order, with neighbours that use them up too, on a lossy network.
func TestPredict(t *testing.T) {
	for _, tt := range []struct {
		a, b        place
		rtt         time.Duration
		loss        float64
		noiseA      int // mappings that neighbours make in a second
		noiseB      int
		inTen       int // of 100, at least: the aim is 95
		medianUnder time.Duration
	}{
		{strict(1), easy, 60 * ms, 0, 0, 0, 100, 500 * ms},
		{easy, strict(-2), 60 * ms, 0, 0, 0, 100, 500 * ms},
		{strict(5), easy, 200 * ms, 0.05, 20, 0, 98, time.Second},
		{easy, strict(1), 60 * ms, 0, 0, 200, 98, time.Second},
		{strict(1), strict(1), 60 * ms, 0, 0, 0, 100, 500 * ms},
		{strict(-3), strict(5), 200 * ms, 0, 0, 0, 98, 1500 * ms},
		{strict(2), strict(1), 60 * ms, 0.05, 5, 5, 95, 2 * time.Second},
		{strict(1), strict(1), 100 * ms, 0, 20, 20, 95, 3 * time.Second},
	} {
		var took []time.Duration
		in, guesses := 0, 0
		for seed := range uint64(100) {
			s := newSim(t, simConfig{seed: seed, a: tt.a, b: tt.b, rtt: tt.rtt, loss: tt.loss})
			s.noise(s.a, tt.noiseA)
			s.noise(s.b, tt.noiseB)
			s.connect(s.b, tt.rtt/2)
			if s.net.RunUntil(epoch.Add(10*time.Second), s.bothDirect) {
				in++
			}
			took = append(took, s.net.Now().Sub(epoch))
			guesses = max(guesses, s.a.m.State().Counters.Guesses, s.b.m.State().Counters.Guesses)
		}
		slices.Sort(took)
		t.Logf("%v with %v, rtt %v, loss %v, noise %d and %d: %d of 100 in 10 s, median %v, 95 %% %v, at most %d guesses",
			tt.a, tt.b, tt.rtt, tt.loss, tt.noiseA, tt.noiseB, in, took[50], took[95], guesses)
		if in < tt.inTen || took[50] > tt.medianUnder {
			t.Error("too few, or too slow")
		}
	}
}

// TestLookedInOrder: a NAT that seemed to number ports in order and does not is treated as random soon.
func TestLookedInOrder(t *testing.T) {
	s := newSim(t, simConfig{seed: 3, a: strict(0), b: easy, rtt: 60 * ms})
	s.a.behind = NAT{Mapping: MappingSequential, Step: 2, Public: s.a.behind.Public}
	s.a.step(SetLocal{Candidates: s.a.cands, NAT: s.a.behind})
	s.connect(s.b, 30*ms)
	s.waitDirect(10 * time.Second)
	if m := s.b.m.State().There.Mapping; m != MappingRandom || s.a.m.State().Method != MethodBirthday {
		t.Errorf("the peer thinks %d; %v", m, s.a.m.State().Method)
	}
}

// TestExtraSocketAsPath: a path over an extra socket is kept alive, doubted, lost and found again like any other.
func TestExtraSocketAsPath(t *testing.T) {
	for _, b := range []place{easy, strict(1)} {
		a := strict(0)
		if b == strict(1) {
			a = b // both in order
		}
		s := newSim(t, simConfig{seed: 3, a: a, b: b, rtt: 40 * ms})
		s.connect(s.b, 20*ms)
		s.waitDirect(10 * time.Second)
		first := s.a.m.State()
		if first.Socket == 0 || len(s.a.extra) != 1 || len(s.b.extra) != 0 {
			t.Fatalf("%v: %+v, %d sockets", b, first, len(s.a.extra))
		}
		s.a.wanted, s.b.wanted = false, false
		s.net.Run(10 * time.Minute) // idle: keep-alives alone
		if st := s.a.m.State(); !s.bothDirect() || st.Generation != first.Generation || st.Socket != first.Socket {
			t.Fatalf("%v: after ten idle minutes %+v\n%s", b, st, s.a.story())
		}
		s.a.wanted, s.b.wanted = true, true
		lossless := s.net.Loss
		s.net.Loss = func(_, _ netip.Addr) float64 { return 1 }
		s.talk(s.b, 20*ms, 5*time.Second)
		if s.bothDirect() {
			t.Fatal("direct through a cut")
		}
		s.net.Loss = lossless
		s.talk(s.b, 20*ms, 500*ms)
		s.waitDirect(10 * time.Second)
		s.net.Run(10 * time.Second)
		if len(s.a.extra) != 1 || !s.bothDirect() {
			t.Errorf("%v: %d sockets after a cut\n%s", b, len(s.a.extra), s.a.story())
		}
		s.a.nat.Forget() // the NAT reboots: the mapping is gone, so another fan is needed
		s.talk(s.b, 20*ms, 10*time.Second)
		s.waitDirect(20 * time.Second)
		s.net.Run(20 * time.Second)
		if len(s.a.extra) != 1 || !s.bothDirect() || s.a.m.State().Socket == first.Socket {
			t.Errorf("%v: %d sockets after a reboot\n%s", b, len(s.a.extra), s.a.story())
		}
	}
}

// TestNoTrafficNoGuesses: without traffic no port is guessed and no socket opened; and what is under way ends with it.
func TestNoTrafficNoGuesses(t *testing.T) {
	for _, a := range []place{strict(0), strict(1)} {
		s := newSim(t, simConfig{seed: 3, a: a, b: easy, rtt: 40 * ms})
		s.a.wanted, s.b.wanted = false, false
		s.connect(s.b, 20*ms)
		s.net.Run(time.Minute)
		for _, x := range []*side{s.a, s.b} {
			if c := x.m.State().Counters; c.Attempts != 0 || c.Guesses != 0 || x.most != 0 {
				t.Errorf("%v: %s: %+v, %d sockets", a, x.name, c, x.most)
			}
		}
	}
	s := newSim(t, simConfig{seed: 3, a: strict(0), b: easy, rtt: 40 * ms})
	s.connect(s.b, 20*ms)
	s.net.Run(birthdayAfter + 200*ms)
	if len(s.a.extra) != birthdaySockets || s.b.m.State().Counters.Guesses == 0 {
		t.Fatalf("%d sockets, %+v", len(s.a.extra), s.b.m.State().Counters)
	}
	s.a.wanted, s.b.wanted = false, false
	s.a.tick()
	s.b.tick()
	before := s.b.m.State().Counters.Guesses
	s.net.Run(time.Minute)
	if after := s.b.m.State().Counters.Guesses; len(s.a.extra) != 0 || after > before+birthdayBurst {
		t.Errorf("%d sockets, %d guesses after traffic ended", len(s.a.extra), after-before)
	}
}

// TestGuessesGoWhereTheOfferSaid: a CALL cannot aim a sweep at an address that is no candidate of the peer, nor repeat
// one, nor make the side sweep that has the fan.
func TestGuessesGoWhereTheOfferSaid(t *testing.T) {
	victim := netip.MustParseAddrPort("203.0.113.66:53")
	named := netip.MustParseAddrPort("198.51.100.1:4001")
	seal := newSealer(testKy)
	sequence := uint64(1 << 60)
	for _, tt := range []struct {
		name    string
		here    NAT
		there   NAT
		call    attempt
		guesses int
	}{
		{"honest", NAT{Mapping: MappingStable, Public: stun}, NAT{Mapping: MappingRandom, Public: named}, attempt{kind: attemptFan, number: 1}, birthdayProbes},
		{"a victim's address", NAT{Mapping: MappingStable, Public: stun}, NAT{Mapping: MappingRandom, Public: victim}, attempt{kind: attemptFan, number: 1}, 0},
		{"no attempt", NAT{Mapping: MappingStable, Public: stun}, NAT{Mapping: MappingRandom, Public: named}, attempt{}, 0},
		{"unknown kind", NAT{Mapping: MappingStable, Public: stun}, NAT{Mapping: MappingRandom, Public: named}, attempt{kind: 9, number: 1}, 0},
		{"both stable", NAT{Mapping: MappingStable, Public: stun}, NAT{Mapping: MappingStable, Public: named}, attempt{kind: attemptFan, number: 1}, 0},
		{"both random", NAT{Mapping: MappingRandom, Public: stun}, NAT{Mapping: MappingRandom, Public: named}, attempt{kind: attemptFan, number: 1}, 0},
		{"ours is the fan", NAT{Mapping: MappingRandom, Public: stun}, NAT{Mapping: MappingStable, Public: named}, attempt{kind: attemptFan, number: 1}, 0},
		{"few ports", NAT{Mapping: MappingStable, Public: stun}, NAT{Mapping: MappingSequential, Step: 1, Public: named}, attempt{kind: attemptFan, number: 1, first: 5000, last: 5005}, 4 * predictSweeps},
		{"too many ports", NAT{Mapping: MappingStable, Public: stun}, NAT{Mapping: MappingSequential, Step: 1, Public: named}, attempt{kind: attemptFan, number: 1, first: 65000, last: 1}, predictProbes * predictSweeps},
		{"no port", NAT{Mapping: MappingStable, Public: stun}, NAT{Mapping: MappingSequential, Step: 1, Public: named}, attempt{kind: attemptFan, number: 1, first: 5000, last: 5000}, 0},
	} {
		m := New(Config{Key: testKy})
		now := epoch
		m.Step(now, SetLocal{Candidates: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:4000")}, NAT: tt.here})
		m.Step(now, Start{Remote: []netip.AddrPort{named}, NAT: tt.there})
		m.Step(now, Relay{Usable: true})
		m.Step(now, Traffic{Wanted: true})
		for range 5 { // repeated, as a sender does
			sequence++
			c := message{kind: TypeCall, flags: flagControlling | flagAnswer, sequence: sequence, nat: tt.there, attempt: tt.call,
				candidates: []netip.AddrPort{named}, size: headerSize + addressSize + natSize + attemptSize}
			m.Step(now, Packet{Data: seal.seal(c)})
		}
		for range 400 {
			now = now.Add(50 * ms)
			for _, d := range m.Step(now, Traffic{Wanted: true}).Send {
				if d.To.Addr() == victim.Addr() || !d.Guess && d.To.IsValid() && d.To != named { // a guess may happen to be named
					t.Errorf("%s: sent to %v, guess %v", tt.name, d.To, d.Guess)
				}
			}
		}
		if got := m.State().Counters.Guesses; got != tt.guesses {
			t.Errorf("%s: %d guesses, want %d", tt.name, got, tt.guesses)
		}
	}
}

// Any number, from whomever, is taken for outlooks; what makes no sense says nothing.
func TestOutlooks(t *testing.T) {
	nat := func(m Mapping) NAT { return NAT{Mapping: m, Step: 1, Public: stun} }
	pairs := [][2]Mapping{{MappingStable, MappingSequential}, {MappingStable, MappingRandom}, {MappingSequential, MappingSequential}}
	for i, p := range pairs {
		o := Outlooks(0).With(nat(p[0]), nat(p[1]), OutlookPoor)
		if want := Outlooks(OutlookPoor) << (2 * i); o != want {
			t.Errorf("%v: %b, want %b", p, o, want)
		}
		for j, q := range pairs {
			want := OutlookOpen
			if i == j {
				want = OutlookPoor
			}
			if got := o.Of(nat(q[1]), nat(q[0])); got != want {
				t.Errorf("%v: outlook of %v is %d", p, q, got)
			}
		}
	}
	for o := range Outlooks(255) {
		for a := range mappings {
			for b := range mappings {
				if v := o.Of(nat(a), nat(b)); v > OutlookPoor || v != OutlookOpen && MethodFor(nat(a), nat(b)) != MethodPredict && MethodFor(nat(a), nat(b)) != MethodBirthday {
					t.Errorf("%b: %d for %v and %v", o, v, a, b)
				}
			}
		}
	}
}
