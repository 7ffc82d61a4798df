package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fnwire/fnwire/transport"
)

func (r *netReport) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "joined\tas %s in %v\n", r.Name, short(time.Duration(r.Join.Total*float64(time.Second))))
	for i, a := range r.Candidates {
		label := ""
		if i == 0 {
			label = "candidates"
		}
		fmt.Fprintf(w, "%s\t%v\n", label, a)
	}
	fmt.Fprintf(w, "UDP\t%s\n", map[bool]string{true: "yes", false: "no"}[r.UDP])
	fmt.Fprintf(w, "IPv6\t%s\n", r.IPv6)
	fmt.Fprintf(w, "HTTPS\t%s\n", r.HTTPS)
	r.printNAT(w)
	fmt.Fprintf(w, "STUN servers\t%s\n", addrs(r.STUN))
	for _, one := range r.Relays {
		one.print(w)
	}
	for i, e := range r.Expect {
		label := ""
		if i == 0 {
			label = "what to expect"
		}
		fmt.Fprintf(w, "%s\t%s: %s\n", label, e.Peer, outcomes[e.Outcome])
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "problem\t%s\n", p)
	}
	return w.Flush()
}

func (r *netReport) printNAT(w io.Writer) {
	n := &r.NAT
	ports := ""
	switch {
	case n.Mapping == transport.MappingNone:
	case n.PortPreserved:
		ports = ", port preserved"
	case n.Step != 0:
		ports = fmt.Sprintf(", ports %+d apart", n.Step)
	case n.Mapping == transport.MappingDepends:
		ports = ", random ports"
	}
	fmt.Fprintf(w, "NAT mapping\t%s%s\n", n.Mapping, ports)
	fmt.Fprintf(w, "NAT filtering\t%s\n", n.Filtering)
	fmt.Fprintf(w, "NAT hairpin\t%s\n", n.Hairpin)
	if l := n.Lifetime; l != nil {
		more := "and longer"
		if l.Dead > 0 {
			more = fmt.Sprintf("gone after %v s", l.Dead)
		}
		fmt.Fprintf(w, "NAT life-time\t%v s without traffic, %s\n", l.Alive, more)
	}
	fmt.Fprintf(w, "mapped address\t%s\n", addrs(n.Reflexive))
	if m := r.PortMap; m != nil {
		if m.Addr.IsValid() {
			fmt.Fprintf(w, "router forwards\t%v\n", m.Addr)
		} else {
			fmt.Fprintf(w, "router forwards\tnothing\n")
		}
	}
}

func (one *relayReport) print(w io.Writer) {
	home, rtt, via, https := "", "RTT unknown", "", ""
	if one.Via != "" {
		via = " over " + one.Via
	}
	if one.Home {
		home = ", home"
	}
	if one.rtt > 0 {
		rtt = "RTT " + short(one.rtt).String()
	}
	switch {
	case one.HTTPSError != "":
		https = ", HTTPS " + one.HTTPS + " fails"
	case one.HTTPS != "":
		https = fmt.Sprintf(", HTTPS %s RTT %v", one.HTTPS, short(one.httpsRTT))
	}
	fmt.Fprintf(w, "relay %s\t%v, %s%s, %s%s%s\n", one.ID, one.Addr, one.State, via, rtt, home, https)
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
