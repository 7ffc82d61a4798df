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
		"udp-blocked": lab.UDPBlocked, "no-udp": lab.UDPBlocked,
	} {
		if got, err := lab.ParseKind(s); got != want || err != nil {
			t.Errorf("ParseKind(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
	_, err := lab.ParseKind("address-restricted")
	if err == nil {
		t.Fatal("an unknown kind is accepted")
	}
	for _, k := range lab.Kinds() {
		if !strings.Contains(err.Error(), string(k)) {
			t.Errorf("error %q does not name %s", err, k)
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
	} {
		if _, err := lab.New(t.Context(), lab.Spec{Hosts: hosts}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
