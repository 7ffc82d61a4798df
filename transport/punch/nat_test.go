package punch

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/natsim"
)

const ms = time.Millisecond

var (
	easy          = place{kind: natsim.Kind{Mapping: natsim.EndpointIndependent, Filtering: natsim.AddressPortDependent, Preserve: true}}
	fullCone      = place{kind: natsim.Kind{}}
	symmetric     = place{kind: natsim.Kind{Mapping: natsim.AddressPortDependent, Filtering: natsim.AddressPortDependent}}
	blocked       = place{kind: natsim.Kind{Blocked: true}}
	withoutNAT    = place{open: true}
	allBehaviours = []natsim.Behaviour{natsim.EndpointIndependent, natsim.AddressDependent, natsim.AddressPortDependent}
)

func allPlaces() []place {
	out := []place{withoutNAT, blocked}
	for _, m := range allBehaviours {
		for _, f := range allBehaviours {
			for _, p := range []bool{false, true} {
				out = append(out, place{kind: natsim.Kind{Mapping: m, Filtering: f, Preserve: p}})
			}
		}
	}
	return out
}

// punchable says by RFC 4787's terms alone whether two places can meet directly if each knows only
// the address that a third party saw of the other, and no port is guessed.
//
// A mapped address is stable if it is the same for every far end. Two stable ones meet whatever
// the filters, because each sends to what the other sends from. If one is not stable, its packets
// come from a port that the other has never sent to, so the other must not filter by port; it
// can then answer to where they came from. If neither is stable, both must be lenient in this
// way, and at least one mapping must not depend on the port, or each answer comes from one more new
// port.
func punchable(a, b place) bool {
	if !a.open && a.kind.Blocked || !b.open && b.kind.Blocked {
		return false
	}
	stable := func(p place) bool { return p.open || p.kind.Stable() }
	lenient := func(p place) bool { return p.open || p.kind.Filtering != natsim.AddressPortDependent }
	switch {
	case stable(a) && stable(b):
		return true
	case stable(a):
		return lenient(a)
	case stable(b):
		return lenient(b)
	}
	return lenient(a) && lenient(b) &&
		(a.kind.Mapping == natsim.AddressDependent || b.kind.Mapping == natsim.AddressDependent)
}

// TestEveryPairOfNATs: what needs no guessing is punched without knowing any kind.
func TestEveryPairOfNATs(t *testing.T) {
	starts := map[string]func(*sim){
		"a answers": func(s *sim) { s.connect(s.a, 50*ms) },
		"b answers": func(s *sim) { s.connect(s.b, 50*ms) },
		"at once":   func(s *sim) { s.connect(s.b, 0) },
		"1 s late":  func(s *sim) { s.connect(s.b, time.Second) },
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			direct := 0
			for _, a := range allPlaces() {
				for _, b := range allPlaces() {
					s := newSim(t, simConfig{seed: 7, a: a, b: b, rtt: 100 * ms, mute: true})
					start(s)
					s.net.Run(10 * time.Second)
					if got, want := s.bothDirect(), punchable(a, b); got != want {
						t.Errorf("%v with %v: direct %v, want %v\n%s\n%s", a, b, got, want, s.a.story(), s.b.story())
					} else if got {
						direct++
					}
				}
			}
			t.Logf("%d of %d pairs direct", direct, len(allPlaces())*len(allPlaces()))
		})
	}
}

// TestTwoRoundTrips: both sides know of the confirmed path two round trips after the answering side
// began, the answer taking half of one; where that is shorter than the second probe is away, 2.5.
func TestTwoRoundTrips(t *testing.T) {
	for _, rtt := range []time.Duration{ms, 5 * ms, 20 * ms, 60 * ms, 100 * ms, 200 * ms, 400 * ms} {
		limit := 2 * rtt
		if rtt < 60*ms {
			limit = rtt * 5 / 2
		}
		for _, a := range []place{easy, fullCone, withoutNAT} {
			for _, b := range []place{easy, fullCone, withoutNAT} {
				for _, answering := range []string{"a", "b"} {
					s := newSim(t, simConfig{seed: 3, a: a, b: b, rtt: rtt})
					x := s.a
					if answering == "b" {
						x = s.b
					}
					s.connect(x, rtt/2)
					s.waitDirect(10 * time.Second)
					if took := s.net.Now().Sub(epoch); took > limit {
						t.Errorf("%v with %v, rtt %v, %s answers: %v", a, b, rtt, answering, took)
					}
				}
			}
		}
	}
}

