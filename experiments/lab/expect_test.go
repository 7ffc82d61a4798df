package lab_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/internal/natsim"
)

func TestExpect(t *testing.T) {
	for _, c := range []struct {
		a, b     lab.Kind
		together bool
		want     lab.Way
	}{
		{"none", "none", false, lab.WayPunch},
		{"none", "symmetric", false, lab.WayPunch},
		{"full-cone", "sequential", false, lab.WayPunch},
		{"address-restricted+remap", "symmetric", false, lab.WayPunch},
		{"port-restricted+remap", "cgn", false, lab.WayPunch},
		{"port-restricted", "sequential+step=3", false, lab.WayPredict},
		{"cgn", "sequential", false, lab.WayPredict},
		{"sequential", "sequential", false, lab.WayPredict},
		{"symmetric", "port-restricted", false, lab.WayBirthday},
		{"symmetric", "cgn", false, lab.WayBirthday},
		{"symmetric", "sequential", false, lab.WayRelay},
		{"symmetric", "symmetric", false, lab.WayRelay},
		{"udp-blocked", "none", false, lab.WayRelay},
		{"ipv6-firewall", "ipv6-firewall", false, lab.WayPunch},
		{"ipv6-firewall", "symmetric", false, lab.WayRelay},
		{"ipv6-firewall", "full-cone", false, lab.WayPunch},
		{"symmetric", "symmetric", true, lab.WayLAN},
		{"udp-blocked", "udp-blocked", true, lab.WayLAN},
		{"cgn", "cgn", true, lab.WayRelay},
		{"cgn+hairpin", "cgn+hairpin", true, lab.WayPunch},
	} {
		for range 2 {
			if got, err := lab.Expect(c.a, c.b, c.together); got != c.want || err != nil {
				t.Errorf("%s x %s (together: %v): %s, %v, want %s", c.a, c.b, c.together, got, err, c.want)
			}
			c.a, c.b = c.b, c.a
		}
	}
	for _, bad := range [][2]lab.Kind{{"brick", "none"}, {"none", "brick"}} {
		if _, err := lab.Expect(bad[0], bad[1], false); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
	if _, err := lab.Expect("cgn", "full-cone", true); err == nil {
		t.Error("two kinds of NAT are one")
	}
}

// What is expected to work by plain punching does, in the simulation of the same NATs, and nothing else does: both send to
// what STUN showed, and to where packets come from.
func TestExpectAgreesWithSimulation(t *testing.T) {
	kinds := []lab.Kind{
		"full-cone", "full-cone+remap", "address-restricted", "address-restricted+remap", "port-restricted", "port-restricted+remap",
		"sequential", "symmetric", "udp-blocked", "https-only",
	}
	for _, a := range kinds {
		for _, b := range kinds {
			way, err := lab.Expect(a, b, false)
			if err != nil {
				t.Fatal(err)
			}
			if got := simulate(t, a, b); got != (way == lab.WayPunch) {
				t.Errorf("%s x %s: punched in the simulation: %v, expected: %s", a, b, got, way)
			}
		}
	}
}

func simulate(t *testing.T, kinds ...lab.Kind) bool {
	stun := netip.MustParseAddrPort("192.0.2.1:3478")
	net := natsim.New(rand.Uint64(), time.Unix(0, 0), time.Millisecond)
	type end struct {
		host  *natsim.Host
		to    []netip.AddrPort
		heard bool
	}
	ends := make([]*end, 2)
	for i, k := range kinds {
		traits, err := k.Traits()
		if err != nil {
			t.Fatal(err)
		}
		nat := net.AddNAT(traits.UDP, netip.MustParseAddr(fmt.Sprint("198.51.100.", i+1)))
		e := &end{host: net.AddHost(netip.MustParseAddrPort(fmt.Sprint("10.0.0.", i+1, ":4000")), nat)}
		e.host.Receive = func(_ time.Time, from netip.AddrPort, _ []byte) { e.heard, e.to = true, append(e.to[:1], from) }
		ends[i] = e
	}
	for i, e := range ends {
		mapped, ok := ends[1-i].host.MappedFor(stun)
		if !ok {
			mapped = stun // nobody
		}
		e.to = []netip.AddrPort{mapped}
	}
	for range 10 {
		for _, e := range ends {
			for _, to := range e.to {
				e.host.Send(to, []byte("punch"))
			}
		}
		net.Run(10 * time.Millisecond)
	}
	return ends[0].heard && ends[1].heard
}
