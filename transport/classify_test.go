package transport

import (
	"net/netip"
	"testing"
)

func TestClassify(t *testing.T) {
	host := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("10.1.0.2:4000")}
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
	} {
		var got []netip.AddrPort
		for _, s := range c.got {
			got = append(got, netip.MustParseAddrPort(s))
		}
		if n := classify(got, host); n.Mapping != c.want || n.PortPreserved != c.preserved {
			t.Errorf("%s: %+v", name, n)
		}
	}
}
