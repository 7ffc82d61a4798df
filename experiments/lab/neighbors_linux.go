package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// outward is an interface on the internet of the lab.
type outward struct {
	node *node
	name string
	addr netip.Addr
	mac  net.HardwareAddr
}

// noteOutward notes the interface of a node that has just been plugged in.
func (l *Lab) noteOutward(n *node, name string, addr netip.Addr) error {
	return n.do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		l.outward = append(l.outward, outward{n, name, addr, link.Attrs().HardwareAddr})
		return nil
	})
}

// introduce tells those on the internet of the lab the hardware addresses of all others. The kernel has room for 1,024 neighbors that it was not told of,
// in all namespaces of the machine together, and drops packets for others: 33 hosts that all talk to one another are more.
func (l *Lab) introduce() error {
	for _, from := range l.outward {
		err := from.node.do(func() error {
			h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
			if err != nil {
				return err
			}
			defer h.Close()
			link, err := h.LinkByName(from.name)
			if err != nil {
				return err
			}
			for _, to := range l.outward {
				if to.addr == from.addr {
					continue
				}
				err := h.NeighSet(&netlink.Neigh{
					LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: to.addr.AsSlice(), HardwareAddr: to.mac,
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("neighbors of %v: %w", from.addr, err)
		}
	}
	return nil
}
