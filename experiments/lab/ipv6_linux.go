package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// IPv6 exists for hosts of kind IPv6Firewall only: the internet is 2001:db8::/64, with the core as its router, and
// the i-th host's network is 2001:db8:0:i+1::/64.

var core6 = netip.MustParseAddr("2001:db8::1")

func outside6(i int) netip.Addr { return v6(0, byte(2+i)) }

// lan6 is an address in the network of the i-th host: n is 1 for the router, 2 for the host.
func lan6(i int, n byte) netip.Addr { return v6(byte(1+i), n) }

func v6(network, host byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 7: network, 15: host})
}

// addIPv6 gives the i-th host, behind its router, an IPv6 address that the internet reaches through a stateful firewall.
func (l *Lab) addIPv6(i int, host, router *node) error {
	err := l.core.do(func() error {
		if err := configure6(bridgeName, core6, netip.Addr{}); err != nil {
			return err
		}
		if err := forward6(); err != nil {
			return err
		}
		return route6(bridgeName, netip.PrefixFrom(lan6(i, 0), 64), outside6(i))
	})
	if err != nil {
		return fmt.Errorf("core: %w", err)
	}
	err = router.do(func() error {
		if err := forward6(); err != nil {
			return err
		}
		if err := configure6(wanName, outside6(i), core6); err != nil {
			return err
		}
		if err := configure6(lanName, lan6(i, 1), netip.Addr{}); err != nil {
			return err
		}
		return addFirewall6()
	})
	if err != nil {
		return fmt.Errorf("router: %w", err)
	}
	l.segment(nil, end{node: l.core, name: bridgeName, addr: core6}, end{node: router, name: wanName, addr: outside6(i)})
	l.segment(nil, end{node: router, name: lanName, addr: lan6(i, 1)}, end{node: host, name: hostName, addr: lan6(i, 2)})
	return host.do(func() error { return configure6(hostName, lan6(i, 2), lan6(i, 1)) })
}

func forward6() error { return sysctl{"ipv6/conf/all/forwarding", "1", false}.set() }

// configure6 gives an interface of the thread's namespace an IPv6 address, unless it has it, usable at once.
func configure6(name string, addr, gw netip.Addr) error {
	for _, s := range []sysctl{
		{"ipv6/conf/all/accept_dad", "0", false}, // waiting for somebody with the same address takes a second
		{"ipv6/conf/" + name + "/accept_dad", "0", false},
		{"ipv6/conf/" + name + "/accept_ra", "0", false}, // there are none, and who asks for them would become a neighbour
		{"ipv6/conf/" + name + "/disable_ipv6", "0", false},
	} {
		if err := s.set(); err != nil {
			return err
		}
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	a := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, 64)), Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("give %s its IPv6 address: %w", name, err)
	}
	if !gw.IsValid() {
		return nil
	}
	return route6(name, netip.PrefixFrom(netip.IPv6Unspecified(), 0), gw)
}

func route6(name string, to netip.Prefix, gw netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	err = netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to), Gw: net.IP(gw.AsSlice())})
	if err != nil {
		return fmt.Errorf("route %v on %s: %w", to, name, err)
	}
	return nil
}

// addFirewall6 lets in what answers, and lets out all:
//
//	table ip6 lab { chain forward { type filter hook forward priority filter; policy drop
//	  ct state established,related accept
//	  iifname lan oifname wan accept } }
func addFirewall6() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv6, Name: "lab"})
	drop := nftables.ChainPolicyDrop
	forward := c.AddChain(&nftables.Chain{Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	known := ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	c.AddRule(&nftables.Rule{Table: t, Chain: forward, Exprs: append(known, verdict(expr.VerdictAccept)...)})
	c.AddRule(&nftables.Rule{Table: t, Chain: forward,
		Exprs: append(append(iif(lanName), oif(wanName)...), verdict(expr.VerdictAccept)...)})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables rules of an IPv6 firewall: %w", err)
	}
	return nil
}
