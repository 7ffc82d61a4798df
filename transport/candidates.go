package transport

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/transport/punch"
)

// MaxCandidates is the most candidates that an instance offers (and accepts).
const MaxCandidates = 16

// Mapping says what kind of NAT mapping STUN showed (RFC 4787, 4.1).
type Mapping string

// The kinds that two STUN servers can tell apart.
const (
	MappingUnknown  Mapping = "unknown"                // fewer than two answers
	MappingBlocked  Mapping = "blocked"                // no UDP passes: see Endpoint.SetBlocked
	MappingNone     Mapping = "none"                   // the address is the instance's own
	MappingEndpoint Mapping = "endpoint-independent"   // the same for every destination
	MappingDepends  Mapping = "address-port-dependent" // another for each destination: "symmetric"
)

// NAT is what an instance knows of the NAT it is behind.
type NAT struct {
	Mapping       Mapping
	PortPreserved bool             // the mapped port is the local port
	Step          int              // between the ports of successive mappings, if they can be predicted; else 0
	Reflexive     []netip.AddrPort // server-reflexive addresses, each once
	Forwarded     netip.AddrPort   // what the router forwards to the endpoint, if it was asked: see Endpoint.SetMapped
}

// Punch returns n as peers are told of it. A port that is forwarded is the same towards everybody, whatever the mapping is.
func (n NAT) Punch() punch.NAT {
	p := punch.NAT{}
	if n.Forwarded.IsValid() && n.Mapping != MappingBlocked {
		return punch.NAT{Mapping: punch.MappingStable, Public: n.Forwarded}
	}
	for _, a := range n.Reflexive {
		if a.Addr().Is4() {
			p.Public = a
			break
		}
	}
	switch {
	case n.Mapping == MappingBlocked:
		return punch.NAT{Mapping: punch.MappingBlocked}
	case !p.Public.IsValid():
		return punch.NAT{}
	case n.Mapping == MappingNone || n.Mapping == MappingEndpoint:
		p.Mapping = punch.MappingStable
	case n.Mapping == MappingDepends && n.Step != 0:
		p.Mapping, p.Step = punch.MappingSequential, int8(n.Step)
	case n.Mapping == MappingDepends:
		p.Mapping = punch.MappingRandom
	default:
		return punch.NAT{}
	}
	return p
}

// Discover asks STUN servers, in this order, under which addresses they see the endpoint's socket, and makes these
// candidates. It returns after all have answered, or settle after the first answer, or with ErrNoSTUN.
func (e *Endpoint) Discover(ctx context.Context, servers []netip.AddrPort, settle time.Duration) (NAT, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		i    int // of the server
		addr netip.AddrPort
		err  error
	}
	answers := make(chan answer, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		q := e.hub.stun.begin(s, func(b []byte, to netip.AddrPort) error { return e.hub.write(b, len(b), to) })
		wg.Go(func() {
			a, err := q.wait(ctx)
			answers <- answer{i, a, err}
		})
	}
	defer wg.Wait()
	defer cancel()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	got := make([]netip.AddrPort, len(servers))
	some := false
	for range servers {
		select {
		case a := <-answers:
			if a.err == nil {
				if !some {
					timer.Reset(settle)
				}
				some = true
				got[a.i] = a.addr
			}
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		break
	}
	if !some {
		if err := ctx.Err(); err != nil {
			return NAT{Mapping: MappingUnknown}, fmt.Errorf("transport: STUN: %w", err)
		}
		return NAT{Mapping: MappingUnknown}, ErrNoSTUN
	}
	answering := answeringServers(servers, got)
	e.hub.answering.Store(&answering)
	return e.learn(slices.DeleteFunc(got, func(a netip.AddrPort) bool { return !a.IsValid() })), nil
}

// SetBlocked says that no UDP passes here, as a relay that can be reached by TLS only shows. Peers are
// told, and spare their probes. An answer of a STUN server takes it back.
func (e *Endpoint) SetBlocked() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nat = NAT{Mapping: MappingBlocked, Forwarded: e.nat.Forwarded}
	e.tellPeers()
}

// tellPeers lets the state machines know of the endpoint's own candidates and NAT. It runs under e.mu.
func (e *Endpoint) tellPeers() {
	for _, r := range e.peers {
		r.post(e.setLocal())
	}
}

func (e *Endpoint) setLocal() punch.SetLocal {
	return punch.SetLocal{Candidates: slices.Clone(e.local), NAT: e.nat.Punch()}
}

// learn turns STUN answers into candidates and tells the peers.
func (e *Endpoint) learn(got []netip.AddrPort) NAT {
	e.mu.Lock()
	defer e.mu.Unlock()
	nat := classify(got, e.hostCandidates())
	if old := e.nat; nat.Mapping == MappingDepends && old.Mapping == MappingDepends && nat.Step == 0 && sameIP(nat, old) {
		nat.Step = old.Step // some of these mappings may be much older than others, which says nothing of the NAT
	}
	nat.Forwarded = e.nat.Forwarded
	e.nat = nat
	e.gather()
	return e.nat
}

// SetMapped says at what address a router forwards to the IPv4 socket, which makes it a candidate; the zero value takes
// it back.
func (e *Endpoint) SetMapped(a netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nat.Forwarded = a
	e.gather()
}

