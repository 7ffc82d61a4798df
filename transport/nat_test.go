package transport

import (
	"net/netip"
	"testing"

	"github.com/fnwire/fnwire/transport/punch"
)

func addrsAt(ports ...uint16) []netip.AddrPort {
	var out []netip.AddrPort
	for _, p := range ports {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 7}), p))
	}
	return out
}

// TestClassify: what STUN answers, in the order of the questions, say about a NAT.
func TestClassifyNAT(t *testing.T) {
	host := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("203.0.113.5:4000")}
	pool := append(addrsAt(5000), netip.MustParseAddrPort("198.51.100.8:5001"))
	for _, tt := range []struct {
		name  string
		got   []netip.AddrPort
		want  Mapping
		step  int
		punch punch.Mapping
	}{
		{"one answer", addrsAt(5000), MappingUnknown, 0, punch.MappingUnknown},
		{"the same twice", addrsAt(5000, 5000), MappingEndpoint, 0, punch.MappingStable},
		{"own address", host[1:], MappingNone, 0, punch.MappingStable},
		{"in order", addrsAt(5000, 5001), MappingDepends, 1, punch.MappingSequential},
		{"falling", addrsAt(5000, 4997), MappingDepends, -3, punch.MappingSequential},
		{"a relay bound in between", addrsAt(5000, 5004, 5002, 5006), MappingDepends, 2, punch.MappingSequential},
		{"mappings of others in between", addrsAt(5000, 5007, 5008, 5009), MappingDepends, 1, punch.MappingSequential},
		{"one out of order", addrsAt(5000, 5001, 61234, 5002), MappingDepends, 0, punch.MappingRandom},
		{"random", addrsAt(5000, 41234), MappingDepends, 0, punch.MappingRandom},
		{"a pool of addresses", pool, MappingDepends, 0, punch.MappingRandom},
		{"IPv6 only", []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:4000"), netip.MustParseAddrPort("[2001:db8::1]:4000")}, MappingEndpoint, 0, punch.MappingUnknown},
	} {
		n := classify(tt.got, host)
		if n.Mapping != tt.want || n.Step != tt.step || n.Punch().Mapping != tt.punch || int(n.Punch().Step) != tt.step {
			t.Errorf("%s: %+v, %+v", tt.name, n, n.Punch())
		}
	}
	if n := (NAT{Mapping: MappingBlocked}).Punch(); n.Mapping != punch.MappingBlocked {
		t.Errorf("blocked: %+v", n)
	}
}

// TestClassifyAgain: a step that was seen stays known while the mappings of later answers are of different age.
func TestClassifyAgain(t *testing.T) {
	h, _ := extraHub(t)
	e := &Endpoint{hub: h}
	for i, tt := range []struct {
		got  []netip.AddrPort
		step int
	}{
		{addrsAt(5000, 5002), 2},
		{addrsAt(5000, 6234), 2},
		{addrsAt(7000, 6999), -1},
		{[]netip.AddrPort{netip.MustParseAddrPort("198.51.100.9:5000"), netip.MustParseAddrPort("198.51.100.9:7000")}, 0},
		{addrsAt(5000, 5000), 0},
	} {
		if n := e.learn(tt.got); n.Step != tt.step {
			t.Errorf("answer %d: step %d, want %d", i, n.Step, tt.step)
		}
	}
}

func TestWhy(t *testing.T) {
	blocked := punch.NAT{Mapping: punch.MappingBlocked}
	for _, tt := range []struct {
		class Class
		st    punch.State
		want  Why
	}{
		{RelayOnly, punch.State{}, WhyPolicy},
		{Auto, punch.State{}, WhyNotTried},
		{Auto, punch.State{Phase: punch.Probing}, WhyPunching},
		{Auto, punch.State{Phase: punch.Nominating}, WhyPunching},
		{Auto, punch.State{Phase: punch.Direct, Path: addrsAt(1)[0]}, WhyNotValidated},
		{Auto, punch.State{Counters: punch.Counters{Rounds: 1}}, WhyNoAnswer},
		{Auto, punch.State{Hopeless: true, Phase: punch.Probing}, WhyNATs},
		{Auto, punch.State{Hopeless: true, Here: blocked}, WhyBlockedHere},
		{Auto, punch.State{Hopeless: true, There: blocked}, WhyBlockedThere},
	} {
		if got := why(tt.class, tt.st); got != tt.want {
			t.Errorf("%v, %+v: %q, want %q", tt.class, tt.st, got, tt.want)
		}
	}
}
