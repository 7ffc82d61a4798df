package punch

import (
	"net/netip"
	"slices"
)

// usable reports whether a datagram may be sent to a because the peer named it or seems to be
// there. Loopback and IPv4 link-local addresses are taken only if we are there ourselves.
func (m *Machine) usable(a netip.AddrPort) bool {
	ip := a.Addr()
	switch {
	case !a.IsValid(), a.Port() == 0, ip.Zone() != "", ip.Is4In6(),
		ip.IsUnspecified(), ip.IsMulticast(), ip.Is6() && ip.IsLinkLocalUnicast():
		return false
	case ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240): // this network, reserved, broadcast
		return false
	case ip.IsLoopback():
		return m.hasLocal(netip.Addr.IsLoopback) && !slices.Contains(m.local, a)
	case ip.IsLinkLocalUnicast():
		return m.hasLocal(netip.Addr.IsLinkLocalUnicast) && !slices.Contains(m.local, a)
	}
	return !slices.Contains(m.local, a)
}

func (m *Machine) hasLocal(is func(netip.Addr) bool) bool {
	return slices.ContainsFunc(m.local, func(l netip.AddrPort) bool { return is(l.Addr()) })
}

// sameNetwork reports whether a looks like a neighbour: a private IPv4 address in the /24, or an IPv6
// address in the /64, of one of our own. Public IPv4 addresses do not count: two instances behind one
// NAT share theirs, and that path goes through the NAT twice.
func (m *Machine) sameNetwork(a netip.AddrPort) bool {
	ip, bits := a.Addr(), 64
	if ip.Is4() {
		bits = 24
		if !ip.IsPrivate() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			return false
		}
	}
	network, err := ip.Prefix(bits)
	return err == nil && m.hasLocal(network.Contains)
}
