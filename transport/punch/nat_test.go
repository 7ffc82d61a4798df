package punch

import (
	"fmt"
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

func TestEveryPairOfNATs(t *testing.T) {
	starts := map[string]func(*sim){
		"a answers": func(s *sim) { s.connect(s.a, 50*ms) },
		"b answers": func(s *sim) { s.connect(s.b, 50*ms) },
		"at once":   func(s *sim) { s.connect(s.b, 0) },
		"1 s late":  func(s *sim) { s.connect(s.b, time.Second) },
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			for _, a := range allPlaces() {
				for _, b := range allPlaces() {
					s := newSim(t, simConfig{seed: 7, a: a, b: b, rtt: 100 * ms})
					start(s)
					s.net.Run(10 * time.Second)
					if got, want := s.bothDirect(), punchable(a, b); got != want {
						t.Errorf("%v with %v: direct %v, want %v\n%s\n%s", a, b, got, want, s.a.story(), s.b.story())
					}
				}
			}
		})
	}
}

func TestTwoRoundTrips(t *testing.T) {
	for _, rtt := range []time.Duration{5 * ms, 20 * ms, 60 * ms, 100 * ms, 200 * ms, 400 * ms} {
		for _, p := range []place{easy, fullCone, withoutNAT} {
			for _, controlling := range []bool{true, false} {
				s := newSim(t, simConfig{seed: 3, a: p, b: p, rtt: rtt})
				who := s.b
				if controlling {
					who = s.a
				}
				s.connect(who, rtt/2)
				s.waitDirect(10 * time.Second)
				took := s.net.Now().Sub(epoch)
				fmt.Println(rtt, p, "controlling answers", controlling, took, float64(took)/float64(rtt))
			}
		}
	}
}
