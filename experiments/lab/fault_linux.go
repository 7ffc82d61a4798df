package lab

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What breaks in real networks, besides packets that are blocked: see Block. Each returns a function that mends it, if it
// can be mended, which may be called more than once.

// Lose drops percent of the UDP packets between the outside addresses of a and b at random, each way.
func (l *Lab) Lose(a, b string, percent int) (mend func() error, err error) {
	if percent < 1 || percent > 100 {
		return nil, fmt.Errorf("lab: lose %d %%: want 1 to 100", percent)
	}
	return l.dropBetween(a, b, append(udp(),
		&expr.Numgen{Register: 1, Modulus: 100, Type: unix.NFT_NG_RANDOM},
		// Register values are compared as bytes, so in network order.
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(uint32(percent))}))
}

// Reorder holds percent of the UDP packets through a host's NAT, both ways, back at random for 5 to 20 ms, so that later ones
// overtake them. The NAT must be one that runs outside of the kernel, as with the option "+timeout".
func (l *Lab) Reorder(host string, percent int, seed uint64) (mend func() error, err error) {
	if percent < 1 || percent > 100 {
		return nil, fmt.Errorf("lab: reorder %d %%: want 1 to 100", percent)
	}
	s, err := l.site(host)
	if err != nil {
		return nil, err
	}
	if s.user == nil {
		return nil, fmt.Errorf("lab: the NAT of %s, of kind %s, is the kernel's and cannot reorder: give it an option, as +timeout=2m", host, s.traits.Kind())
	}
	s.user.setReorder(percent, seed)
	return mender(func() error {
		s.user.setReorder(0, 0)
		return nil
	}), nil
}

// Narrow lowers the MTU of the path between the outside addresses of a and b, which must both have routers, to size bytes, each way.
// What asks the kernel for the path's MTU is told by ICMP; QUIC does not.
func (l *Lab) Narrow(a, b string, size int) (mend func() error, err error) {
	mend = func() error { return nil }
	for _, way := range [][2]string{{a, b}, {b, a}} {
		s, err := l.site(way[0])
		if err != nil {
			return nil, errors.Join(err, mend())
		}
		to, err := l.host(way[1])
		if err != nil {
			return nil, errors.Join(err, mend())
		}
		change := func(do func(*netlink.Route) error) error {
			return l.within(s.router, func() error {
				link, err := netlink.LinkByName(wanName)
				if err != nil {
					return err
				}
				route := &netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, MTU: size, MTULock: true,
					Dst: &net.IPNet{IP: to.PublicAddr.AsSlice(), Mask: net.CIDRMask(32, 32)}}
				if s.traits.MTU != mtu { // it knows nobody else
					route.Scope, route.Gw = netlink.SCOPE_UNIVERSE, coreAddr.AsSlice()
				}
				return do(route)
			})
		}
		if err := change(netlink.RouteAdd); err != nil {
			return nil, errors.Join(fmt.Errorf("lab: narrow the path from %s: %w", way[0], err), mend())
		}
		before := mend
		mend = func() error { return errors.Join(before(), change(netlink.RouteDel)) }
	}
	return mender(mend), nil
}

// dropBetween makes a chain of its own on the bridge.
func (l *Lab) dropBetween(a, b string, match []expr.Any) (func() error, error) {
	from, err := l.host(a)
	if err != nil {
		return nil, err
	}
	to, err := l.host(b)
	if err != nil {
		return nil, err
	}
	return l.drop(l.core, &nftables.Chain{Table: blockTable(), Hooknum: nftables.ChainHookForward}, [][]expr.Any{
		append(between(from.PublicAddr, to.PublicAddr), match...),
		append(between(to.PublicAddr, from.PublicAddr), match...),
	})
}

// between matches IPv4 packets on the bridge by source and destination.
func between(from, to netip.Addr) []expr.Any {
	return append(meta(expr.MetaKeyPROTOCOL, binaryutil.BigEndian.PutUint16(unix.ETH_P_IP)),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 8},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append(from.AsSlice(), to.AsSlice()...)})
}

// LoseBatches drops what a host sends in batches (UDP_SEGMENT) and lets single packets go: a network card whose segmentation
// is broken and does not say so.
func (l *Lab) LoseBatches(host string) (mend func() error, err error) {
	if _, err := l.host(host); err != nil {
		return nil, err
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "batches"}
	return l.drop(l.nodes[host], &nftables.Chain{Table: table, Hooknum: nftables.ChainHookOutput},
		[][]expr.Any{append(udp(), longerThan(mtu)...)})
}

// longerThan matches IPv4 packets by their length field. A batch that is still one packet to the kernel has the length of all of it.
func longerThan(size int) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpGt, Register: 1, Data: binaryutil.BigEndian.PutUint16(uint16(size))},
	}
}

// drop adds a chain of rules that drop what they match, and returns how to remove it.
func (l *Lab) drop(n *node, chain *nftables.Chain, rules [][]expr.Any) (func() error, error) {
	chain.Name = fmt.Sprintf("fault%d", l.faults.Add(1))
	chain.Type, chain.Priority = nftables.ChainTypeFilter, nftables.ChainPriorityFilter
	err := l.alter(n, func(c *nftables.Conn) {
		c.AddTable(chain.Table)
		c.AddChain(chain)
		for _, match := range rules {
			c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: append(match, verdict(expr.VerdictDrop)...)})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("lab: drop: %w", err)
	}
	return mender(func() error {
		return l.alter(n, func(c *nftables.Conn) {
			c.FlushChain(chain)
			c.DelChain(chain)
		})
	}), nil
}

