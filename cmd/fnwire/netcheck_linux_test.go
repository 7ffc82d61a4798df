package main

import (
	"fmt"
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
	lenient := []string{"direct", "direct", "direct", "direct", "relay"} // of peerKinds
	strict := []string{"direct", "direct", "predicted", "birthday", "relay"}
	kinds := []struct {
		nat       lab.Kind
		mapping   transport.Mapping
		filtering transport.Filtering
		hairpin   transport.Hairpin
		expect    []string
	}{
		{lab.None, transport.MappingNone, transport.FilteringLenient, transport.HairpinNone, lenient},
		{lab.FullCone, transport.MappingEndpoint, transport.FilteringLenient, transport.HairpinNo, lenient},
		{lab.AddressRestricted, transport.MappingEndpoint, transport.FilteringLenient, transport.HairpinNo, lenient},
		{lab.PortRestricted, transport.MappingEndpoint, transport.FilteringPort, transport.HairpinNo, strict},
		{lab.PortRestricted + "+remap+hairpin", transport.MappingEndpoint, transport.FilteringPort, transport.HairpinYes, strict},
		{lab.CGN, transport.MappingEndpoint, transport.FilteringPort, transport.HairpinNo, strict},
		{lab.Sequential, transport.MappingDepends, transport.FilteringPort, transport.HairpinUnknown,
			[]string{"direct", "predicted", "predicted", "relay", "relay"}},
		{lab.Symmetric, transport.MappingDepends, transport.FilteringPort, transport.HairpinUnknown,
			[]string{"direct", "birthday", "relay", "relay", "relay"}},
		{lab.UDPBlocked, transport.MappingBlocked, transport.FilteringUnknown, transport.HairpinUnknown,
			[]string{"relay", "relay", "relay", "relay", "relay"}},
	}
	hosts := []lab.Host{{Name: "public"}}
	for i, k := range kinds {
		hosts = append(hosts, lab.Host{Name: fmt.Sprint("h", i), NAT: k.nat})
	}
	l := labtest.New(t, hosts...)
	env := startDevIn(t, l, "public", "--https")
	for i, tt := range kinds {
		p := env.inLab(t, l, fmt.Sprint("h", i), "netcheck", "--json").want(cli.ExitOK)
		var r netReport
		p.decode(&p.out, &r)
		var expect []string
		for _, e := range r.Expect {
			expect = append(expect, e.Outcome)
		}
		udp := tt.nat != lab.UDPBlocked
		if r.NAT.Mapping != tt.mapping || r.NAT.Filtering != tt.filtering || r.NAT.Hairpin != tt.hairpin || r.UDP != udp ||
			r.HTTPS != "yes" || r.IPv6 != "none" || !r.OK || !slices.Equal(expect, tt.expect) {
			t.Errorf("%s: %+v", tt.nat, r)
		}
		if kept := tt.nat == lab.FullCone || tt.nat == lab.AddressRestricted || tt.nat == lab.PortRestricted; kept && (!r.NAT.PortPreserved || r.NAT.PortOffset != 0) {
			t.Errorf("%s: port not preserved: %+v", tt.nat, r.NAT)
		}
	}
}

// TestNetcheckLifetime measures a time-out that is known.
func TestNetcheckLifetime(t *testing.T) {
	if testing.Short() {
		t.Skip("waits ten seconds for mappings to end")
	}
	l := labtest.New(t, lab.Host{Name: "public"}, lab.Host{Name: "a", NAT: lab.PortRestricted + "+timeout=7s"})
	env := startDevIn(t, l, "public")
	p := env.inLab(t, l, "a", "netcheck", "--json", "--lifetime", "10s").want(cli.ExitOK)
	var r netReport
	p.decode(&p.out, &r)
	if r.NAT.Lifetime == nil || *r.NAT.Lifetime != (lifetimeReport{Alive: 5, Dead: 10}) {
		t.Errorf("life-time %+v; %s", r.NAT.Lifetime, &p.err)
	}
	if !strings.Contains(p.err.String(), "alive after 5s") || !strings.Contains(p.err.String(), "gone after 10s") {
		t.Errorf("%s", &p.err)
	}
	env.run(t, "netcheck", "--lifetime", "1h").fails(cli.ExitUsage, "55s")
}

// TestOnePrivateNetwork holds that two functions in one private network, behind a NAT whose own address leads nowhere
// from inside, talk directly and never leave the network: by the addresses of their interfaces.
func TestOnePrivateNetwork(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "public"}, lab.Host{Name: "a", NAT: lab.PortRestricted}, lab.Host{Name: "b", With: "a"})
	if l.PublicAddr("a") != l.PublicAddr("b") || l.Addr("a") == l.Addr("b") {
		t.Fatalf("%v", l.Hosts())
	}
	env := startDevIn(t, l, "public")
	b := env.inLab(t, l, "b", "receive", "--verbose", "--name", "b", "--count", "0", "--out", t.TempDir())
	b.await(&b.err, "fnwire: joined as b")
	p := env.inLab(t, l, "a", "ping", "b", "--path", "direct", "-c", "2", "--json").want(cli.ExitOK)
	for _, one := range lines[pingReport](t, p.out.String()) {
		at, err := netip.ParseAddrPort(one.Remote)
		if err != nil || one.Path != "direct" || at.Addr() != l.Addr("b") {
			t.Errorf("%+v; b is %v inside and %v outside", one, l.Addr("b"), l.PublicAddr("b"))
		}
	}
	b.interrupt()
	b.want(cli.ExitOK)
}

// TestPortMapping holds that two functions behind NATs which rule a direct path out have one nevertheless if one of them
// may ask its router, by UPnP, for a port.
func TestPortMapping(t *testing.T) {
	exe := labtest.Miniupnpd(t)
	l := labtest.New(t, lab.Host{Name: "public"}, lab.Host{Name: "a", NAT: lab.Symmetric}, lab.Host{Name: "b", NAT: lab.Symmetric})
	public := netip.MustParseAddr("192.30.0.1")
	labtest.StartMiniupnpd(t, l, "a", exe, public, "enable_natpmp=no\n")
	env := startDevIn(t, l, "public")
	p := env.inLab(t, l, "a", "netcheck", "--portmap", "--json").want(cli.ExitOK)
	var r netReport
	p.decode(&p.out, &r)
	if r.PortMap == nil || r.PortMap.Addr.Addr() != public || !slices.Contains(r.Candidates, r.PortMap.Addr) {
		t.Errorf("%+v, candidates %v", r.PortMap, r.Candidates)
	}
	a := env.inLab(t, l, "a", "receive", "--portmap", "--verbose", "--name", "a", "--count", "0", "--out", t.TempDir())
	a.await(&a.err, "the router forwards a port")
	ping := env.inLab(t, l, "b", "ping", "a", "--path", "direct", "-c", "1", "--json").want(cli.ExitOK)
	for _, one := range lines[pingReport](t, ping.out.String()) {
		at, err := netip.ParseAddrPort(one.Remote)
		if err != nil || one.Path != "direct" || at.Addr() != public {
			t.Errorf("%+v, want a path to a port of %v", one, public)
		}
	}
	a.interrupt()
	a.want(cli.ExitOK)
}