// gather puts the candidates together and tells the peers. It runs under e.mu.
func (e *Endpoint) gather() {
	var seen []netip.AddrPort // from outside
	if a := e.nat.Forwarded; a.IsValid() {
		seen = append(seen, a)
	}
	if n := e.nat; n.Mapping == MappingDepends && n.Reflexive[0].Addr().Is4() {
		// Some NATs with a mapping for each destination still forward the local port.
		seen = append(seen, netip.AddrPortFrom(n.Reflexive[0].Addr(), e.LocalPort()))
	}
	e.local = share(e.hostCandidates(), append(seen, e.nat.Reflexive...))
	e.tellPeers()
}

// share limits candidates: to as many of the host as leave room for those seen from outside, or half of all.
func share(host, seen []netip.AddrPort) []netip.AddrPort {
	seen = limitCandidates(seen)
	host = host[:min(len(host), max(MaxCandidates-len(seen), MaxCandidates/2))]
	return limitCandidates(append(slices.Clone(host), seen...))
}

func sameIP(a, b NAT) bool {
	return len(a.Reflexive) > 0 && len(b.Reflexive) > 0 && a.Reflexive[0].Addr() == b.Reflexive[0].Addr()
}

// classify takes the answers of STUN servers in the order in which they were asked. The kind is that of the IPv4 NAT, where there is
// IPv4; those answers come first in Reflexive.
func classify(got, host []netip.AddrPort) NAT {
	var of, rest []netip.AddrPort
	has4 := slices.ContainsFunc(got, func(a netip.AddrPort) bool { return a.Addr().Is4() })
	for _, a := range got {
		if a.Addr().Is4() == has4 {
			of = append(of, a)
		} else {
			rest = append(rest, a)
		}
	}
	mapped := limitCandidates(of)
	first := mapped[0]
	n := NAT{Reflexive: append(mapped, limitCandidates(rest)...)}
	n.PortPreserved = slices.ContainsFunc(host, func(h netip.AddrPort) bool {
		return h.Addr().Is4() == has4 && h.Port() == first.Port()
	})
	switch {
	case slices.Contains(host, first) || first.Addr().IsLoopback(): // a relay on this machine sees a loopback address, which is nobody's mapping
		n.Mapping = MappingNone
	case len(mapped) > 1:
		n.Mapping, n.Step = MappingDepends, portStep(mapped)
	case len(of) > 1:
		n.Mapping = MappingEndpoint
	default:
		n.Mapping = MappingUnknown
	}
	return n
}

// The ports of two successive mappings of a predictable NAT are at most maxStep apart; mappings made for others
// in between may add as much again. Two random ports look so by chance once in 3,200 times.
const (
	maxStep = 5
	maxGap  = 2 * maxStep
)

// portStep returns the signed distance of successive ports if a NAT numbers them in order, or 0. The
// order of addrs is that of their first packets, more or less: a relay may have been bound in between.
func portStep(addrs []netip.AddrPort) int {
	var ports []int
	var ip netip.Addr
	for _, a := range addrs {
		if !a.Addr().Is4() {
			continue
		}
		if ip.IsValid() && a.Addr() != ip {
			return 0 // a pool of addresses: nobody knows which comes next
		}
		ip = a.Addr()
		ports = append(ports, int(a.Port()))
	}
	if len(ports) < 2 {
		return 0
	}
	rising := ports[len(ports)-1] > ports[0]
	slices.Sort(ports)
	step := maxGap + 1
	for i := 1; i < len(ports); i++ {
		gap := ports[i] - ports[i-1]
		if gap > maxGap {
			return 0
		}
		step = min(step, gap)
	}
	if !rising {
		return -step
	}
	return step
}

// Candidates are the addresses at which the endpoint may be reached: host first, as many as leave room for the others, or half of all.
// The slice is not nil.
func (e *Endpoint) Candidates() []netip.AddrPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]netip.AddrPort{}, e.local...)
}

// NAT returns what Discover found last.
func (e *Endpoint) NAT() NAT {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.nat
}

func limitCandidates(c []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range c {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if !slices.Contains(out, a) && len(out) < MaxCandidates {
			out = append(out, a)
		}
	}
	return out
}

// hostCandidates are the addresses of the local interfaces, at the sockets' ports. Loopback is left
// out unless a socket is bound to it, or there is nothing else. IPv4 and IPv6 take turns.
func (e *Endpoint) hostCandidates() []netip.AddrPort {
	var of [2][]netip.AddrPort
	for i, s := range []udpx.Socket{e.hub.v4, e.hub.v6} {
		if s == nil {
			continue
		}
		local := s.LocalAddr()
		if !local.Addr().IsUnspecified() {
			of[i] = append(of[i], local)
			continue
		}
		for _, a := range interfaceAddrs() {
			if a.Is4() == local.Addr().Unmap().Is4() {
				of[i] = append(of[i], netip.AddrPortFrom(a, local.Port()))
			}
		}
	}
	out := inTurn(of[0], of[1])
	if len(out) == 0 && e.hub.v4 != nil {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), e.LocalPort()))
	}
	return limitCandidates(out)
}

// inTurn takes one of each list in turn, then the rest of the longer one.
func inTurn(a, b []netip.AddrPort) (out []netip.AddrPort) {
	for ; len(a) > 0 && len(b) > 0; a, b = a[1:], b[1:] {
		out = append(out, a[0], b[0])
	}
	return append(append(out, a...), b...)
}

// interfaceAddrs leaves out what no peer elsewhere can reach: loopback, link-local, and the bridges
// that container engines make.
func interfaceAddrs() []netip.Addr {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, i := range ifs {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || strings.HasPrefix(i.Name, "docker") {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() && !p.Addr().IsLinkLocalUnicast() {
				out = append(out, p.Addr().Unmap())
			}
		}
	}
	return out
}
