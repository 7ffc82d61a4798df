package lab

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fnwire/fnwire/internal/natsim"
)

// Kind is what stands between a host and the internet of the lab: a base, and options joined to it with "+", such as
// "port-restricted+remap+timeout=10s". The zero Kind means None.
type Kind string

// The bases; see the package comment for what each does.
const (
	None              Kind = "none"
	FullCone          Kind = "full-cone"
	AddressRestricted Kind = "address-restricted"
	PortRestricted    Kind = "port-restricted"
	Sequential        Kind = "sequential"
	Symmetric         Kind = "symmetric"
	CGN               Kind = "cgn"
	IPv6Firewall      Kind = "ipv6-firewall"
	UDPBlocked        Kind = "udp-blocked"
	HTTPSOnly         Kind = "https-only"
)

// Kinds returns every base.
func Kinds() []Kind {
	return []Kind{
		None, FullCone, AddressRestricted, PortRestricted, Sequential, Symmetric, CGN, IPv6Firewall, UDPBlocked, HTTPSOnly,
	}
}

// OptionHelp says what may be joined to a kind.
const OptionHelp = "+remap (ports not preserved), +hairpin, +step=N (of sequential), +timeout=10s (of mappings), +mtu=1280 (of the line)"

const (
	mtu        = 1500
	minMTU     = 576 // the least that IPv4 hosts must take (RFC 791)
	minTimeout = time.Second
	maxTimeout = 24 * time.Hour
	maxStep    = 100
)

// Traits is a kind taken apart.
type Traits struct {
	Base Kind
	// UDP is what the outermost NAT does to UDP over IPv4. It means nothing for None.
	UDP natsim.Kind
	MTU int // of the line between the NAT and the internet, in bytes
}

// base says what the NATs do that can be varied. The filter of CGN is that of the carrier (RFC 6888, REQ-7); the home's is
// that of PortRestricted.
func base(k Kind) (natsim.Kind, bool) {
	nat := func(mapping, filtering natsim.Behaviour, preserve bool) natsim.Kind {
		return natsim.Kind{Mapping: mapping, Filtering: filtering, Preserve: preserve, PerMapping: true}
	}
	switch k {
	case FullCone:
		return nat(natsim.EndpointIndependent, natsim.EndpointIndependent, true), true
	case AddressRestricted:
		return nat(natsim.EndpointIndependent, natsim.AddressDependent, true), true
	case PortRestricted:
		return nat(natsim.EndpointIndependent, natsim.AddressPortDependent, true), true
	case CGN:
		return nat(natsim.EndpointIndependent, natsim.EndpointIndependent, false), true
	case Symmetric, IPv6Firewall:
		return nat(natsim.AddressPortDependent, natsim.AddressPortDependent, false), k == Symmetric
	case Sequential:
		n := nat(natsim.AddressPortDependent, natsim.AddressPortDependent, false)
		n.Step = 1
		return n, true
	case UDPBlocked, HTTPSOnly:
		return natsim.Kind{Blocked: true}, false
	}
	return natsim.Kind{}, false
}

// Traits takes a kind apart, or says what is wrong with it.
func (k Kind) Traits() (Traits, error) {
	name, options, more := strings.Cut(strings.ToLower(string(k)), "+")
	b, ok := parseBase(name)
	if !ok {
		return Traits{}, fmt.Errorf("lab: unknown NAT kind %q: want one of %s", k, kindList())
	}
	udp, varies := base(b)
	t := Traits{Base: b, UDP: udp, MTU: mtu}
	if !more {
		return t, nil
	}
	for option := range strings.SplitSeq(options, "+") {
		if err := t.set(option, varies); err != nil {
			return Traits{}, fmt.Errorf("lab: NAT kind %q: +%s: %w", k, option, err)
		}
	}
	return t, nil
}

