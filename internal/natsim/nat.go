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
	"slices"
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

// Kind says how a NAT behaves. The zero value is a "full cone" that takes ports at random.
type Kind struct {
	Mapping   Behaviour
	Filtering Behaviour
	// Preserve keeps the inner port towards every far end, as long as no other host holds it (Linux
	// does this); otherwise each mapping has a random port of its own.
	Preserve bool
	// Step, where not 0, makes ports predictable: a mapping that does not keep the inner port takes the
	// port of the last one plus Step, which may be negative.
	Step int
	// PerMapping lets in by a mapping only whom the host sent to through that mapping, as Linux does;
	// otherwise whom it sent to through any (RFC 4787 does not ask for more).
	PerMapping bool
	Hairpin    bool          // packets from inside to a mapped address come back in
	Blocked    bool          // nothing passes
	Timeout    time.Duration // of a mapping that nothing is sent through; 0 = 2 minutes
}

// Stable reports whether a host's mapped address is the same for every far end.
func (k Kind) Stable() bool { return k.Mapping == EndpointIndependent || k.Preserve }

// String describes k, such as "EI/APD+p" (preserves ports) or "APD/APD+1" (Step is 1).
func (k Kind) String() string {
	if k.Blocked {
		return "blocked"
	}
	s := fmt.Sprintf("%v/%v", k.Mapping, k.Filtering)
	if k.Preserve {
		s += "+p"
	}
	if k.Step != 0 {
		s += fmt.Sprintf("%+d", k.Step)
	}
	return s
}

// NAT translates between one public address and the hosts behind it.
type NAT struct {
	kind     Kind
	public   netip.Addr
	rng      *rand.Rand
	last     int // port that Step goes on from
	mappings map[flow]*mapping
	ports    map[uint16][]*mapping // several at one port only with Preserve, and then of one host
	contacts map[contact]time.Time // when something was sent last
	swept    time.Time
}

// flow is an inner endpoint and as much of the far one as the mapping depends on.
type flow struct{ inner, far netip.AddrPort }

type mapping struct {
	flow flow
	port uint16
	used time.Time
}

// contact is whom an inner endpoint sent to, as far as the filter depends on it, and by which mapped
// port if that matters.
type contact struct {
	inner, far netip.AddrPort
	port       uint16
}

// NewNAT returns a NAT with one public address.
func NewNAT(k Kind, public netip.Addr, rng *rand.Rand) *NAT {
	if k.Timeout == 0 {
		k.Timeout = 2 * time.Minute
	}
	n := &NAT{kind: k, public: public, rng: rng}
	if k.Step != 0 {
		n.last = firstPort + rng.IntN(portCount)
	}
	n.Forget()
	return n
}

// Mapped ports are taken from 1024 to 65535.
const (
	firstPort = 1024
	portCount = 1<<16 - firstPort
)

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

func (n *NAT) contact(inner, far netip.AddrPort, port uint16) contact {
	if !n.kind.PerMapping {
		port = 0
	}
	return contact{inner, n.kind.Filtering.part(far), port}
}

// Outbound translates the source of a packet from inside; false means that the NAT drops it.
func (n *NAT) Outbound(now time.Time, inner, far netip.AddrPort) (netip.AddrPort, bool) {
	if n.kind.Blocked {
		return netip.AddrPort{}, false
	}
	n.expire(now)
	f := flow{inner, n.kind.Mapping.part(far)}
	m := n.mappings[f]
	if m == nil || !n.fresh(now, m.used) {
		n.drop(m)
		port, ok := n.choosePort(now, inner)
		if !ok {
			return netip.AddrPort{}, false
		}
		m = &mapping{flow: f, port: port}
		n.mappings[f] = m
		n.ports[port] = append(n.ports[port], m)
	}
	m.used = now
	n.contacts[n.contact(inner, far, m.port)] = now
	return netip.AddrPortFrom(n.public, m.port), true
}

// Inbound translates the destination port of a packet from outside; false means that it is filtered.
func (n *NAT) Inbound(now time.Time, from netip.AddrPort, port uint16) (netip.AddrPort, bool) {
	for _, m := range n.ports[port] {
		if !n.fresh(now, m.used) {
			continue
		}
		if n.kind.Filtering == EndpointIndependent {
			return m.flow.inner, true
		}
		if at, ok := n.contacts[n.contact(m.flow.inner, from, port)]; ok && n.fresh(now, at) {
			return m.flow.inner, true
		}
	}
	return netip.AddrPort{}, false
}

// Forget drops all mappings, as a NAT that restarts does.
func (n *NAT) Forget() {
	n.mappings = make(map[flow]*mapping)
	n.ports = make(map[uint16][]*mapping)
	n.contacts = make(map[contact]time.Time)
}

// Mappings counts the mappings that have not timed out: what a NAT's table must hold.
func (n *NAT) Mappings(now time.Time) int {
	count := 0
	for _, m := range n.mappings {
		if n.fresh(now, m.used) {
			count++
		}
	}
	return count
}

// choosePort is false when all ports are taken.
func (n *NAT) choosePort(now time.Time, inner netip.AddrPort) (uint16, bool) {
	if n.kind.Preserve && !n.taken(now, inner.Port(), inner) {
		return inner.Port(), true
	}
	step := n.kind.Step
	for range 4 * portCount {
		if step == 0 {
			n.last = firstPort + n.rng.IntN(portCount)
		} else {
			n.last = firstPort + ((n.last-firstPort+step)%portCount+portCount)%portCount
		}
		if !n.taken(now, uint16(n.last), netip.AddrPort{}) {
			return uint16(n.last), true
		}
	}
	return 0, false
}

func (n *NAT) taken(now time.Time, port uint16, except netip.AddrPort) bool {
	for _, m := range n.ports[port] {
		if m.flow.inner != except && n.fresh(now, m.used) {
			return true
		}
	}
	return false
}

func (n *NAT) fresh(now, used time.Time) bool { return now.Sub(used) < n.kind.Timeout }

// expire frees what has timed out, now and then: nothing that has is ever used.
func (n *NAT) expire(now time.Time) {
	if now.Sub(n.swept) < n.kind.Timeout/4 {
		return
	}
	n.swept = now
	for _, m := range n.mappings {
		if !n.fresh(now, m.used) {
			n.drop(m)
		}
	}
	for c, t := range n.contacts {
		if !n.fresh(now, t) {
			delete(n.contacts, c)
		}
	}
}

func (n *NAT) drop(m *mapping) {
	if m == nil {
		return
	}
	delete(n.mappings, m.flow)
	if n.ports[m.port] = slices.DeleteFunc(n.ports[m.port], func(o *mapping) bool { return o == m }); len(n.ports[m.port]) == 0 {
		delete(n.ports, m.port)
	}
}
