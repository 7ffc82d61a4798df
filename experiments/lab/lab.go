// Package lab makes small internets on one Linux machine: hosts, each behind a NAT of a chosen kind, as network
// namespaces joined by virtual Ethernet pairs, set up through netlink and nftables without any other program.
//
//	            "internet" 198.51.100.0/24: a bridge in the core namespace (.1), MTU 1500
//	   .---------------+----------------------+---------------------.
//	198.51.100.2    198.51.100.3 (wan)     198.51.100.4 (wan)
//	 host "hub"      router of "a": NAT     router of "b": NAT
//	 (NAT none)      10.2.0.1 (lan)         10.3.0.1 (lan)
//	                    |                      |
//	                 10.2.0.2                10.3.0.2
//	                 host "a"                host "b"
//
// NAT kinds, in the terms of RFC 4787 (each is measured by this package's tests):
//
//	kind             mapping               filtering               port         UDP, TCP
//	none             -                     -                       -            both
//	full-cone        endpoint-independent  endpoint-independent    preserved    both
//	port-restricted  endpoint-independent  address-and-port-dep.   preserved    both
//	symmetric        address-and-port-dep. address-and-port-dep.   random       both
//	udp-blocked      (TCP only)            address-and-port-dep.   preserved    TCP
//
// TCP is let out by every kind and let in by "none" only. IPv6 exists on the loopback interfaces only.
//
// A lab lives in the process that made it: namespaces are held by open files and processes, never by names or mounts
// that others see, and everything started in it belongs to one PID namespace. So when that process ends, however it
// ends, namespaces and all processes vanish, children of children too.
//
// It needs the rights of root in some user namespace: call [Enter] first thing in main or TestMain.
// The package never touches the namespaces, firewall rules or sysctls of the machine itself, and never reaches out of the lab.
package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrUnavailable is wrapped by the errors of [Enter] and [New] when this machine or user may not make network
// namespaces. The error says what is missing and how to allow it.
var ErrUnavailable = errors.New("lab: network namespaces are not available here")

// ErrClosed is returned by methods of a lab that has been closed.
var ErrClosed = errors.New("lab: closed")

// Kind is what stands between a host and the internet of the lab. The zero Kind means None.
type Kind string

// The kinds of NAT; see the package comment for what each does.
const (
	None           Kind = "none"
	FullCone       Kind = "full-cone"
	PortRestricted Kind = "port-restricted"
	Symmetric      Kind = "symmetric"
	UDPBlocked     Kind = "udp-blocked"
)

// Kinds returns every kind.
func Kinds() []Kind { return []Kind{None, FullCone, PortRestricted, Symmetric, UDPBlocked} }

// ParseKind reads a kind, ignoring case and the characters "-_ ", and knows other common names,
// such as public, eim, cone, prc, random, no-udp.
func ParseKind(s string) (Kind, error) {
	switch strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "").Replace(s)) {
	case "", "none", "public", "open":
		return None, nil
	case "fullcone", "full", "cone", "eim", "eif", "endpointindependent":
		return FullCone, nil
	case "portrestricted", "portrestrictedcone", "prc", "easy":
		return PortRestricted, nil
	case "symmetric", "sym", "random", "hard":
		return Symmetric, nil
	case "udpblocked", "blockedudp", "blockudp", "noudp", "tcponly":
		return UDPBlocked, nil
	}
	names := make([]string, 0, len(Kinds()))
	for _, k := range Kinds() {
		names = append(names, string(k))
	}
	return "", fmt.Errorf("lab: unknown NAT kind %q: want one of %s", s, strings.Join(names, ", "))
}

// MaxHosts is how many hosts a lab may have.
const MaxHosts = 200

// Spec says which hosts a lab has. Addresses are given in the order of Hosts, so that equal specs give equal addresses.
type Spec struct {
	Hosts []Host `json:"hosts"`
}

// Host is one machine of a lab. Name may have letters, digits, "-" and "_", at most 64.
type Host struct {
	Name string `json:"name"`
	NAT  Kind   `json:"nat"`
}

// HostInfo is a host with its addresses.
type HostInfo struct {
	Host
	Addr       netip.Addr `json:"addr"`        // its own
	PublicAddr netip.Addr `json:"public_addr"` // its NAT's outside address, or Addr if there is no NAT
}

// Check tells what is wrong with s, if anything.
func (s Spec) Check() error {
	_, err := s.check()
	return err
}

// check returns spec with its kinds spelled out, or what is wrong with it.
func (s Spec) check() (Spec, error) {
	if len(s.Hosts) == 0 {
		return s, errors.New("lab: no hosts given")
	}
	if len(s.Hosts) > MaxHosts {
		return s, fmt.Errorf("lab: %d hosts: want at most %d", len(s.Hosts), MaxHosts)
	}
	out := Spec{Hosts: make([]Host, 0, len(s.Hosts))}
	seen := map[string]bool{}
	for _, h := range s.Hosts {
		if err := CheckName(h.Name); err != nil {
			return s, fmt.Errorf("lab: host: %w", err)
		}
		if seen[h.Name] {
			return s, fmt.Errorf("lab: two hosts named %q", h.Name)
		}
		seen[h.Name] = true
		kind, err := ParseKind(string(h.NAT))
		if err != nil {
			return s, err
		}
		out.Hosts = append(out.Hosts, Host{Name: h.Name, NAT: kind})
	}
	return out, nil
}

// CheckName returns an error unless name is fit for a host or a lab: 1 to 64 letters, digits, "-" and "_".
func CheckName(name string) error {
	const legal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	if len(name) < 1 || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(legal, r) }) {
		return fmt.Errorf("name %q: want 1 to 64 letters, digits, '-' or '_'", name)
	}
	return nil
}