// set takes one option.
func (t *Traits) set(option string, varies bool) (err error) {
	name, value, _ := strings.Cut(option, "=")
	switch name {
	case "mtu":
		if t.MTU, err = strconv.Atoi(value); err != nil || t.MTU < minMTU || t.MTU > mtu {
			return fmt.Errorf("want +mtu=N with N from %d to %d", minMTU, mtu)
		}
		if t.Base == None || t.Base == IPv6Firewall {
			return fmt.Errorf("a host of kind %s has no line that could be narrower", t.Base)
		}
		return nil
	case "remap", "hairpin", "timeout", "step":
		if !varies {
			return fmt.Errorf("kind %s has no such option", t.Base)
		}
	}
	switch name {
	case "remap":
		if t.UDP.Mapping != natsim.EndpointIndependent {
			return fmt.Errorf("the ports of kind %s are not preserved anyway", t.Base)
		}
		t.UDP.Preserve = false
	case "hairpin":
		if t.UDP.Mapping != natsim.EndpointIndependent {
			return fmt.Errorf("nobody inside can know the port that a NAT of kind %s will take", t.Base)
		}
		t.UDP.Hairpin = true
	case "timeout":
		if t.UDP.Timeout, err = time.ParseDuration(value); err != nil || t.UDP.Timeout < minTimeout || t.UDP.Timeout > maxTimeout {
			return fmt.Errorf("want +timeout=D with D from %v to %v", minTimeout, maxTimeout)
		}
	case "step":
		if t.UDP.Step == 0 {
			return errors.New("only ports of kind sequential have a step")
		}
		if t.UDP.Step, err = strconv.Atoi(value); err != nil || t.UDP.Step == 0 || max(t.UDP.Step, -t.UDP.Step) > maxStep {
			return fmt.Errorf("want +step=N with N from -%d to %d, and not 0", maxStep, maxStep)
		}
	default:
		return fmt.Errorf("unknown option: there are %s", OptionHelp)
	}
	return nil
}

// Kind is the reverse of [Kind.Traits].
func (t Traits) Kind() Kind {
	plain, _ := base(t.Base)
	s := string(t.Base)
	if plain.Preserve && !t.UDP.Preserve {
		s += "+remap"
	}
	if t.UDP.Hairpin {
		s += "+hairpin"
	}
	if t.UDP.Step != plain.Step {
		s += fmt.Sprint("+step=", t.UDP.Step)
	}
	if t.UDP.Timeout != 0 {
		s += fmt.Sprint("+timeout=", t.UDP.Timeout)
	}
	if t.MTU != mtu {
		s += fmt.Sprint("+mtu=", t.MTU)
	}
	return Kind(s)
}

// ParseKind reads a kind, ignoring case and, in its base, the characters "-_ ". It knows other common names of bases, such as public,
// eim, cone, prc, random, no-udp. Options come back in a fixed order.
func ParseKind(s string) (Kind, error) {
	t, err := Kind(s).Traits()
	if err != nil {
		return "", err
	}
	return t.Kind(), nil
}

func parseBase(s string) (Kind, bool) {
	if s == "" {
		return None, true
	}
	switch strings.NewReplacer("-", "", "_", "", " ", "").Replace(s) {
	case "none", "public", "open":
		return None, true
	case "fullcone", "full", "cone", "eim", "eif", "endpointindependent":
		return FullCone, true
	case "addressrestricted", "addressrestrictedcone", "restricted", "restrictedcone", "adf":
		return AddressRestricted, true
	case "portrestricted", "portrestrictedcone", "prc", "apdf", "easy":
		return PortRestricted, true
	case "sequential", "symmetricsequential", "predictable":
		return Sequential, true
	case "symmetric", "sym", "random", "hard", "apdm":
		return Symmetric, true
	case "cgn", "cgnat", "nat444", "carriergrade", "doublenat":
		return CGN, true
	case "ipv6firewall", "ipv6", "firewall6":
		return IPv6Firewall, true
	case "udpblocked", "blockedudp", "blockudp", "noudp", "tcponly":
		return UDPBlocked, true
	case "httpsonly", "httponly", "webonly":
		return HTTPSOnly, true
	}
	return "", false
}

func kindList() string {
	names := make([]string, 0, len(Kinds()))
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ") + "; options: " + OptionHelp
}

// KindHelp explains the kinds and their options to people.
const KindHelp = `NAT kinds:
  none                public: nothing in between
  full-cone           endpoint-independent mapping and filtering
  address-restricted  endpoint-independent mapping, address-dependent filtering
  port-restricted     endpoint-independent mapping, address-and-port-dependent filtering
  sequential          address-and-port-dependent both; each port is the last plus 1
  symmetric           address-and-port-dependent both; random ports
  cgn                 two NATs in a row: a home's, port-restricted, and a carrier's
  ipv6-firewall       IPv6 without NAT, with a stateful firewall; IPv4 as symmetric
  udp-blocked         TCP only
  https-only          TCP to ports 80 and 443 only
Options, as in port-restricted+remap+timeout=10s:
  +remap              ports are not preserved
  +hairpin            hosts behind the NAT reach each other's mapped addresses
  +step=N             difference between ports of sequential
  +timeout=10s        of a mapping that nothing is sent through
  +mtu=1280           of the line beyond the NAT`
