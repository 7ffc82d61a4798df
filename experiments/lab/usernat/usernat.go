// Package usernat is a NAT of any kind of RFC 4787 for UDP in IPv4, as a function on packets: it decides by a NAT of
// package natsim, the one that the simulations use, and rewrites packets accordingly, ICMP errors about them too. So the
// lab and the simulations cannot disagree about what a kind of NAT is.
//
// It is pure: no devices, no clock, no goroutines. It takes no part of TCP, which the kernel translates, and drops
// fragments (RFC 4787 REQ-14 is not met): QUIC sends none.
package usernat

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/fnwire/fnwire/internal/natsim"
)

// Config says which NAT to be.
type Config struct {
	Kind   natsim.Kind
	Public netip.Addr   // the outside address
	Inside netip.Prefix // where the hosts behind it are
	Rand   *rand.Rand   // for ports
}

// NAT translates packets. It is for one goroutine.
type NAT struct {
	cfg Config
	nat *natsim.NAT
}

// New returns a NAT without mappings.
func New(cfg Config) *NAT {
	return &NAT{cfg: cfg, nat: natsim.NewNAT(cfg.Kind, cfg.Public, cfg.Rand)}
}

// Forget drops all mappings, as a NAT that restarts does.
func (n *NAT) Forget() { n.nat.Forget() }

// Header layouts of RFC 791, 768 and 792.
const (
	ipHeaderLeast = 20
	ipFragment    = 6
	ipProtocol    = 9
	ipChecksum    = 10
	ipSource      = 12
	ipDestination = 16

	udpSource      = 0
	udpDestination = 2
	udpChecksum    = 6
	udpHeader      = 8

	icmpHeader = 8

	protocolICMP = 1
	protocolUDP  = 17
)

// Translate rewrites an IPv4 packet in place and reports whether it is to be sent on. The packet may come from either side.
func (n *NAT) Translate(now time.Time, packet []byte) bool {
	header, payload, ok := split(packet)
	if !ok || binary.BigEndian.Uint16(header[ipFragment:])&0x3fff != 0 { // more fragments, or not the first
		return false
	}
	switch header[ipProtocol] {
	case protocolUDP:
		return len(payload) >= udpHeader && n.udp(now, header, payload)
	case protocolICMP:
		return n.icmp(now, header, payload)
	}
	return false
}

// split takes an IPv4 packet apart; false means that it is none.
func split(packet []byte) (header, payload []byte, ok bool) {
	if len(packet) < ipHeaderLeast || packet[0]>>4 != 4 {
		return nil, nil, false
	}
	n := int(packet[0]&0x0f) * 4
	if n < ipHeaderLeast || n > len(packet) {
		return nil, nil, false
	}
	return packet[:n], packet[n:], true
}

func addr(header []byte, at int) netip.Addr { return netip.AddrFrom4([4]byte(header[at:])) }

func port(payload []byte, at int) uint16 { return binary.BigEndian.Uint16(payload[at:]) }

// udp translates what goes out, what comes in, and what does both: a hairpin, whose source is the mapped one (REQ-9).
func (n *NAT) udp(now time.Time, header, payload []byte) bool {
	src := netip.AddrPortFrom(addr(header, ipSource), port(payload, udpSource))
	dst := netip.AddrPortFrom(addr(header, ipDestination), port(payload, udpDestination))
	out, in := n.cfg.Inside.Contains(src.Addr()), dst.Addr() == n.cfg.Public
	if out == in && !(in && n.cfg.Kind.Hairpin) {
		return false
	}
	if out {
		mapped, ok := n.nat.Outbound(now, src, dst)
		if !ok {
			return false
		}
		rewrite(header, ipSource, payload, udpSource, mapped)
		src = mapped
	}
	if in {
		inner, ok := n.nat.Inbound(now, src, dst.Port())
		if !ok {
			return false
		}
		rewrite(header, ipDestination, payload, udpDestination, inner)
	}
	return true
}

// icmp translates an error from outside about a packet that has gone out: RFC 5508, section 4.
func (n *NAT) icmp(now time.Time, header, payload []byte) bool {
	const unreachable, timeExceeded, parameterProblem = 3, 11, 12
	if len(payload) < icmpHeader || addr(header, ipDestination) != n.cfg.Public {
		return false
	}
	if t := payload[0]; t != unreachable && t != timeExceeded && t != parameterProblem {
		return false
	}
	about, rest, ok := split(payload[icmpHeader:])
	if !ok || about[ipProtocol] != protocolUDP || len(rest) < 4 || addr(about, ipSource) != n.cfg.Public {
		return false
	}
	far := netip.AddrPortFrom(addr(about, ipDestination), port(rest, udpDestination))
	inner, ok := n.nat.Inbound(now, far, port(rest, udpSource)) // whom the packet went to may answer
	if !ok {
		return false
	}
	rewrite(about, ipSource, rest, udpSource, inner)
	replace(header, ipChecksum, header, ipDestination, inner.Addr().AsSlice())
	binary.BigEndian.PutUint16(payload[2:], 0)
	binary.BigEndian.PutUint16(payload[2:], ^sum(payload))
	return true
}

// rewrite puts an endpoint into an IPv4 header and a UDP header, of which the end may be cut off.
func rewrite(header []byte, addrAt int, udp []byte, portAt int, to netip.AddrPort) {
	old := [6]byte{}
	copy(old[:], header[addrAt:addrAt+4])
	copy(old[4:], udp[portAt:portAt+2])
	replace(header, ipChecksum, header, addrAt, to.Addr().AsSlice())
	binary.BigEndian.PutUint16(udp[portAt:], to.Port())
	if len(udp) < udpHeader {
		return
	}
	if check := udp[udpChecksum:udpHeader]; check[0] != 0 || check[1] != 0 { // else the sender made none
		var fresh [6]byte
		copy(fresh[:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(fresh[4:], to.Port())
		if update(check, old[:], fresh[:]); check[0] == 0 && check[1] == 0 {
			check[0], check[1] = 0xff, 0xff
		}
	}
}

// replace overwrites bytes of b and puts the checksum at checkAt of header right.
func replace(header []byte, checkAt int, b []byte, at int, fresh []byte) {
	update(header[checkAt:checkAt+2], b[at:at+len(fresh)], fresh)
	copy(b[at:], fresh)
}

// update changes an Internet checksum as the bytes it covers change (RFC 1624, equation 3); an even number of them.
func update(check, old, fresh []byte) {
	s := uint32(^binary.BigEndian.Uint16(check))
	for i := 0; i < len(old); i += 2 {
		s += uint32(^binary.BigEndian.Uint16(old[i:])) + uint32(binary.BigEndian.Uint16(fresh[i:]))
	}
	binary.BigEndian.PutUint16(check, ^fold(s))
}

// sum is the one's complement sum of b (RFC 1071).
func sum(b []byte) uint16 {
	var s uint32
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return fold(s)
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
