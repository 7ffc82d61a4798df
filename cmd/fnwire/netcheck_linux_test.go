package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/transport"
)

// startDevIn runs a rendezvous and a relay on a public host of a lab.
func startDevIn(t *testing.T, l *lab.Lab, host string, args ...string) environment {
	t.Helper()
	public := l.Addr(host)
	dev := environment{}.inLab(t, l, host, append([]string{
		"dev", "--json", "--listen", netip.AddrPortFrom(public, 4222).String(), "--relay-listen", netip.AddrPortFrom(public, 3478).String(),
	}, args...)...)
	dev.await(&dev.out, "\n")
	var r devReport
	dev.decode(&dev.out, &r)
	return environment{"FNWIRE_URL=" + r.URL, "FNWIRE_JOB_KEY=" + r.JobKey}
}

// TestNetcheckKinds holds what netcheck tells against NATs that are known.
func TestNetcheckKinds(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "public"}, lab.Host{Name: "open"}, lab.Host{Name: "cone", NAT: lab.FullCone},
		lab.Host{Name: "strict", NAT: lab.PortRestricted}, lab.Host{Name: "symmetric", NAT: lab.Symmetric},
		lab.Host{Name: "blocked", NAT: lab.UDPBlocked})
	env := startDevIn(t, l, "public", "--https")
	for _, tt := range []struct {
		host      string
		mapping   transport.Mapping
		filtering transport.Filtering
		hairpin   transport.Hairpin
		udp       bool
		expect    []string // of peerKinds
	}{
		{"open", transport.MappingNone, transport.FilteringLenient, transport.HairpinNone, true,
			[]string{"direct", "direct", "direct", "direct", "relay"}},
		{"cone", transport.MappingEndpoint, transport.FilteringLenient, transport.HairpinNo, true,
			[]string{"direct", "direct", "direct", "direct", "relay"}},
		{"strict", transport.MappingEndpoint, transport.FilteringPort, transport.HairpinNo, true,
			[]string{"direct", "direct", "predicted", "birthday", "relay"}},
		{"symmetric", transport.MappingDepends, transport.FilteringPort, transport.HairpinUnknown, true,
			[]string{"direct", "birthday", "relay", "relay", "relay"}},
		{"blocked", transport.MappingBlocked, transport.FilteringUnknown, transport.HairpinUnknown, false,
			[]string{"relay", "relay", "relay", "relay", "relay"}},
	} {
		p := env.inLab(t, l, tt.host, "netcheck", "--json").want(cli.ExitOK)
		var r netReport
		p.decode(&p.out, &r)
		var expect []string
		for _, e := range r.Expect {
			expect = append(expect, e.Outcome)
		}
		if r.NAT.Mapping != tt.mapping || r.NAT.Filtering != tt.filtering || r.NAT.Hairpin != tt.hairpin || r.UDP != tt.udp ||
			r.HTTPS != "yes" || r.IPv6 != "none" || !r.OK || !slices.Equal(expect, tt.expect) {
			t.Errorf("%s: %+v", tt.host, r)
		}
	}
}

// TestNetcheckLifetime has the NAT forget its mappings between the silences that netcheck tries.
func TestNetcheckLifetime(t *testing.T) {
	if testing.Short() {
		t.Skip("waits ten seconds for a mapping to be used again")
	}
	l := labtest.New(t, lab.Host{Name: "public"}, lab.Host{Name: "a", NAT: lab.PortRestricted})
	env := startDevIn(t, l, "public")
	p := env.inLab(t, l, "a", "netcheck", "--json", "--lifetime", "10s")
	p.await(&p.err, "alive after 5s")
	if err := l.RebootNAT("a"); err != nil {
		t.Fatal(err)
	}
	p.want(cli.ExitOK)
	var r netReport
	p.decode(&p.out, &r)
	if r.NAT.Lifetime == nil || *r.NAT.Lifetime != (lifetimeReport{Alive: 5, Dead: 10}) {
		t.Errorf("life-time %+v; %s", r.NAT.Lifetime, &p.err)
	}
	if !strings.Contains(p.err.String(), "gone after 10s") {
		t.Errorf("%s", &p.err)
	}
	env.run(t, "netcheck", "--lifetime", "1h").fails(cli.ExitUsage, "55s")
}
