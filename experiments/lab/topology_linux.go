package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	bridgeName = "inet"
	wanName    = "wan"  // a router's outside interface
	lanName    = "lan"  // a router's inside interface
	hostName   = "eth0" // a host's only interface besides lo
	portPrefix = "port" // a port of the bridge, with the number of the host

	upTimeout = 10 * time.Second
)

var coreAddr = netip.AddrFrom4([4]byte{198, 51, 100, 1})

// outsideAddr is the address on the internet of the lab of the i-th host or its router.
func outsideAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(2 + i)}) }

// lanAddr is an address in the private network of the i-th host: n is 1 for the router, 2 for the host.
func lanAddr(i, n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(1 + i), 0, byte(n)}) }

// carrierAddr is an address in the network of the i-th host's carrier (RFC 6598): n is 1 for the carrier's NAT.
func carrierAddr(i, n int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(i), byte(n)}) }

// lineAddr is the address of the router at the far end of the i-th host's line.
func lineAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 65, byte(i), 1}) }

// makeCore makes the namespace with the bridge that is the internet of the lab.
// It answers packets for foreign networks with "net unreachable", so that whoever tries to leave the lab learns it at once.
func makeCore() (*node, error) {
	core, err := newNode()
	if err != nil {
		return nil, err
	}
	err = core.do(func() error {
		if err := (sysctl{"ipv4/ip_forward", "1", false}).set(); err != nil {
			return err
		}
		if err := makeBridge(bridgeName); err != nil {
			return err
		}
		if err := configure(bridgeName, coreAddr, netip.Addr{}); err != nil {
			return err
		}
		return addBlockTable()
	})
	if err != nil {
		core.close()
		return nil, fmt.Errorf("core: %w", err)
	}
	return core, nil
}

// cableToBridge makes a cable from an interface of n to a port of a bridge, which it sets up.
func cableToBridge(owner *node, bridgeName, port string, n *node, name string, mtu int) error {
	if err := connect(n, name, owner, port, mtu); err != nil {
		return err
	}
	return toBridge(owner, bridgeName, port)
}

// toBridge makes an interface a port of a bridge, and sets it up.
func toBridge(owner *node, bridgeName, port string) error {
	return owner.do(func() error {
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return fmt.Errorf("find bridge: %w", err)
		}
		link, err := netlink.LinkByName(port)
		if err != nil {
			return fmt.Errorf("find %s: %w", port, err)
		}
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("put %s on the bridge: %w", port, err)
		}
		return netlink.LinkSetUp(link)
	})
}

// makeBridge makes a bridge in the namespace of the thread.
func makeBridge(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	snooping := false
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("make bridge: %w", err)
	}
	return nil
}

// connect makes a virtual cable: an interface in a and one in b.
func connect(a *node, aName string, b *node, bName string, mtu int) error {
	return a.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = aName, mtu
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: bName, PeerNamespace: netlink.NsFd(b.ns)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make veth %s: %w", aName, err)
		}
		return nil
	})
}

// awaitUp returns when the interfaces of a node with the given prefix carry packets. The kernel finds that out in the
// background, once both ends of a cable are up, and drops what is sent before.
// Only the end that was set up first needs this; the other is ready at once.
func awaitUp(ctx context.Context, n *node, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	return n.do(func() error {
		for {
			links, err := netlink.LinkList()
			if err != nil {
				return fmt.Errorf("list interfaces: %w", err)
			}
			i := slices.IndexFunc(links, func(l netlink.Link) bool {
				_, tap := l.(*netlink.Tuntap) // which carry packets at once
				return !tap && strings.HasPrefix(l.Attrs().Name, prefix) && l.Attrs().OperState != netlink.OperUp
			})
			if i < 0 {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s does not come up: %w", links[i].Attrs().Name, ctx.Err())
			case <-time.After(time.Millisecond):
			}
		}
	})
}

// configure gives an interface of the thread's namespace its address, in a /24, sets it up, and adds a default route if gw is valid.
func configure(name string, addr, gw netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, 24))}); err != nil {
		return fmt.Errorf("give %s its address: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	if !gw.IsValid() {
		return nil
	}
	return defaultRoute(name, gw)
}

func defaultRoute(name string, gw netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice()}); err != nil {
		return fmt.Errorf("add default route on %s: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
