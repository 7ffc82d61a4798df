package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// segment is a cable or a bridge, with the interfaces that it joins.
//
// They are told of each other, by permanent entries, rather than left to ask (ARP, neighbour discovery): the kernel has
// one table of neighbours for all namespaces of the machine, and beyond gc_thresh3, 1,024 of them, it drops packets, those of
// other labs too. Hosts that all talk to all are so many soon. Permanent entries do not count (since Linux 5.0).
type segment struct {
	bridge *node // has the bridge; nil if it is a cable
	ends   []end
}

// end is an interface on a segment, with the address by which the others know it.
type end struct {
	node *node
	name string
	addr netip.Addr
	port string // of the bridge, that it is behind; "" if none
}

// segment makes a segment of the lab, of a cable if bridge is nil.
func (l *Lab) segment(bridge *node, ends ...end) *segment {
	s := &segment{bridge: bridge, ends: ends}
	l.segments = append(l.segments, s)
	return s
}

// introduce tells all ends, and the bridge, of all.
func (s *segment) introduce() error {
	macs := make([]net.HardwareAddr, len(s.ends))
	for i, e := range s.ends {
		err := e.node.do(func() error {
			link, err := netlink.LinkByName(e.name)
			if err == nil {
				macs[i] = link.Attrs().HardwareAddr
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("find %s: %w", e.name, err)
		}
	}
	for i, e := range s.ends {
		if err := e.node.do(func() error { return s.tell(i, macs) }); err != nil {
			return fmt.Errorf("neighbours of %v: %w", e.addr, err)
		}
	}
	if s.bridge == nil {
		return nil
	}
	if err := s.bridge.do(func() error { return s.tellBridge(macs) }); err != nil {
		return fmt.Errorf("neighbours of the bridge: %w", err)
	}
	return nil
}

// tell gives the i-th end, whose namespace the thread is in, its neighbours.
func (s *segment) tell(i int, macs []net.HardwareAddr) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(s.ends[i].name)
	if err != nil {
		return err
	}
	for j, e := range s.ends {
		if j == i {
			continue
		}
		err := h.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: e.addr.AsSlice(), HardwareAddr: macs[j], State: netlink.NUD_PERMANENT})
		if err != nil {
			return err
		}
	}
	return nil
}

// tellBridge has the bridge know who is behind which port: it has no questions to learn from, and would send to all ports
// what is for somebody who has never sent.
func (s *segment) tellBridge(macs []net.HardwareAddr) error {
	for i, e := range s.ends {
		if e.port == "" {
			continue
		}
		link, err := netlink.LinkByName(e.port)
		if err != nil {
			return err
		}
		// To bridges this state means static.
		err = netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
			HardwareAddr: macs[i], State: netlink.NUD_NOARP})
		if err != nil {
			return err
		}
	}
	return nil
}

// knowSelf makes the one neighbour permanent that lo, or a TUN device, has for all addresses.
func knowSelf(link netlink.Link) error {
	err := netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.IPv4zero, HardwareAddr: link.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT})
	if err != nil {
		return fmt.Errorf("neighbour of %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// moved is to be called when an interface has another address: the others then ask for the old one, in vain. The kernel has
// forgotten all that the interface knew, too.
func (l *Lab) moved(old, fresh netip.Addr) error {
	l.moving.Lock()
	defer l.moving.Unlock()
	for _, s := range l.segments {
		i := slices.IndexFunc(s.ends, func(e end) bool { return e.addr == old })
		if i < 0 {
			continue
		}
		s.ends[i].addr = fresh
		for j, e := range s.ends {
			if j == i {
				continue
			}
			if err := e.node.do(func() error { return forget(e.name, old) }); err != nil {
				return fmt.Errorf("%v forgets %v: %w", e.addr, old, err)
			}
		}
		return s.introduce()
	}
	return fmt.Errorf("nobody has %v", old)
}

func forget(name string, neighbour netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: neighbour.AsSlice()})
}
