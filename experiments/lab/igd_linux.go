package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

// ForwardPorts makes the outermost NAT of a host ready for a daemon that forwards ports on request, miniupnpd with
// nftables, at the outside address public: which must be one that is routed in the real internet, since miniupnpd looks at that, and so
// is none of the lab's own. What it finds, as nft would show it, is
//
//	table inet filter {
//	  chain prerouting  { type nat hook prerouting priority dstnat;  jump prerouting_miniupnpd }
//	  chain postrouting { type nat hook postrouting priority srcnat - 1; jump postrouting_miniupnpd }
//	  chain forward     { type filter hook forward priority filter; jump miniupnpd }
//	  chain prerouting_miniupnpd, postrouting_miniupnpd, miniupnpd {} }
//
// beside the NAT's own table, which lets in from now on what has been forwarded. The NAT must be the kernel's.
func (l *Lab) ForwardPorts(host string, public netip.Addr) error {
	s, err := l.site(host)
	if err != nil {
		return err
	}
	if s.user != nil || s.traits.Base == UDPBlocked || s.traits.Base == HTTPSOnly {
		return fmt.Errorf("lab: the NAT of %s, of kind %s, cannot forward ports", host, s.traits.Kind())
	}
	dst := &net.IPNet{IP: public.AsSlice(), Mask: net.CIDRMask(32, 32)}
	err = l.within(l.core, func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: outsideAddr(s.index).AsSlice()})
	})
	if err == nil {
		err = l.alter(s.router, addForwarding)
	}
	if err != nil {
		return fmt.Errorf("lab: forward ports to %s: %w", host, err)
	}
	return nil
}

func addForwarding(c *nftables.Conn) {
	own := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "lab"}
	c.InsertRule(&nftables.Rule{Table: own, Chain: &nftables.Chain{Name: "forward", Table: own},
		Exprs: append(append(iif(wanName), ct(expr.CtKeySTATUS, ctStatusDNAT)...), verdict(expr.VerdictAccept)...)})
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"})
	for _, chain := range []struct {
		base   nftables.Chain
		target string
	}{
		{nftables.Chain{Name: "prerouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting,
			Priority: nftables.ChainPriorityNATDest}, "prerouting_miniupnpd"},
		{nftables.Chain{Name: "postrouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting,
			Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource - 1)}, "postrouting_miniupnpd"},
		{nftables.Chain{Name: "forward", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
			Priority: nftables.ChainPriorityFilter}, "miniupnpd"},
	} {
		c.AddChain(&nftables.Chain{Name: chain.target, Table: t})
		chain.base.Table = t
		base := c.AddChain(&chain.base)
		c.AddRule(&nftables.Rule{Table: t, Chain: base, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain.target}}})
	}
}

// StartRouter is Start for the router that is a host's outermost NAT, whose inside interface is "lan" and outside interface "wan".
func (l *Lab) StartRouter(ctx context.Context, host string, cmd *exec.Cmd) (*Proc, error) {
	n, err := l.router(host)
	if err != nil {
		return nil, err
	}
	return l.start(ctx, n, "the router of "+host, cmd)
}
