package lab_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
)

func TestParseKind(t *testing.T) {
	for s, want := range map[string]lab.Kind{
		"": lab.None, "none": lab.None, "public": lab.None,
		"full-cone": lab.FullCone, "FullCone": lab.FullCone, "full_cone": lab.FullCone, "eim": lab.FullCone,
		"port-restricted": lab.PortRestricted, "portrestricted": lab.PortRestricted, "Port Restricted": lab.PortRestricted,
		"symmetric": lab.Symmetric, "sym": lab.Symmetric,
		"udp-blocked": lab.UDPBlocked, "no-udp": lab.UDPBlocked, "CGNAT": lab.CGN, "address-restricted": lab.AddressRestricted,
		"adf+remap": "address-restricted+remap", "cone+mtu=1280+timeout=90s+Hairpin": "full-cone+hairpin+timeout=1m30s+mtu=1280",
		"sequential+step=1": lab.Sequential, "sequential+step=-3": "sequential+step=-3", "symmetric+mtu=1500": lab.Symmetric,
		"cgn+hairpin": "cgn+hairpin", "https-only+mtu=1400": "https-only+mtu=1400",
	} {
		if got, err := lab.ParseKind(s); got != want || err != nil {
			t.Errorf("ParseKind(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
	_, err := lab.ParseKind("port-guarded")
	if err == nil {
		t.Fatal("an unknown kind is accepted")
	}
	for _, k := range lab.Kinds() {
		if !strings.Contains(err.Error(), string(k)) {
			t.Errorf("error %q does not name %s", err, k)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	for kind, remedy := range map[lab.Kind]string{
		"none+mtu=1280": "no line", "ipv6+mtu=1280": "no line", "ipv6+hairpin": "no such option", "none+remap": "no such option", "udp-blocked+hairpin": "no such option",
		"symmetric+remap": "not preserved", "symmetric+hairpin": "nobody", "symmetric+step=1": "sequential",
		"sequential+step=0": "not 0", "sequential+step=101": "100", "sequential+step": "+step=N",
		"full-cone+mtu=100": "576", "full-cone+mtu=9000": "1500", "full-cone+mtu": "+mtu=N",
		"full-cone+timeout=10": "+timeout=D", "full-cone+timeout=1ms": "1s", "full-cone+": "unknown option", "full-cone+wings": "+hairpin",
	} {
		if _, err := kind.Traits(); err == nil || !strings.Contains(err.Error(), remedy) {
			t.Errorf("%s: %v, want it to name %q", kind, err, remedy)
		}
	}
}

func TestSpecRefused(t *testing.T) {
	many := make([]lab.Host, lab.MaxHosts+1)
	for i := range many {
		many[i].Name = fmt.Sprint("h", i)
	}
	for name, hosts := range map[string][]lab.Host{
		"no hosts":       nil,
		"too many":       many,
		"no name":        {{}},
		"name":           {{Name: "a b"}},
		"two hosts":      {{Name: "a"}, {Name: "a"}},
		"unknown NAT":    {{Name: "a", NAT: "wall"}},
		"1 to 64":        {{Name: strings.Repeat("a", 65)}},
		"letters, digit": {{Name: "ä"}},
		"with nobody":    {{Name: "a", With: "b"}, {Name: "b", NAT: lab.FullCone}},
		"with itself":    {{Name: "a", NAT: lab.FullCone, With: "a"}},
		"with public":    {{Name: "a"}, {Name: "b", With: "a"}},
		"other kind":     {{Name: "a", NAT: lab.FullCone}, {Name: "b", NAT: lab.Symmetric, With: "a"}},
	} {
		if _, err := lab.New(t.Context(), lab.Spec{Hosts: hosts}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
