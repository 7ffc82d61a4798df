package punch

import (
	"net/netip"
	"time"
)

const notTried = "not tried"

// Phase is what a Machine is busy with.
type Phase uint8

// The phases. A path is selected in Direct and Doubt only.
const (
	Idle       Phase = iota // no round runs
	Probing                 // a round runs
	Nominating              // an address answered and is being checked with full-size packets
	Direct                  // a path is trusted
	Doubt                   // the path fell silent and is probed
)

// String returns the phase in lower case.
func (p Phase) String() string {
	return [...]string{"idle", "probing", "nominating", "direct", "doubt"}[p]
}

// Route is where packets for the peer go.
type Route uint8

// The routes. RouteBoth means the same packet on both.
const (
	RouteRelay Route = iota
	RouteDirect
	RouteBoth
)

// String returns the route in lower case.
func (r Route) String() string { return [...]string{"relay", "direct", "both"}[r] }

// State is what a Machine knows; a copy.
type State struct {
	Phase      Phase
	Route      Route
	Path       netip.AddrPort // the peer's address on the selected path; zero if none
	Socket     int            // that reaches it there: 0, or the number of an extra one (see Open)
	Method     Method         // by which the selected path was found
	Generation uint16         // of the last selected path; 0 = never had one, the first is 2
	RTT        time.Duration  // of the selected path, smoothed
	Observed   netip.AddrPort // own address as the peer last saw it
	Since      time.Time      // when phase, route or path last changed
	Reason     string         // why not direct, for people; "" while direct
	Here       NAT            // the NAT of this side
	There      NAT            // the NAT of the peer, as it said
	Hopeless   bool           // the NATs rule a direct path out (MethodNone), and probing found none
	Counters   Counters
}

// Counters grow over the Machine's life, except those of the round.
type Counters struct {
	Rounds   int // rounds started
	Probes   int // probes sent, nominations included
	Replies  int // probes answered
	Calls    int // CALLs sent
	Refused  int // datagrams that were forged, replayed, malformed or out of place
	Unproven int // bytes sent, probes only, to addresses that never answered, in this round
	Target   int // the most of these to one address
	Attempts int // hard methods begun by this side
	Failed   int // times that it gave up for a while
	Guesses  int // probes to ports that nobody named
}

// State returns the present state.
func (m *Machine) State() State {
	l := m.look()
	return State{
		Phase: l.phase, Route: l.route, Path: l.path.AddrPort, Socket: l.path.Socket, Method: m.how, Generation: m.generation, RTT: m.path.rtt,
		Observed: m.observed, Since: m.since, Reason: l.reason, Counters: m.counters,
		Here: m.here, There: m.there, Hopeless: m.saidHopeless(),
	}
}

// look is the part of State that makes Output.Changed.
type look struct {
	phase      Phase
	route      Route
	path       end
	generation uint16
	reason     string
}

func (m *Machine) look() look {
	l := look{path: m.path.addr, generation: m.generation, reason: m.reason}
	switch {
	case m.path.sure():
		l.phase, l.route = Direct, RouteDirect
	case m.path.selected():
		l.phase, l.route = Doubt, RouteBoth
		if m.cfg.NoRelay {
			l.route = RouteDirect
		}
	case m.nominating():
		l.phase = Nominating
	case m.round.active || m.hardOn():
		l.phase = Probing
	}
	return l
}
