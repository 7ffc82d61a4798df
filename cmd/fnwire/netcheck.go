package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/transport"
)

// relaySettle is how long netcheck waits for relays to answer; relays that are silent are known as
// such after two seconds.
const relaySettle = 3 * time.Second

// httpsTimeout bounds the connection to one relay over HTTPS.
const httpsTimeout = 5 * time.Second

// netReport is what netcheck prints with --json. Times are in seconds.
type netReport struct {
	OK         bool             `json:"ok"`   // whether a relay or a mapped address was found
	Name       string           `json:"name"` // that netcheck joined under
	Candidates []netip.AddrPort `json:"candidates"`
	NAT        natReport        `json:"nat"`
	UDP        bool             `json:"udp"`   // something answers over it
	IPv6       string           `json:"ipv6"`  // yes: STUN answers over it; no; untested: no server has an IPv6 address; none: no address
	HTTPS      string           `json:"https"` // yes: a relay answers over TLS; no; untested: none offers it
	STUN       []netip.AddrPort `json:"stun_servers"`
	Relays     []relayReport    `json:"relays"`
	Expect     []expectation    `json:"expect"`
	Join       struct {
		Connect float64 `json:"connect_s"`
		Join    float64 `json:"join_s"`
		Relay   float64 `json:"relay_s"` // 0: none answered in time
		STUN    float64 `json:"stun_s"`  // 0: likewise
		Total   float64 `json:"total_s"`
	} `json:"join"`
	PortMap  *portMapReport `json:"portmap,omitempty"` // with --portmap
	Problems []string       `json:"problems"`
}

// portMapReport is what the router has said.
type portMapReport struct {
	Addr  netip.AddrPort `json:"addr"`
	Error string         `json:"error,omitempty"`
}

// natReport is what netcheck tells of the NAT or firewall.
type natReport struct {
	Mapping       transport.Mapping   `json:"mapping"`
	Filtering     transport.Filtering `json:"filtering"`
	PortPreserved bool                `json:"port_preserved"`
	PortOffset    int                 `json:"port_offset"` // mapped port less local port, of a probing socket
	Step          int                 `json:"step"`        // between the ports of successive mappings, 0 if they cannot be predicted
	Hairpin       transport.Hairpin   `json:"hairpin"`
	Reflexive     []netip.AddrPort    `json:"reflexive"`
	Lifetime      *lifetimeReport     `json:"lifetime,omitempty"`
}

type relayReport struct {
	ID    string         `json:"id"`
	Addr  netip.AddrPort `json:"addr"`
	Home  bool           `json:"home"`
	State string         `json:"state"`
	Via   string         `json:"via"` // "udp", or "wss" where UDP is blocked
	RTT   float64        `json:"rtt_s"`
	Error string         `json:"error,omitempty"`

	HTTPS      string  `json:"https,omitempty"` // where it takes WebSocket connections
	HTTPSRTT   float64 `json:"https_rtt_s,omitempty"`
	HTTPSError string  `json:"https_error,omitempty"`

	rtt, httpsRTT time.Duration
}

// netchecker is the command.
type netchecker struct {
	*common
	lifetime time.Duration
}

