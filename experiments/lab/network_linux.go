package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddNetwork gives a host without NAT all the addresses of an IPv4 network besides its own: what anybody sends there reaches it, and
// its sockets may send from any of them. The network must not be one that the lab uses, such as 198.18.0.0/15 (RFC 2544).
func (l *Lab) AddNetwork(host string, network netip.Prefix) error {
	h, err := l.host(host)
	if err != nil {
		return err
	}
	if h.Addr != h.PublicAddr {
		return fmt.Errorf("lab: a network for %s, which is behind a NAT", host)
	}
	if !network.Addr().Is4() || netip.PrefixFrom(coreAddr, 24).Overlaps(network) || netip.MustParsePrefix("10.0.0.0/8").Overlaps(network) {
		return fmt.Errorf("lab: network %v: want one of IPv4 that the lab does not use", network)
	}
	dst := &net.IPNet{IP: network.Masked().Addr().AsSlice(), Mask: net.CIDRMask(network.Bits(), 32)}
	err = l.within(l.nodes[host], func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_LOCAL})
	})
	err = errors.Join(err, l.within(l.core, func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: h.Addr.AsSlice()})
	}))
	if err != nil {
		return fmt.Errorf("lab: network %v of %s: %w", network, host, err)
	}
	return nil
}
