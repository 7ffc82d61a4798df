package punch

import (
	"net/netip"
	"strings"
	"testing"
	"time"
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
