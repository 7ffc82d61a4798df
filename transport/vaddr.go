package transport

import (
	"crypto/rand"
	"net"

	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/internal/ident"
)

// QUIC never sees a real address. Each peer has the virtual address
//
//	[fd66:6e77:6972:6500:SSSS:SSSS:SSSS:SSSS]:G
//
// where S is the peer's ident.Short and G, the port, counts the paths that the peer pair has had:
// generation 1 is the relay, and each direct path that is nominated gets the next number, from 2 on.
// A new generation looks to QUIC like a new path, so it validates it and resets its estimates; a
// fall-back to the relay keeps the generation, so QUIC notices nothing.
const relayGeneration = 1

var virtualPrefix = [8]byte{0xfd, 'f', 'n', 'w', 'i', 'r', 'e', 0}

func virtualAddr(s ident.Short, generation uint16) *net.UDPAddr {
	ip := make(net.IP, 0, net.IPv6len)
	ip = append(ip, virtualPrefix[:]...)
	ip = append(ip, s[:]...)
	return &net.UDPAddr{IP: ip, Port: int(generation)}
}

// parseVirtual is the inverse of virtualAddr.
func parseVirtual(a *net.UDPAddr) (s ident.Short, generation uint16, ok bool) {
	if len(a.IP) != net.IPv6len || [8]byte(a.IP[:8]) != virtualPrefix {
		return s, 0, false
	}
	return ident.Short(a.IP[8:]), uint16(a.Port), true
}

// Class says which paths a link may use. Links of different classes between two instances are
// different QUIC connections.
type Class uint8

// The classes. Their numbers travel in offers and connection IDs.
const (
	Auto       Class = iota // relay at once, direct as soon as possible
	DirectOnly              // never over a relay
	RelayOnly               // never direct
	classes
)

// String returns the word that flags and logs use.
func (c Class) String() string {
	switch c {
	case Auto:
		return "auto"
	case DirectOnly:
		return "direct"
	case RelayOnly:
		return "relay"
	default:
		return "invalid"
	}
}

const connIDLen = 8

// classIDs makes connection IDs that tell the class in the two low bits of their first byte, so that
// the hub can hand a datagram to the right quic.Transport without keeping any state for it.
type classIDs struct{ class Class }

func (g classIDs) GenerateConnectionID() (quic.ConnectionID, error) {
	var b [connIDLen]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[0] = b[0]&^3 | byte(g.class)
	return quic.ConnectionIDFromBytes(b[:]), nil
}

func (g classIDs) ConnectionIDLen() int { return connIDLen }

// classOf tells the class of a QUIC packet (RFC 9000, 17.2 and 17.3). A short header carries a
// connection ID of the receiver, a long header one of the sender behind that of the receiver; both
// are made by classIDs. The receiver's in a client's first packets is random and of no use.
func classOf(b []byte) (Class, bool) {
	if len(b) < 1+connIDLen {
		return 0, false
	}
	id := b[1]
	if b[0]&0x80 != 0 { // flags, 4 bytes version, length, destination ID, length, source ID
		if len(b) < 7 {
			return 0, false
		}
		src := 6 + int(b[5])
		if len(b) < src+2 || b[src] != connIDLen {
			return 0, false
		}
		id = b[src+1]
	}
	c := Class(id & 3)
	return c, c < classes
}

// isLongHeader reports whether b starts a QUIC long header packet, as in a handshake.
func isLongHeader(b []byte) bool { return len(b) > 0 && b[0]&0x80 != 0 }

// The first byte tells what a datagram on the instance's socket is.
const (
	firstSTUN     = 0x00 // ..0x03, RFC 8489
	firstPunch    = 0x10 // ..0x1f, package punch
	firstRelay    = 0x20 // ..0x2f, package relay; 0x30..0x3f is for package pieces
	firstQUIC     = 0x40 // ..0xff, RFC 9000 fixed bit or long header
	lastSTUN      = 0x03
	lastPunch     = 0x1f
	lastRelay     = 0x2f
	maxPacketSize = 1420 // see port.WriteMsgUDP
)
