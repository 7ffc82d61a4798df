package transport

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/fnwire/fnwire/transport/punch"
)

// TestMappedAddress holds that a port that a router forwards is offered, beside what STUN tells, until it is lost.
func TestMappedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openOver(t, newCountingSocket())
		defer e.Close()
		mapped, seen := netip.MustParseAddrPort("203.0.113.9:5000"), netip.MustParseAddrPort("203.0.113.9:6000")
		want := func(when string, with, without []netip.AddrPort) {
			t.Helper()
			got := e.Candidates()
			for _, a := range with {
				if !slices.Contains(got, a) {
					t.Errorf("%s: no %v in %v", when, a, got)
				}
			}
			for _, a := range without {
				if slices.Contains(got, a) {
					t.Errorf("%s: %v in %v", when, a, got)
				}
			}
		}
		e.SetMapped(mapped)
		want("mapped", []netip.AddrPort{mapped}, nil)
		e.mu.Lock()
		before := e.nat
		e.mu.Unlock()
		if before.Mapping != "" && before.Mapping != MappingUnknown {
			t.Errorf("a router's word is no STUN answer: %+v", before)
		}
		stable := punch.NAT{Mapping: punch.MappingStable, Public: mapped}
		if got := e.NAT().Punch(); got != stable {
			t.Errorf("peers are told of %+v", got)
		}
		e.learn([]netip.AddrPort{seen, netip.MustParseAddrPort("203.0.113.9:7001")}) // of a symmetric NAT
		if got := e.NAT().Punch(); got != stable {
			t.Errorf("behind a symmetric NAT: peers are told of %+v", got)
		}
		e.SetBlocked()
		if got := e.NAT().Punch(); got.Mapping != punch.MappingBlocked {
			t.Errorf("where no UDP passes: peers are told of %+v", got)
		}
		e.learn([]netip.AddrPort{seen, seen})
		want("mapped and seen", []netip.AddrPort{mapped, seen}, nil)
		e.checkAddresses()
		want("after a look at the interfaces", []netip.AddrPort{mapped, seen}, nil)
		e.SetMapped(netip.AddrPort{})
		want("lost", []netip.AddrPort{seen}, []netip.AddrPort{mapped})
		if got := e.NAT().Punch(); got.Public != seen {
			t.Errorf("lost: peers are told of %+v", got)
		}
	})
}
