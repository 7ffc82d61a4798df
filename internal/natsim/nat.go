// Package natsim simulates networks with NATs in virtual time, for tests: hosts on private networks
// behind NATs of every kind of RFC 4787, or on the public network, and delay and loss between them.
//
// It is pure: no sockets, no clock, no goroutines. A Network is a queue of events; Run takes them in
// order of their times and moves the network's own time. Randomness comes from a seed, so that a run
// can be repeated. It never looks into packets.
package natsim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Behaviour is how a NAT's mapping or filter depends on the far end (RFC 4787, sections 4.1 and 5).
type Behaviour uint8

// The behaviours.
const (
	EndpointIndependent Behaviour = iota
	AddressDependent
	AddressPortDependent
)

// String returns the short name: EI, AD or APD.
func (b Behaviour) String() string { return [...]string{"EI", "AD", "APD"}[b] }

// Kind says how a NAT behaves. The zero value is a "full cone" that numbers ports at random.
type Kind struct {
	Mapping   Behaviour
	Filtering Behaviour
	// Preserve keeps the inner port towards every far end, as long as no other host holds it (Linux
	// does this); otherwise each mapping has a random port of its own.
	Preserve bool
	Hairpin  bool          // packets from inside to a mapped address come back in
	Blocked  bool          // nothing passes
	Timeout  time.Duration // of a mapping that nothing is sent through; 0 = 2 minutes
}

// Stable reports whether a host's mapped address is the same for every far end.
func (k Kind) Stable() bool { return k.Mapping == EndpointIndependent || k.Preserve }

// String describes k, such as "EI/APD+p".
func (k Kind) String() string {
	if k.Blocked {
		return "blocked"
	}
	s := fmt.Sprintf("%v/%v", k.Mapping, k.Filtering)
	if k.Preserve {
		s += "+p"
	}
	return s
}

// NAT translates between one public address and the hosts behind it.
type NAT struct {
	kind     Kind
	public   netip.Addr
	rng      *rand.Rand
	mappings []*mapping
	contacts map[contact]time.Time // when an inner endpoint last sent to a far one
}

type mapping struct {
	inner netip.AddrPort
	far   netip.AddrPort // as much of it as the mapping depends on
	port  uint16
	used  time.Time
}

type contact struct{ inner, far netip.AddrPort }

// NewNAT returns a NAT with one public address.
func NewNAT(k Kind, public netip.Addr, rng *rand.Rand) *NAT {
	if k.Timeout == 0 {
		k.Timeout = 2 * time.Minute
	}
	return &NAT{kind: k, public: public, rng: rng, contacts: make(map[contact]time.Time)}
}

// part keeps of a far endpoint what b depends on.
func (b Behaviour) part(far netip.AddrPort) netip.AddrPort {
	switch b {
	case EndpointIndependent:
		return netip.AddrPort{}
	case AddressDependent:
		return netip.AddrPortFrom(far.Addr(), 0)
	}
	return far
}

// Outbound translates the source of a packet from inside; false means that the NAT drops it.
func (n *NAT) Outbound(now time.Time, inner, far netip.AddrPort) (netip.AddrPort, bool) {
	if n.kind.Blocked {
		return netip.AddrPort{}, false
	}
	n.expire(now)
	part := n.kind.Mapping.part(far)
	var m *mapping
	for _, o := range n.mappings {
		if o.inner == inner && o.far == part {
			m = o
		}
	}
	if m == nil {
		m = &mapping{inner: inner, far: part, port: n.choosePort(inner)}
		n.mappings = append(n.mappings, m)
	}
	m.used = now
	n.contacts[contact{inner, n.kind.Filtering.part(far)}] = now
	return netip.AddrPortFrom(n.public, m.port), true
}

// Inbound translates the destination port of a packet from outside; false means that it is filtered.
func (n *NAT) Inbound(now time.Time, from netip.AddrPort, port uint16) (netip.AddrPort, bool) {
	n.expire(now)
	for _, m := range n.mappings {
		if m.port != port {
			continue
		}
		if n.kind.Filtering == EndpointIndependent {
			return m.inner, true
		}
		if _, ok := n.contacts[contact{m.inner, n.kind.Filtering.part(from)}]; ok {
			return m.inner, true
		}
	}
	return netip.AddrPort{}, false
}

// Forget drops all mappings, as a NAT that restarts does.
func (n *NAT) Forget() {
	n.mappings = nil
	clear(n.contacts)
}

func (n *NAT) choosePort(inner netip.AddrPort) uint16 {
	if n.kind.Preserve && !n.taken(inner.Port(), inner) {
		return inner.Port()
	}
	for {
		if p := uint16(1024 + n.rng.IntN(1<<16-1024)); !n.taken(p, netip.AddrPort{}) {
			return p
		}
	}
}

func (n *NAT) taken(port uint16, except netip.AddrPort) bool {
	for _, m := range n.mappings {
		if m.port == port && m.inner != except {
			return true
		}
	}
	return false
}

func (n *NAT) expire(now time.Time) {
	kept := n.mappings[:0]
	for _, m := range n.mappings {
		if now.Sub(m.used) < n.kind.Timeout {
			kept = append(kept, m)
		}
	}
	n.mappings = kept
	for c, t := range n.contacts {
		if now.Sub(t) >= n.kind.Timeout {
			delete(n.contacts, c)
		}
	}
}
