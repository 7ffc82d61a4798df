package punch

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/natsim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestChaos lets anything happen to two instances for a minute; side.check holds the invariants all
// the while. Then everything heals, and both must agree on a direct path, and stay there.
func TestChaos(t *testing.T) {
	runs := uint64(120)
	if testing.Short() {
		runs = 32
	}
	places := []place{easy, fullCone,
		{kind: natsim.Kind{Filtering: natsim.AddressDependent}},
		{kind: natsim.Kind{Mapping: natsim.AddressDependent, Filtering: natsim.AddressDependent}},
	}
	pairs := [][2]place{{strict(0), easy}, {easy, strict(0)}, {strict(1), easy}, {strict(1), strict(-2)}}
	for _, a := range places {
		for _, b := range places {
			if punchable(a, b) {
				pairs = append(pairs, [2]place{a, b})
			}
		}
	}
	var worst time.Duration
	for seed := range runs {
		a, b := pairs[seed%uint64(len(pairs))][0], pairs[seed%uint64(len(pairs))][1]
		patience := 2 * time.Minute
		hard := !punchable(a, b)
		if hard {
			patience = 2 * hardMax // it may just have given up for a while
		}
		s := newSim(t, simConfig{
			seed: seed, a: a, b: b, rtt: time.Duration(1+seed%200) * ms,
			tweak: func(c *Config) { c.NoRelay = seed%5 == 0 && !hard },
		})
		s.connect(s.b, s.rtt/2)
		rng := rand.New(rand.NewPCG(seed, 99))
		end := s.net.Now().Add(time.Minute)
		for s.net.Now().Before(end) {
			s.disturb(rng)
			s.talk([]*side{s.a, s.b}[rng.IntN(2)], time.Duration(1+rng.IntN(200))*ms, time.Duration(rng.IntN(3000))*ms)
		}
		s.cut(false, false)
		s.relayDown, s.relayLoss, s.a.frozen, s.b.frozen = false, 0, false, false
		healed := s.net.Now()
		s.a.gather()
		s.b.gather()
		for !s.bothDirect() && s.net.Now().Sub(healed) < patience {
			s.talk(s.a, 50*ms, 250*ms)
		}
		if !hard {
			worst = max(worst, s.net.Now().Sub(healed))
		}
		s.talk(s.a, 50*ms, 3*time.Second)
		n := len(s.a.history) + len(s.b.history)
		s.talk(s.a, 50*ms, 20*time.Second)
		if !s.bothDirect() || len(s.a.history)+len(s.b.history) != n {
			t.Fatalf("seed %d: direct %v, %d changes after all healed at %v\n%s\n%s", seed, s.bothDirect(),
				len(s.a.history)+len(s.b.history)-n, healed.Sub(epoch), s.a.story(), s.b.story())
		}
	}
	t.Logf("worst time from healing to direct: %v", worst)
}

func (s *sim) disturb(rng *rand.Rand) {
	x := []*side{s.a, s.b}[rng.IntN(2)]
	switch rng.IntN(9) {
	case 0:
		s.cut(true, true)
	case 1:
		s.cut(rng.IntN(2) == 0, rng.IntN(2) == 0)
	case 2:
		loss := rng.Float64() / 2
		s.net.Loss = func(_, _ netip.Addr) float64 { return loss }
	case 3:
		s.relayDown = rng.IntN(2) == 0
	case 4:
		s.relayLoss = rng.Float64() / 2
	case 5:
		x.frozen = !x.frozen
		if !x.frozen {
			x.tick()
			x.gather() // which it could not do before
		}
	case 6:
		x.nat.Forget()
	case 7:
		public := netip.AddrFrom4([4]byte{203, 0, x.name[0], byte(rng.IntN(200))})
		x.nat = s.net.AddNAT(x.kind, public)
		ip := netip.AddrFrom4([4]byte{10, 9, byte(rng.IntN(200)), 2})
		x.host.Move(netip.AddrPortFrom(ip, uint16(2000+rng.IntN(1000))), x.nat)
		for id, h := range x.extra {
			h.Move(netip.AddrPortFrom(ip, uint16(20000+id)), x.nat)
		}
		x.gather()
	case 8:
		x.step(Start{Remote: x.peer.cands, Told: []netip.AddrPort{}})
	}
}
