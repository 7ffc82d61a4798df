package fnlib

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// RelayStatus is how a node stands with one relay.
type RelayStatus struct {
	ID    string
	Addr  netip.AddrPort
	STUN  []netip.AddrPort // where it answers binding requests
	Home  bool             // peers reach the node through this one
	State string           // "bound" or "usable" when packets flow; else "binding", "silent" or "refused"
	Via   string           // "udp", "wss" (the same frames over WebSocket and TLS, where UDP is blocked), or "" before
	RTT   time.Duration    // 0 if not measured yet
	Err   error            // why packets do not flow, if they do not

	HTTPS      string // HOST:PORT where it takes connections over TLS; empty if it does not
	CertSHA256 []byte // hash of the certificate there
}

// Relays tells how the node stands with the relays that the rendezvous has named, sorted by ID.
func (n *Node) Relays() []RelayStatus {
	r := &n.relays
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]RelayStatus, 0, len(r.legs))
	for _, l := range r.legs {
		state, err := l.client.State()
		out = append(out, RelayStatus{
			ID: l.info.ID, Addr: l.info.Addr, STUN: slices.Clone(l.info.STUN), Home: l.client == r.home,
			State: string(state), Via: l.client.Via(), RTT: l.client.RTT(), Err: err,
			HTTPS: l.info.HTTPS, CertSHA256: slices.Clone(l.info.CertSHA256),
		})
	}
	slices.SortFunc(out, func(a, b RelayStatus) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// PortMapping is what became of Config.PortMap.
type PortMapping struct {
	Addr netip.AddrPort // where the router forwards to this node; the zero value if it does not
	Err  error          // why not
}

// PortMapping tells what the router has said; nothing at first, and without Config.PortMap.
func (n *Node) PortMapping() PortMapping {
	if m := n.mapped.Load(); m != nil {
		return *m
	}
	return PortMapping{}
}

// Candidates are the UDP addresses at which the node may be reached directly: what the router forwards, if it was asked,
// those of its interfaces, then those that STUN has shown.
func (n *Node) Candidates() []netip.AddrPort { return n.ep.Candidates() }
