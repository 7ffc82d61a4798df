package transport

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestClassify(t *testing.T) {
	host := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("10.1.0.2:4000"), netip.MustParseAddrPort("[2001:db8::2]:4001")}
	own6 := host[2].String()
	for name, c := range map[string]struct {
		got       []string
		want      Mapping
		preserved bool
	}{
		"loopback":         {[]string{"127.0.0.1:4000", "127.0.0.1:4000"}, MappingNone, true},
		"own address":      {[]string{"10.1.0.2:4000", "10.1.0.2:4000"}, MappingNone, true},
		"one mapping":      {[]string{"192.0.2.1:9", "192.0.2.1:9"}, MappingEndpoint, false},
		"port preserved":   {[]string{"192.0.2.1:4000", "192.0.2.1:4000"}, MappingEndpoint, true},
		"two mappings":     {[]string{"192.0.2.1:9", "192.0.2.1:10"}, MappingDepends, false},
		"a single answer":  {[]string{"192.0.2.1:9"}, MappingUnknown, false},
		"a single one own": {[]string{"10.0.0.2:4000"}, MappingNone, true},

		"IPv6 first":                 {[]string{own6, "192.0.2.1:9", "192.0.2.1:30"}, MappingDepends, false},
		"IPv6 last":                  {[]string{"192.0.2.1:9", "192.0.2.1:30", own6}, MappingDepends, false},
		"one of each":                {[]string{"192.0.2.1:9", own6}, MappingUnknown, false},
		"the port of another family": {[]string{"192.0.2.1:4001", "192.0.2.1:4001"}, MappingEndpoint, false},
		"IPv6 alone":                 {[]string{own6, own6}, MappingNone, true},
	} {
		var got []netip.AddrPort
		for _, s := range c.got {
			got = append(got, netip.MustParseAddrPort(s))
		}
		n := classify(got, host)
		if n.Mapping != c.want || n.PortPreserved != c.preserved {
			t.Errorf("%s: %+v", name, n)
		}
		for _, a := range got {
			if !slices.Contains(n.Reflexive, a) {
				t.Errorf("%s: no %v in %v", name, a, n.Reflexive)
			}
		}
	}
}

// However many addresses the machine has, peers are told of those that are seen from outside; however many these are, of some of
// the machine's.
func TestManyAddresses(t *testing.T) {
	many := func(format string) (out []netip.AddrPort) {
		for i := range 20 {
			out = append(out, netip.MustParseAddrPort(fmt.Sprintf(format, i+1)))
		}
		return out
	}
	host4, host6, seen := many("10.0.0.%d:4000"), many("[2001:db8::%x]:4001"), many("192.0.2.1:%d")
	host := inTurn(host4[:3], host6)
	for name, c := range map[string]struct{ seen, want []netip.AddrPort }{
		"nothing seen": {want: host[:16]},
		"one mapping":  {seen: seen[:1], want: slices.Concat(host[:15], seen[:1])},
		"many":         {seen: seen, want: slices.Concat(host[:8], seen[:8])},
	} {
		if got := share(host, c.seen); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if !slices.Contains(host[:4], host4[1]) || !slices.Contains(host[:4], host6[1]) {
		t.Errorf("IPv4 and IPv6 do not take turns: %v", host)
	}
}
