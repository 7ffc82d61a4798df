package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
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

// netReport is what netcheck prints with --json. Times are in seconds.
type netReport struct {
	OK         bool             `json:"ok"`   // whether a relay or a mapped address was found
	Name       string           `json:"name"` // that netcheck joined under
	Candidates []netip.AddrPort `json:"candidates"`
	NAT        struct {
		Mapping       transport.Mapping `json:"mapping"`
		PortPreserved bool              `json:"port_preserved"`
		Reflexive     []netip.AddrPort  `json:"reflexive"`
	} `json:"nat"`
	STUN   []netip.AddrPort `json:"stun_servers"`
	Relays []relayReport    `json:"relays"`
	Join   struct {
		Connect float64 `json:"connect_s"`
		Join    float64 `json:"join_s"`
		Relay   float64 `json:"relay_s"` // 0: none answered in time
		STUN    float64 `json:"stun_s"`  // 0: likewise
		Total   float64 `json:"total_s"`
	} `json:"join"`
	Problems []string `json:"problems"`
}

type relayReport struct {
	ID    string         `json:"id"`
	Addr  netip.AddrPort `json:"addr"`
	Home  bool           `json:"home"`
	State string         `json:"state"`
	Via   string         `json:"via"` // "udp", or "wss" where UDP is blocked
	RTT   float64        `json:"rtt_s"`
	Error string         `json:"error,omitempty"`

	rtt time.Duration
}

func newNetcheck(c *common) *cobra.Command {
	return &cobra.Command{
		Use:   "netcheck",
		Short: "Show what this network allows",
		Long: `Join, and tell at what addresses this machine could be reached, what kind of NAT it is behind, and how it
stands with each relay. Problems are listed with what to do about them; the exit code is 0 when the check was made.

netcheck joins as cli-<random> unless --name is given. FNWIRE_NAME is left to the function whose name it is.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: c.run(func(cmd *cobra.Command, _ []string) error {
			ctx, cancel, err := c.context(cmd, lookTimeout)
			if err != nil {
				return err
			}
			defer cancel()
			if !cmd.Flags().Changed("log-level") {
				c.logLevel = "error" // warnings would tell the problems twice
			}
			node, err := c.watch(ctx, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer node.Close()
			if err := settleRelays(ctx, node); err != nil {
				return err
			}
			r := check(node)
			if c.json {
				return cli.PrintJSON(cmd.OutOrStdout(), r)
			}
			return r.print(cmd.OutOrStdout())
		}),
	}
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
	r.NAT.Mapping, r.NAT.PortPreserved, r.NAT.Reflexive = nat.Mapping, nat.PortPreserved, nat.Reflexive
	if nat.Mapping == "" {
		r.NAT.Mapping = transport.MappingUnknown
	}
	if r.NAT.Reflexive == nil {
		r.NAT.Reflexive = []netip.AddrPort{}
	}
	usable := 0
	for _, s := range node.Relays() {
		one := relayReport{ID: s.ID, Addr: s.Addr, Home: s.Home, State: s.State, Via: s.Via, RTT: seconds(s.RTT), rtt: s.RTT}
		if s.Err != nil {
			one.Error = s.Err.Error()
			r.Problems = append(r.Problems, fmt.Sprintf("relay %s: %v", s.ID, s.Err))
		} else if s.State == string(relay.StateBound) || s.State == string(relay.StateUsable) {
			usable++
		}
		r.Relays = append(r.Relays, one)
		r.STUN = append(r.STUN, s.STUN...)
	}
	j := &r.Join
	j.Connect, j.Join, j.Relay = seconds(joined.Connect), seconds(joined.Join), seconds(joined.Relay)
	j.STUN, j.Total = seconds(joined.STUN), seconds(joined.Total)
	r.OK = usable > 0 || len(r.NAT.Reflexive) > 0
	r.judge(usable)
	return r
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
	if r.NAT.Mapping == transport.MappingDepends {
		add("the NAT maps each destination to another port (symmetric): links with functions behind NATs of that kind stay on a relay")
	}
}

func (r *netReport) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "joined\tas %s in %v ms\n", r.Name, r.Join.Total*1000)
	for i, a := range r.Candidates {
		label := ""
		if i == 0 {
			label = "candidates"
		}
		fmt.Fprintf(w, "%s\t%v\n", label, a)
	}
	preserved := ""
	if r.NAT.PortPreserved {
		preserved = ", port preserved"
	}
	fmt.Fprintf(w, "NAT mapping\t%s%s\n", r.NAT.Mapping, preserved)
	fmt.Fprintf(w, "mapped address\t%s\n", addrs(r.NAT.Reflexive))
	fmt.Fprintf(w, "STUN servers\t%s\n", addrs(r.STUN))
	for _, one := range r.Relays {
		home, rtt, via := "", "RTT unknown", ""
		if one.Via != "" {
			via = " over " + one.Via
		}
		if one.Home {
			home = ", home"
		}
		if one.rtt > 0 {
			rtt = "RTT " + short(one.rtt).String()
		}
		fmt.Fprintf(w, "relay %s\t%v, %s%s, %s%s\n", one.ID, one.Addr, one.State, via, rtt, home)
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "problem\t%s\n", p)
	}
	return w.Flush()
}

func addrs(list []netip.AddrPort) string {
	if len(list) == 0 {
		return "none"
	}
	var text []string
	for _, a := range list {
		text = append(text, a.String())
	}
	return strings.Join(text, ", ")
}