// mender makes mend callable more than once, and content with a lab that is closed.
func mender(mend func() error) func() error {
	return sync.OnceValue(func() error {
		if err := mend(); !errors.Is(err, ErrClosed) {
			return err
		}
		return nil
	})
}

// alter changes the packet filter of a node.
func (l *Lab) alter(n *node, change func(*nftables.Conn)) error {
	return l.within(n, func() error {
		c, err := nftables.New()
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		change(c)
		return c.Flush()
	})
}

// within runs fn in the namespace of a node of a lab that is open.
func (l *Lab) within(n *node, fn func() error) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return ErrClosed
	}
	return n.do(fn)
}

// site returns what a host's outermost NAT is part of.
func (l *Lab) site(host string) (*site, error) {
	h, err := l.host(host)
	if err != nil {
		return nil, err
	}
	if s := l.sites[cmp.Or(h.With, host)]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("lab: host %q has no router: its NAT is %s", host, h.NAT)
}

// router returns the outermost NAT of a host.
func (l *Lab) router(host string) (*node, error) {
	s, err := l.site(host)
	if err != nil {
		return nil, err
	}
	return s.router, nil
}

// RebootNAT makes the NAT of a host forget all its mappings and connections, as a reboot does, at once.
func (l *Lab) RebootNAT(host string) error {
	s, err := l.site(host)
	if err != nil {
		return err
	}
	err = l.within(s.router, func() error {
		if s.user != nil {
			s.user.forget()
		}
		return netlink.ConntrackTableFlush(netlink.ConntrackTable)
	})
	if err != nil {
		return fmt.Errorf("lab: reboot the NAT of %s: %w", host, err)
	}
	return nil
}

// ChangePublicAddr gives the outside of a host's NAT another address, which it returns; mappings are lost. The old one is not
// used again. What is blocked by the old address stays so by that address only.
func (l *Lab) ChangePublicAddr(host string) (netip.Addr, error) {
	s, err := l.site(host)
	if err != nil {
		return netip.Addr{}, err
	}
	if s.user != nil || s.traits.MTU != mtu {
		return netip.Addr{}, fmt.Errorf("lab: the NAT of %s, of kind %s, cannot change its address", host, s.traits.Kind())
	}
	router := s.router
	h, err := l.host(host)
	if err != nil {
		return netip.Addr{}, err
	}
	n := l.faults.Add(1)
	if n > 50 {
		return netip.Addr{}, errors.New("lab: no more outside addresses")
	}
	old, fresh := h.PublicAddr, netip.AddrFrom4([4]byte{198, 51, 100, byte(255 - n)})
	err = l.within(router, func() error {
		if err := readdress(wanName, old, fresh, coreAddr); err != nil {
			return err
		}
		if err := l.moved(old, fresh); err != nil {
			return err
		}
		return netlink.ConntrackTableFlush(netlink.ConntrackTable)
	})
	if err != nil {
		return fresh, fmt.Errorf("lab: public address of %s: %w", host, err)
	}
	l.setHost(host, func(h *HostInfo) { h.PublicAddr = fresh })
	return fresh, nil
}

// ChangeAddr gives a host behind a NAT another address in its network, which it returns, as when it moves to another
// network whose router it was told of at the same moment.
func (l *Lab) ChangeAddr(host string) (netip.Addr, error) {
	s, err := l.site(host)
	if err != nil {
		return netip.Addr{}, err
	}
	if s.shared {
		return netip.Addr{}, fmt.Errorf("lab: host %s cannot change its address: others are in its network", host)
	}
	h, err := l.host(host)
	if err != nil {
		return netip.Addr{}, err
	}
	fresh := h.Addr.Next()
	gateway := netip.AddrFrom4([4]byte{10, h.Addr.As4()[1], 0, 1})
	err = l.within(l.nodes[host], func() error {
		if err := readdress(hostName, h.Addr, fresh, gateway); err != nil {
			return err
		}
		return l.moved(h.Addr, fresh)
	})
	if err != nil {
		return fresh, fmt.Errorf("lab: address of %s: %w", host, err)
	}
	l.setHost(host, func(h *HostInfo) { h.Addr = fresh })
	return fresh, nil
}

func (l *Lab) setHost(host string, set func(*HostInfo)) {
	l.hostsMu.Lock()
	defer l.hostsMu.Unlock()
	for i := range l.hosts {
		if l.hosts[i].Name == host {
			set(&l.hosts[i])
		}
	}
}

// readdress replaces an interface's address and with it the default route.
func readdress(name string, old, fresh, gateway netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	net24 := func(a netip.Addr) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	}
	if err := netlink.AddrDel(link, net24(old)); err != nil {
		return fmt.Errorf("take %v from %s: %w", old, name, err)
	}
	return configure(name, fresh, gateway)
}

// NarrowLine sets the MTU of the line between a host's NAT and the internet, both ways.
func (l *Lab) NarrowLine(host string, size int) (mend func() error, err error) {
	router, err := l.router(host)
	if err != nil {
		return nil, err
	}
	set := func(size int) error {
		return l.within(router, func() error {
			// What comes from outside is measured on its way on: the core passes batches whatever their size.
			for _, name := range []string{wanName, lanName} {
				link, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				if err := netlink.LinkSetMTU(link, size); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := set(size); err != nil {
		return nil, fmt.Errorf("lab: narrow the line of %s: %w", host, err)
	}
	return mender(func() error { return set(mtu) }), nil
}