func newNetcheck(c *common) *cobra.Command {
	n := netchecker{common: c}
	cmd := &cobra.Command{
		Use:   "netcheck",
		Short: "Show what this network allows",
		Long: `Join, and tell at what addresses this machine could be reached, what kind of NAT it is behind (mapping and
filtering, RFC 4787), how it stands with each relay over UDP and HTTPS, and how links with each kind of function
will go. Problems are listed with what to do about them; the exit code is 0 when the check was made.

Filtering is "port-dependent" if only who was sent to may answer, "not-port" if another port of that host may too.
With --lifetime sockets fall silent for 5, 10, 15... seconds, to see how long the NAT keeps their ports.

netcheck joins as cli-<random> unless --name is given. FNWIRE_NAME is left to the function whose name it is.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: c.run(func(cmd *cobra.Command, _ []string) error { return n.run(cmd) }),
	}
	cmd.Flags().DurationVar(&n.lifetime, "lifetime", 0, "find out how long a mapping lives without traffic, up to this long, at most 55s")
	return cmd
}

func (n *netchecker) run(cmd *cobra.Command) error {
	patience := lookTimeout
	if n.lifetime != 0 {
		if n.lifetime < lifetimeStep || n.lifetime > lifetimeMax {
			return cli.Usage(fmt.Errorf("--lifetime %v: want %v to %v, after which a relay forgets who is silent", n.lifetime, lifetimeStep, lifetimeMax))
		}
		patience += n.lifetime + lifetimeGrace
	}
	ctx, cancel, err := n.context(cmd, patience)
	if err != nil {
		return err
	}
	defer cancel()
	if !cmd.Flags().Changed("log-level") {
		n.logLevel = "error" // warnings would tell the problems twice
	}
	node, err := n.watch(ctx, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer node.Close()
	if err := settleRelays(ctx, node); err != nil {
		return err
	}
	r := check(node)
	r.probe(ctx, node)
	if err := ctx.Err(); err != nil {
		return err
	}
	if n.portMap || os.Getenv(fnlib.EnvPortMap) == "1" {
		if r.PortMap, err = portMap(ctx, node); err != nil {
			return err
		}
		r.Candidates = node.Candidates()
	}
	usable := r.usable()
	if n.lifetime > 0 && usable > 0 {
		if r.NAT.Lifetime, err = n.measureLifetime(ctx, &r, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	r.Expect = expectations(node.NAT(), r.NAT.Filtering, r.forwarded())
	r.judge(usable)
	if n.json {
		return cli.PrintJSON(cmd.OutOrStdout(), r)
	}
	return r.print(cmd.OutOrStdout())
}

// portMap waits for the word of the router, which takes some seconds if it says nothing.
func portMap(ctx context.Context, node *fnlib.Node) (*portMapReport, error) {
	for {
		switch m := node.PortMapping(); {
		case m.Err != nil:
			return &portMapReport{Error: m.Err.Error()}, nil //nolint:nilerr // it is what netcheck tells
		case m.Addr.IsValid():
			return &portMapReport{Addr: m.Addr}, nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// measureLifetime asks for the life-time of mappings with the relay that answers soonest over UDP.
func (n *netchecker) measureLifetime(ctx context.Context, r *netReport, notes io.Writer) (*lifetimeReport, error) {
	var best *relayReport
	for i := range r.Relays {
		if one := &r.Relays[i]; one.Via == "udp" && (best == nil || one.rtt < best.rtt) {
			best = one
		}
	}
	if best == nil {
		return nil, nil // UDP is blocked: there are no mappings
	}
	cfg, err := n.config(r.Name, notes)
	if err != nil {
		return nil, err
	}
	found, err := lifetime(ctx, cfg, best.ID, n.lifetime, notes)
	return &found, err
}

// settleRelays waits until it is clear how the node stands with all relays. Join waits for one only.
func settleRelays(ctx context.Context, node *fnlib.Node) error {
	for until := time.Now().Add(relaySettle); time.Now().Before(until); {
		settled := true
		for _, r := range node.Relays() {
			settled = settled && r.State != string(relay.StateBinding) && r.State != string(relay.StateUsable)
		}
		if settled {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// check gathers what the node knows.
func check(node *fnlib.Node) netReport {
	nat, joined := node.NAT(), node.Timings()
	r := netReport{Name: node.Name(), Candidates: node.Candidates(), Relays: []relayReport{}, STUN: []netip.AddrPort{}, Problems: []string{}}
	r.NAT = natReport{
		Mapping: cmp.Or(nat.Mapping, transport.MappingUnknown), Filtering: transport.FilteringUnknown, Hairpin: transport.HairpinUnknown,
		PortPreserved: nat.PortPreserved, Step: nat.Step, Reflexive: nat.Reflexive,
	}
	if r.NAT.Reflexive == nil {
		r.NAT.Reflexive = []netip.AddrPort{}
	}
	for _, s := range node.Relays() {
		one := relayReport{
			ID: s.ID, Addr: s.Addr, Home: s.Home, State: s.State, Via: s.Via, RTT: seconds(s.RTT), rtt: s.RTT, HTTPS: s.HTTPS,
		}
		if s.Err != nil {
			one.Error = s.Err.Error()
			r.Problems = append(r.Problems, fmt.Sprintf("relay %s: %v", s.ID, s.Err))
		}
		r.Relays = append(r.Relays, one)
		r.STUN = append(r.STUN, s.STUN...)
	}
	j := &r.Join
	j.Connect, j.Join, j.Relay = seconds(joined.Connect), seconds(joined.Join), seconds(joined.Relay)
	j.STUN, j.Total = seconds(joined.STUN), seconds(joined.Total)
	r.OK = r.usable() > 0 || len(r.NAT.Reflexive) > 0
	r.UDP = len(r.NAT.Reflexive) > 0 || slices.ContainsFunc(r.Relays, func(one relayReport) bool { return one.Via == "udp" })
	r.IPv6 = r.ipv6()
	return r
}

// forwarded tells whether a router lets packets in.
func (r *netReport) forwarded() bool { return r.PortMap != nil && r.PortMap.Addr.IsValid() }

// usable counts the relays over which packets flow.
func (r *netReport) usable() (n int) {
	for _, one := range r.Relays {
		if one.State == string(relay.StateBound) || one.State == string(relay.StateUsable) {
			n++
		}
	}
	return n
}

func (r *netReport) ipv6() string {
	is6 := func(a netip.AddrPort) bool { return a.Addr().Is6() }
	switch {
	case slices.ContainsFunc(r.NAT.Reflexive, is6):
		return "yes"
	case !slices.ContainsFunc(r.Candidates, is6):
		return "none"
	case slices.ContainsFunc(r.STUN, is6):
		return "no"
	}
	return "untested"
}

// probe asks what the node has no need to know: what is filtered, and whether relays can be reached over HTTPS.
func (r *netReport) probe(ctx context.Context, node *fnlib.Node) {
	var wg sync.WaitGroup
	r.HTTPS = "untested"
	for i, s := range node.Relays() {
		one := &r.Relays[i]
		if s.HTTPS == "" {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, httpsTimeout)
			defer cancel()
			rtt, err := relay.CheckHTTPS(ctx, s.HTTPS, s.CertSHA256)
			one.httpsRTT, one.HTTPSRTT = rtt, seconds(rtt)
			if err != nil {
				one.HTTPSError = err.Error()
			}
		})
	}
	if server, second, ok := r.stunPair(); ok {
		wg.Go(func() {
			p, err := transport.ProbeNAT(ctx, server, second)
			if err != nil {
				return // what is unknown stays unknown, and Problems has it that nothing answers
			}
			r.NAT.Filtering, r.NAT.Hairpin = p.Filtering, p.Hairpin
			r.NAT.PortOffset = int(p.Mapped.Port()) - int(p.Local.Port())
		})
	}
	wg.Wait()
	for _, one := range r.Relays {
		switch {
		case one.HTTPS == "":
		case one.HTTPSError == "":
			r.HTTPS = "yes"
		case r.HTTPS == "untested":
			r.HTTPS = "no"
		}
	}
}

// stunPair finds a server that answers at two ports.
func (r *netReport) stunPair() (server, second netip.AddrPort, ok bool) {
	if !r.UDP {
		return server, second, false
	}
	for i, a := range r.STUN {
		for _, b := range r.STUN[i+1:] {
			if a.Addr() == b.Addr() && a.Port() != b.Port() && a.Addr().Is4() {
				return a, b, true
			}
		}
	}
	return server, second, false
}

// judge adds the problems that no relay has by itself.
func (r *netReport) judge(usable int) {
	add := func(text string) { r.Problems = append(r.Problems, text) }
	switch {
	case len(r.Relays) == 0:
		add("the rendezvous knows no relay: only functions that reach each other directly can link; start `relay --rendezvous`")
	case usable == 0 && len(r.NAT.Reflexive) == 0:
		add("nothing answers over UDP: a firewall blocks it, or the relays are down")
	}
	switch {
	case len(r.STUN) == 0:
		add("no STUN server is known: the address behind a NAT stays unknown")
	case len(r.NAT.Reflexive) == 0:
		add("no STUN server answers: the address behind a NAT stays unknown")
	}
	if slices.ContainsFunc(r.Relays, func(one relayReport) bool { return one.Via == "wss" }) {
		add("UDP is blocked: links go over HTTPS through a relay, never directly")
	}
	if r.PortMap != nil && r.PortMap.Error != "" {
		add(r.PortMap.Error)
	}
	for _, one := range r.Relays {
		if one.HTTPSError != "" {
			add(fmt.Sprintf("relay %s over HTTPS: %s", one.ID, one.HTTPSError))
		}
	}
	if r.NAT.Mapping == transport.MappingDepends && r.NAT.Step == 0 && !r.forwarded() {
		add("the NAT maps each destination to another, random port (symmetric): links with functions behind symmetric NATs stay on a relay")
	}
}
