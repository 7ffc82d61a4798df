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
// NAT kinds, in the terms of RFC 4787; each is measured by this package's tests (TestCalibration):
//
//	kind                mapping               filtering              ports          lets out
//	none                -                     -                      -              all
//	full-cone           endpoint-independent  endpoint-independent   preserved      all
//	address-restricted  endpoint-independent  address-dependent      preserved      all
//	port-restricted     endpoint-independent  address-and-port-dep.  preserved      all
//	sequential          address-and-port-dep. address-and-port-dep.  the last plus 1  all
//	symmetric           address-and-port-dep. address-and-port-dep.  random         all
//	cgn                 endpoint-independent  address-and-port-dep.  random         all
//	ipv6-firewall       none over IPv6        address-and-port-dep.  preserved      all; IPv4 as symmetric
//	udp-blocked         -                     -                      -              all but UDP
//	https-only          -                     -                      -              TCP to ports 80 and 443
//
// The first columns are of UDP. TCP is let in by "none" only. cgn is two NATs in a row: a home's,
// port-restricted, and behind the lab's internet a carrier's (RFC 6888), endpoint-independent in both ways, with
// random ports. Hosts of kind ipv6-firewall have a public IPv6 address too; the others have IPv6 on the loopback interface only.
//
// Options are joined to a kind with "+", as in "port-restricted+remap+timeout=10s":
//
//	+remap         the mapped port is random, not preserved; for endpoint-independent mapping
//	+hairpin       hosts behind the NAT reach each other's mapped addresses; for endpoint-independent mapping; with cgn, at the carrier
//	+step=N        the difference between successive ports, -100 to 100; for sequential
//	+timeout=10s   a mapping ends so long after the last packet out; else after 30 seconds at least
//	+mtu=1280      the line beyond the NAT takes packets of so many bytes; who sends larger ones is told by ICMP
//
// Hosts may share the outermost NAT of another (Host.With), and with it the private network, unless the kind is cgn:
// then each has a home of its own.
//
// The kernel is the NAT where it has the kind: full-cone, port-restricted, symmetric, with +mtu or without, for a host alone.
// For the others UDP is the business of package usernat, by a TUN device in the router; this is slower: some
// 200 Mbit/s (go test -bench UDPThroughTwoNATs).
//
// Between a host, or its NAT, and the internet there may be a line with a delay, a rate, losses and more (Host.Line, package wan).
//
// A lab lives in the process that made it: namespaces are held by open files and processes, never by names or mounts
// that others see, and everything started in it belongs to one PID namespace. So when that process ends, however it
// ends, namespaces and all processes vanish, children of children too.
//
// It needs the rights of root in some user namespace: call [Enter] first thing in main or TestMain.
// The package never touches the namespaces, firewall rules or sysctls of the machine itself, and never reaches out of the lab.
// Nor does it take of what all namespaces share, the neighbours that the kernel may learn: the lab's hosts know theirs.
package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/wan"
)

// ErrUnavailable is wrapped by the errors of [Enter] and [New] when this machine or user may not make network
// namespaces. The error says what is missing and how to allow it.
var ErrUnavailable = errors.New("lab: network namespaces are not available here")

// ErrClosed is returned by methods of a lab that has been closed.
var ErrClosed = errors.New("lab: closed")

// Disk is where the processes of a lab, and nobody else, see a directory of their lab's own. It is in memory, outlives
// them, and vanishes with the lab.
const Disk = "/mnt"

// MaxHosts is how many hosts a lab may have.
const MaxHosts = 200

// Spec says which hosts a lab has. Addresses are given in the order of Hosts, so that equal specs give equal addresses.
type Spec struct {
	Hosts []Host `json:"hosts"`
	Seed  uint64 `json:"seed,omitempty"` // of what is random on lines
}

// Host is one machine of a lab. Name may have letters, digits, "-" and "_", at most 64.
type Host struct {
	Name string `json:"name"`
	NAT  Kind   `json:"nat"`
	// With is the name of an earlier host whose outermost NAT is this one's too; NAT is then that host's and may be left out.
	// Both are in one private network, except with CGN, where each has a home NAT of its own.
	With string `json:"with,omitempty"`
	// Line is between the host, or its outermost NAT, and the internet; the zero Line is a cable. Who shares a NAT has none of its own.
	Line wan.Line `json:"line,omitzero"`
}

// HostInfo is a host with its addresses.
type HostInfo struct {
	Host
	Addr       netip.Addr `json:"addr"`           // its own
	PublicAddr netip.Addr `json:"public_addr"`    // its NAT's outside address, or Addr if there is no NAT
	Addr6      netip.Addr `json:"addr6,omitzero"` // its IPv6 address, if it has one
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
	out := Spec{Hosts: make([]Host, 0, len(s.Hosts)), Seed: s.Seed}
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
		h.NAT = kind
		if err := h.Line.Check(); err != nil {
			return s, fmt.Errorf("lab: host %s: %w", h.Name, err)
		}
		if h.With != "" {
			if h, err = share(h, out.Hosts); err != nil {
				return s, err
			}
		}
		out.Hosts = append(out.Hosts, h)
	}
	return out, nil
}

// share returns h with what it takes from the host whose NAT it shares, which is found at the end of the chain of With.
func share(h Host, before []Host) (Host, error) {
	i := slices.IndexFunc(before, func(o Host) bool { return o.Name == h.With })
	if i < 0 {
		return h, fmt.Errorf("lab: host %s shares the NAT of %q: there is no such host before it", h.Name, h.With)
	}
	o := before[i]
	switch {
	case o.NAT == None || o.NAT == IPv6Firewall:
		return h, fmt.Errorf("lab: host %s shares the NAT of %q, whose kind is %s", h.Name, o.Name, o.NAT)
	case h.Line != wan.Line{}:
		return h, fmt.Errorf("lab: host %s has a line, but shares the NAT of %s and with it the line", h.Name, o.Name)
	case h.NAT != None && h.NAT != o.NAT:
		return h, fmt.Errorf("lab: host %s of kind %s shares the NAT of %s, whose kind is %s", h.Name, h.NAT, o.Name, o.NAT)
	}
	h.NAT = o.NAT
	if o.With != "" {
		h.With = o.With
	}
	return h, nil
}

// CheckName returns an error unless name is fit for a host or a lab: 1 to 64 letters, digits, "-" and "_".
func CheckName(name string) error {
	const legal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	if len(name) < 1 || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(legal, r) }) {
		return fmt.Errorf("name %q: want 1 to 64 letters, digits, '-' or '_'", name)
	}
	return nil
}
