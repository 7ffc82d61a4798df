package punch

import (
	"fmt"
	"net/netip"
)

// Mapping is how a NAT chooses the port under which others see a socket (RFC 4787, 4.1), as far as it
// matters for meeting another instance. The numbers travel in offers, answers and CALLs; one that a
// receiver does not know means MappingUnknown.
type Mapping uint8

// The mappings.
const (
	MappingUnknown    Mapping = iota // STUN did not tell, or the peer is too old to say
	MappingBlocked                   // no UDP passes
	MappingStable                    // the same port towards everybody, or no NAT at all
	MappingSequential                // "symmetric": a port for each destination, the next one NAT.Step on
	MappingRandom                    // "symmetric": a port for each destination, any
	mappings
)

// NAT is what one side knows of the NAT it is behind, and tells the other. Its zero value is "nothing".
type NAT struct {
	Mapping Mapping
	Step    int8           // of MappingSequential: difference of the ports of two new mappings
	Public  netip.AddrPort // an address that STUN saw; with MappingStable all see this one
}

// known is n without what makes no sense to this version.
func (n NAT) known() NAT {
	n.Public = unmap(n.Public)
	if n.Mapping >= mappings || n.Mapping == MappingSequential && n.Step == 0 {
		n.Mapping = MappingUnknown
	}
	if n.Mapping == MappingUnknown || n.Mapping == MappingBlocked {
		return NAT{Mapping: n.Mapping}
	}
	if n.Public.Port() == 0 {
		return NAT{}
	}
	if n.Mapping != MappingSequential {
		n.Step = 0
	}
	return n
}

// String describes a NAT in a few words, such as "symmetric with random ports".
func (n NAT) String() string {
	switch n.Mapping {
	case MappingBlocked:
		return "no UDP at all"
	case MappingStable:
		return "one port for all destinations"
	case MappingSequential:
		return fmt.Sprintf("symmetric with ports %d apart", n.Step)
	case MappingRandom:
		return "symmetric with random ports"
	}
	return "not known"
}

// Method is how two sides try to meet.
type Method uint8

// The methods. All but MethodNone start with MethodPlain, which also finds out whether a filter is lenient enough for it.
const (
	MethodPlain    Method = iota // each probes the candidates of the other
	MethodPredict                // ... and the ports that a sequential NAT must have chosen
	MethodBirthday               // ... and random ports, until one is among hundreds of mappings
	MethodNone                   // nothing that is worth its packets
)

// String returns the method in one word.
func (m Method) String() string { return [...]string{"plain", "predict", "birthday", "none"}[m] }

// MethodFor says what two sides behind such NATs can do, whatever the NATs filter:
//
//	             stable    sequential  random    blocked  unknown
//	stable       plain     predict     birthday  none     plain
//	sequential   predict   predict     none      none     plain
//	random       birthday  none        none      none     plain
//	blocked      none      none        none      none     none
//	unknown      plain     plain       plain     none     plain
//
// Random with random would take some 54,000 probes for an even chance. Random with sequential is no
// better: the sequential side must send to a port that nobody can know, and each try uses up one of its own.
func MethodFor(a, b NAT) Method {
	if a.Mapping > b.Mapping {
		a, b = b, a
	}
	switch {
	case a.Mapping == MappingBlocked || b.Mapping == MappingBlocked:
		return MethodNone
	case a.Mapping == MappingUnknown || b.Mapping == MappingStable:
		return MethodPlain
	case b.Mapping == MappingSequential:
		return MethodPredict
	case a.Mapping == MappingStable:
		return MethodBirthday
	}
	return MethodNone
}

// hopeless says why two sides with MethodNone cannot meet.
func hopeless(here, there NAT) string {
	switch {
	case here.Mapping == MappingBlocked:
		return "UDP is blocked here"
	case there.Mapping == MappingBlocked:
		return "UDP is blocked at the peer"
	case here.Mapping == there.Mapping:
		return fmt.Sprintf("both NATs are %v", here)
	}
	return fmt.Sprintf("the NAT here is %v, the peer's %v", here, there)
}
