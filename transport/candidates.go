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
	MappingNone     Mapping = "none"                   // the address is the instance's own
	MappingEndpoint Mapping = "endpoint-independent"   // the same for every destination
	MappingDepends  Mapping = "address-port-dependent" // another for each destination: "symmetric"
)

// NAT is what an instance knows of the NAT it is behind.
type NAT struct {
	Mapping       Mapping
	PortPreserved bool             // the mapped port is the local port
	Reflexive     []netip.AddrPort // server-reflexive addresses, each once
}

// Discover asks STUN servers under which addresses they see the endpoint's socket, and makes these
// candidates. It returns after all have answered, or settle after the first answer, or with ErrNoSTUN.
func (e *Endpoint) Discover(ctx context.Context, servers []netip.AddrPort, settle time.Duration) (NAT, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		addr netip.AddrPort
		err  error
	}
	answers := make(chan answer, len(servers))
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			a, err := e.stun.ask(ctx, s, func(b []byte, to netip.AddrPort) error { return e.hub.write(b, len(b), to) })
			answers <- answer{a, err}
		})
	}
	defer wg.Wait()
	defer cancel()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var got []netip.AddrPort
	for range servers {
		select {
		case a := <-answers:
			if a.err == nil {
				if len(got) == 0 {
					timer.Reset(settle)
				}
				got = append(got, a.addr)
			}
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		break
	}
	if len(got) == 0 {
		if err := ctx.Err(); err != nil {
			return NAT{Mapping: MappingUnknown}, fmt.Errorf("transport: STUN: %w", err)
		}
		return NAT{Mapping: MappingUnknown}, ErrNoSTUN
	}
	return e.learn(got), nil
}

// learn turns STUN answers into candidates and tells the peers.
func (e *Endpoint) learn(got []netip.AddrPort) NAT {
	e.mu.Lock()
	defer e.mu.Unlock()
	nat := classify(got, e.hostCandidates())
	cands := e.hostCandidates()
	cands = append(cands, nat.Reflexive...)
	if nat.Mapping == MappingDepends {
		// Some NATs with a mapping for each destination still forward the local port.
		cands = append(cands, netip.AddrPortFrom(nat.Reflexive[0].Addr(), e.LocalPort()))
	}
	e.nat, e.local = nat, limitCandidates(cands)
	for _, r := range e.peers {
		r.post(punch.SetLocal{Candidates: slices.Clone(e.local)})
	}
	return nat
}

func classify(got, host []netip.AddrPort) NAT {
	var n NAT
	for _, a := range got {
		if !slices.Contains(n.Reflexive, a) {
			n.Reflexive = append(n.Reflexive, a)
		}
	}
	// A relay on this machine sees a loopback address, which is nobody's mapping.
	own := slices.Contains(host, n.Reflexive[0]) || n.Reflexive[0].Addr().IsLoopback()
	n.PortPreserved = len(host) > 0 && slices.ContainsFunc(host, func(h netip.AddrPort) bool { return h.Port() == n.Reflexive[0].Port() })
	v4 := 0
	for _, a := range n.Reflexive {
		if a.Addr().Is4() {
			v4++
		}
	}
	switch {
	case own:
		n.Mapping = MappingNone
	case v4 > 1:
		n.Mapping = MappingDepends
	case len(got) > 1:
		n.Mapping = MappingEndpoint
	default:
		n.Mapping = MappingUnknown
	}
	return n
}

// Candidates are the addresses at which the endpoint may be reached: host first, then reflexive.
func (e *Endpoint) Candidates() []netip.AddrPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.local)
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
// out unless a socket is bound to it, or there is nothing else.
func (e *Endpoint) hostCandidates() []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range []udpx.Socket{e.hub.v4, e.hub.v6} {
		if s == nil {
			continue
		}
		local := s.LocalAddr()
		if !local.Addr().IsUnspecified() {
			out = append(out, local)
			continue
		}
		for _, a := range interfaceAddrs() {
			if a.Is4() == local.Addr().Unmap().Is4() {
				out = append(out, netip.AddrPortFrom(a, local.Port()))
			}
		}
	}
	if len(out) == 0 && e.hub.v4 != nil {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), e.LocalPort()))
	}
	return limitCandidates(out)
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
