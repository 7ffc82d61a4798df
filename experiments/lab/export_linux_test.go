package lab

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Namespaces returns the handles of all namespaces of l, for tests that watch them go.
func (l *Lab) Namespaces() []netns.NsHandle {
	all := []netns.NsHandle{l.core.ns}
	for _, n := range l.nodes {
		all = append(all, n.ns)
	}
	for _, n := range l.routers {
		all = append(all, n.ns)
	}
	return all
}

// Learned tells the neighbours that the kernel has learned by itself in the namespaces of l.
func (l *Lab) Learned() (learned []string, err error) {
	for _, ns := range l.Namespaces() {
		err = errors.Join(err, (&node{ns}).do(func() error {
			all, err := netlink.NeighList(0, netlink.FAMILY_ALL)
			for _, n := range all {
				if n.State != netlink.NUD_PERMANENT && !n.IP.IsMulticast() {
					link, _ := netlink.LinkByIndex(n.LinkIndex)
					learned = append(learned, fmt.Sprint(link.Attrs().Name, " ", n.String()))
				}
			}
			return err
		}))
	}
	return learned, err
}

// OnThread is onThread.
func OnThread(fn func() error) error { return onThread(fn) }

// DropSearches makes a host's router deaf to UPnP searches that are not sent to the multicast group.
func (l *Lab) DropSearches(host string) (mend func() error, err error) {
	s, err := l.site(host)
	if err != nil {
		return nil, err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "lab"}
	chain := &nftables.Chain{Table: t, Hooknum: nftables.ChainHookInput}
	match := append(udp(),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(1900)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: s.inside(1).AsSlice()})
	return l.drop(s.router, chain, [][]expr.Any{match})
}
