package main

import (
	"github.com/fnwire/fnwire/transport"
	"github.com/fnwire/fnwire/transport/punch"
)

// expectation says how links with functions of one kind will go.
type expectation struct {
	Peer    string `json:"peer"`
	Outcome string `json:"outcome"` // direct, predicted, birthday, relay or unknown
}

// The outcomes, for programs and for people.
const (
	outcomeDirect    = "direct"
	outcomePredicted = "predicted"
	outcomeBirthday  = "birthday"
	outcomeRelay     = "relay"
	outcomeUnknown   = "unknown"
)

var outcomes = map[string]string{
	outcomeDirect:    "direct at once",
	outcomePredicted: "direct, by predicting ports",
	outcomeBirthday:  "direct after some seconds of traffic, by trying many ports",
	outcomeRelay:     "by a relay",
	outcomeUnknown:   "not known",
}

// natSide is one end of a link: how its NAT maps, and whether it lets in packets from ports it has not sent to.
type natSide struct {
	mapping punch.Mapping
	lenient bool
}

// peerKinds are the kinds of function that there are, the most common behind NATs of clouds and homes.
var peerKinds = []struct {
	name string
	natSide
}{
	{"no NAT, or one that filters no ports", natSide{punch.MappingStable, true}},
	{"NAT with one port for all destinations", natSide{punch.MappingStable, false}},
	{"symmetric NAT with ports in order", natSide{punch.MappingSequential, false}},
	{"symmetric NAT with random ports", natSide{punch.MappingRandom, false}},
	{"UDP blocked", natSide{punch.MappingBlocked, false}},
}

// expect tells how two sides will meet.
func expect(a, b natSide) string {
	method := punch.MethodFor(punch.NAT{Mapping: a.mapping}, punch.NAT{Mapping: b.mapping})
	known := a.mapping != punch.MappingUnknown && b.mapping != punch.MappingUnknown
	blocked := a.mapping == punch.MappingBlocked || b.mapping == punch.MappingBlocked
	open := a.mapping == punch.MappingStable && a.lenient || b.mapping == punch.MappingStable && b.lenient
	switch {
	case blocked:
		return outcomeRelay
	case open: // the other side's first packet gets in, whatever its port is
		return outcomeDirect
	case !known:
		return outcomeUnknown
	case method == punch.MethodPlain:
		return outcomeDirect
	case method == punch.MethodPredict:
		return outcomePredicted
	case method == punch.MethodBirthday:
		return outcomeBirthday
	}
	return outcomeRelay
}

// expectations says what to expect from here. A port that the router forwards lets everybody in.
func expectations(nat transport.NAT, filtering transport.Filtering, forwarded bool) []expectation {
	here := natSide{nat.Punch().Mapping, filtering == transport.FilteringLenient}
	if forwarded {
		here = natSide{punch.MappingStable, true}
	}
	list := make([]expectation, 0, len(peerKinds))
	for _, k := range peerKinds {
		list = append(list, expectation{k.name, expect(here, k.natSide)})
	}
	return list
}
