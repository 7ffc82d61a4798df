package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// site is what shares one outermost NAT: usually a single host.
type site struct {
	index   int // of the host that it was made for, from which its addresses derive
	traits  Traits
	shared  bool
	router  *node
	lan     *segment
	user    *userNAT // nil if the kernel is the NAT
	members int
}

// byUser tells whether a NAT for UDP is none that the kernel has.
func (t Traits) byUser(shared bool) bool {
	plain, _ := base(t.Base)
	switch t.Base {
	case AddressRestricted, Sequential, CGN:
		return true
	}
	return !t.UDP.Blocked && (shared || t.UDP != plain)
}

// inside is an address behind the outermost NAT: n is 1 for its router.
func (s *site) inside(n int) netip.Addr {
	if s.traits.Base == CGN {
		return carrierAddr(s.index, n)
	}
	return lanAddr(s.index, n)
}

// makeSite makes the outermost NAT for the i-th host.
func (l *Lab) makeSite(i int, h Host, t Traits, shared bool) (*site, error) {
	router, err := newNode()
	if err != nil {
		return nil, err
	}
	l.routers = append(l.routers, router)
	s := &site{index: i, traits: t, shared: shared, router: router}
	var bridge *node
	if shared {
		bridge = router
	}
	s.lan = l.segment(bridge, end{node: router, name: lanName, addr: s.inside(1)})
	if t.MTU == mtu {
		err = l.plug(router, wanName, i, h)
	} else {
		err = l.plugNarrow(router, i, h, t.MTU)
	}
	if err != nil {
		return nil, err
	}
	return s, router.do(func() error {
		if err := (sysctl{"ipv4/ip_forward", "1", false}).set(); err != nil {
			return err
		}
		if shared {
			if err := makeBridge(lanName); err != nil {
				return err
			}
			if err := configure(lanName, s.inside(1), netip.Addr{}); err != nil {
				return err
			}
		}
		byUser := t.byUser(shared)
		if err := addNAT(t.Base, byUser, s.inside(2)); err != nil {
			return err
		}
		if byUser {
			s.user, err = startUserNAT(t.UDP, outsideAddr(i), netip.PrefixFrom(s.inside(1), 24).Masked(), t.MTU)
		}
		return err
	})
}

// join puts a node behind the outermost NAT, and returns its address there.
func (s *site) join(n *node, name string) (netip.Addr, error) {
	s.members++
	addr := s.inside(1 + s.members)
	e := end{node: n, name: name, addr: addr}
	var err error
	if s.shared {
		e.port = fmt.Sprint(lanName, s.members)
		err = cableToBridge(s.router, lanName, e.port, n, name, mtu)
	} else if err = connect(n, name, s.router, lanName, mtu); err == nil {
		err = s.router.do(func() error { return configure(lanName, s.inside(1), netip.Addr{}) })
	}
	if err != nil {
		return addr, err
	}
	s.lan.ends = append(s.lan.ends, e)
	return addr, n.do(func() error { return configure(name, addr, s.inside(1)) })
}

// addHome makes the NAT of a home, port-restricted, between the j-th host and its carrier's, and returns the host's address.
func (l *Lab) addHome(s *site, j int, host *node) (netip.Addr, error) {
	router, err := newNode()
	if err != nil {
		return netip.Addr{}, err
	}
	l.routers = append(l.routers, router)
	if _, err := s.join(router, wanName); err != nil {
		return netip.Addr{}, err
	}
	if err := connect(host, hostName, router, lanName, mtu); err != nil {
		return netip.Addr{}, err
	}
	err = router.do(func() error {
		if err := (sysctl{"ipv4/ip_forward", "1", false}).set(); err != nil {
			return err
		}
		if err := configure(lanName, lanAddr(j, 1), netip.Addr{}); err != nil {
			return err
		}
		return addNAT(PortRestricted, false, lanAddr(j, 2))
	})
	if err != nil {
		return netip.Addr{}, err
	}
	l.segment(nil, end{node: router, name: lanName, addr: lanAddr(j, 1)}, end{node: host, name: hostName, addr: lanAddr(j, 2)})
	return lanAddr(j, 2), host.do(func() error { return configure(hostName, lanAddr(j, 2), lanAddr(j, 1)) })
}

// plugNarrow joins a router to the bridge by a line that takes packets of size bytes only. At its far end is another router,
// without NAT, that stands for the router to the bridge and for the core to the router: it forwards what fits, and tells the
// sender of what does not. So sizes are checked where packets are forwarded, both ways: a bridge, or a cable, lets batches
// pass whatever the size of their packets.
func (l *Lab) plugNarrow(router *node, i int, h Host, size int) error {
	far, err := newNode()
	if err != nil {
		return err
	}
	l.routers = append(l.routers, far)
	if err := l.uplink(far, wanName, i, h); err != nil {
		return err
	}
	if err := connect(router, wanName, far, lanName, size); err != nil {
		return err
	}
	err = far.do(func() error {
		if err := (sysctl{"ipv4/ip_forward", "1", false}).set(); err != nil {
			return err
		}
		public := outsideAddr(i)
		if err := routeOn(lanName, netip.PrefixFrom(public, 32), lineAddr(i)); err != nil {
			return err
		}
		return routeOn(wanName, netip.PrefixFrom(coreAddr, 24).Masked(), netip.Addr{})
	})
	if err != nil {
		return err
	}
	l.segment(nil, end{node: router, name: wanName, addr: outsideAddr(i)}, end{node: far, name: lanName, addr: coreAddr})
	return router.do(func() error {
		if err := routeOn(wanName, netip.PrefixFrom(coreAddr, 32), outsideAddr(i)); err != nil {
			return err
		}
		return defaultRoute(wanName, coreAddr)
	})
}

// routeOn sets an interface up and routes a network to it. Own, if valid, is the interface's address.
func routeOn(name string, to netip.Prefix, own netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if own.IsValid() {
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(own, 32))}); err != nil {
			return fmt.Errorf("give %s its address: %w", name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	err = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to), Scope: netlink.SCOPE_LINK})
	if err != nil {
		return fmt.Errorf("route %v to %s: %w", to, name, err)
	}
	return nil
}