// TestLoss connects many pairs over lossy paths and relays.
func TestLoss(t *testing.T) {
	for _, tt := range []struct {
		loss          float64
		median, worst time.Duration
	}{{0.05, 250 * ms, time.Second}, {0.3, 700 * ms, 12 * time.Second}} {
		var took []time.Duration
		for seed := range uint64(500) {
			s := newSim(t, simConfig{seed: seed, a: easy, b: easy, rtt: 100 * ms, loss: tt.loss})
			s.connect(s.b, 50*ms)
			s.waitDirect(30 * time.Second)
			took = append(took, s.net.Now().Sub(epoch))
		}
		slices.Sort(took)
		t.Logf("loss %v: median %v, 95 %% %v, 99 %% %v, worst %v", tt.loss,
			took[250], took[475], took[495], took[499])
		if took[250] > tt.median || took[499] > tt.worst {
			t.Errorf("loss %v: median %v, worst %v", tt.loss, took[250], took[499])
		}
	}
}

// TestSkew: one side starts late, up to after the other's first round.
func TestSkew(t *testing.T) {
	for _, skew := range []time.Duration{0, 10 * ms, 500 * ms, 3 * time.Second, 5 * time.Second, time.Minute} {
		for _, first := range []string{"a", "b"} {
			s := newSim(t, simConfig{seed: 9, a: easy, b: easy, rtt: 40 * ms})
			x := s.a
			if first == "b" {
				x = s.b
			}
			x.step(Start{Remote: x.peer.cands})
			s.net.Run(skew)
			x.peer.step(Start{Remote: x.cands, Told: []netip.AddrPort{}})
			began := s.net.Now()
			s.waitDirect(300 * ms)
			t.Logf("%s first, the other %v late: direct after %v", first, skew, s.net.Now().Sub(began))
		}
	}
}

// TestStorm bounds the packets of two sides whose NATs cannot be punched but bring ever new ports
// to light.
func TestStorm(t *testing.T) {
	lenient := place{kind: natsim.Kind{Mapping: natsim.AddressPortDependent, Filtering: natsim.EndpointIndependent}}
	for _, p := range []place{lenient, symmetric} {
		s := newSim(t, simConfig{seed: 9, a: p, b: p, rtt: 10 * ms, mute: true})
		packets := 0
		s.net.Tap = func(*natsim.Host, netip.AddrPort, []byte) { packets++ }
		s.connect(s.b, 5*ms)
		s.net.Run(4900 * ms)
		if rounds := s.a.m.State().Counters.Rounds; packets > rounds*2*2*20*maxProbes {
			t.Errorf("%v: %d packets in %d rounds", p, packets, rounds)
		}
		s.a.wanted, s.b.wanted = true, true
		s.net.Run(time.Hour)
		t.Logf("%v: %d packets and %d rounds in an hour; %s", p, packets, s.a.m.State().Counters.Rounds, s.a.m.State().Reason)
		if s.a.m.State().Counters.Rounds > 150 {
			t.Errorf("%v: %d rounds", p, s.a.m.State().Counters.Rounds)
		}
	}
}

func TestReasons(t *testing.T) {
	apd := place{kind: natsim.Kind{Filtering: natsim.AddressPortDependent}}
	for _, tt := range []struct {
		a, b     place
		atA, atB string
	}{
		{blocked, easy, "no candidate answered", "no candidate answered"},
		{symmetric, symmetric, "no candidate answered", "no candidate answered"},
		{symmetric, apd, "peer is heard but does not hear us", "no candidate answered"},
	} {
		s := newSim(t, simConfig{seed: 9, a: tt.a, b: tt.b, rtt: 40 * ms, mute: true})
		if r := s.a.m.State().Reason; r != "not tried" {
			t.Errorf("before: %q", r)
		}
		s.connect(s.b, 20*ms)
		s.net.Run(4500 * ms)
		if a, b := s.a.m.State().Reason, s.b.m.State().Reason; a != tt.atA || b != tt.atB {
			t.Errorf("%v with %v: %q and %q", tt.a, tt.b, a, b)
		}
	}
}
