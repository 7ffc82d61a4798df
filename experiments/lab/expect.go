package lab

import (
	"fmt"

	"github.com/fnwire/fnwire/internal/natsim"
)

// Way is how two hosts can come to exchange packets directly, if at all.
type Way string

// The ways, from the easiest on; see [Way.Meaning].
const (
	WayLAN      Way = "lan"
	WayPunch    Way = "punch"
	WayPredict  Way = "predict"
	WayBirthday Way = "birthday"
	WayRelay    Way = "relay"
)

// Meaning explains a way in a few words.
func (w Way) Meaning() string {
	switch w {
	case WayLAN:
		return "they are in one private network"
	case WayPunch:
		return "each sends to the address that STUN shows of the other"
	case WayPredict:
		return "a port has to be guessed that follows from the last"
	case WayBirthday:
		return "one has to hit one of many random ports that the other opens"
	case WayRelay:
		return "only by the relay"
	}
	return "unknown"
}

// Target is the least share of pairs that must be direct where they meet this way, 0 to 1.
func (w Way) Target() float64 {
	switch w {
	case WayLAN, WayPunch:
		return 1
	case WayPredict:
		return 0.95
	case WayBirthday:
		return 0.90
	}
	return 0
}

// Expect tells which way two hosts behind NATs of kinds a and b have to each other, by what RFC 4787 calls mapping and filtering;
// together says that they share the outermost NAT.
//
// Each host sends to where it believes the other is. If both mappings are the same for every destination, STUN shows them, each side's own
// packets open its filter for the other's, and punching works whatever the filters. If one mapping, U, depends on the
// destination, nobody knows it before a packet of U has come through. It comes through if the other side's filter looks at
// addresses at most, since that side sent to U's address, if to another port; then that side knows the port, and U's filter
// lets it answer. If the other side's filter wants the port too, it has to be predicted, or hit by chance. If both mappings depend on the
// destination, both ports have to be right at the same time: possible if both follow from the last, hopeless if one is random.
func Expect(a, b Kind, together bool) (Way, error) {
	ta, err := a.Traits()
	if err != nil {
		return "", err
	}
	tb, err := b.Traits()
	if err != nil {
		return "", err
	}
	if together {
		if a != b || ta.Base == None {
			return "", fmt.Errorf("lab: %s and %s cannot be behind one NAT", a, b)
		}
		if ta.Base != CGN {
			return WayLAN, nil
		}
		if !ta.UDP.Hairpin {
			return WayRelay, nil
		}
	}
	if ta.Base == IPv6Firewall && tb.Base == IPv6Firewall {
		return WayPunch, nil // both addresses are known, if not by STUN; their firewalls are filters like any
	}
	return expect(ta.seen(), tb.seen()), nil
}

// seen is what all NATs of a host together look like from outside.
func (t Traits) seen() natsim.Kind {
	switch t.Base {
	case None:
		return natsim.Kind{Preserve: true}
	case CGN:
		k := t.UDP
		k.Filtering = natsim.AddressPortDependent // the home's
		return k
	}
	return t.UDP
}

func expect(a, b natsim.Kind) Way {
	switch {
	case a.Blocked || b.Blocked:
		return WayRelay
	case a.Stable() && b.Stable():
		return WayPunch
	case a.Stable():
		a, b = b, a
	}
	// a is the one whose mapping depends on the destination, or both are.
	switch {
	case !b.Stable() && a.Step != 0 && b.Step != 0:
		return WayPredict
	case !b.Stable():
		return WayRelay
	case b.Filtering != natsim.AddressPortDependent:
		return WayPunch
	case a.Step != 0:
		return WayPredict
	}
	return WayBirthday
}
