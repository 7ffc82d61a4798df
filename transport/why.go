package transport

import "github.com/fnwire/fnwire/transport/punch"

// Why tells in a word why a link's packets take the relay; Status.Reason says it in a sentence.
type Why string

// The reasons, those first that waiting does not help against.
const (
	WhyDirect       Why = ""                  // they do not
	WhyPolicy       Why = "policy"            // the link was asked for with RelayOnly
	WhyBlockedHere  Why = "udp blocked here"  // of this instance only TLS gets through
	WhyBlockedThere Why = "udp blocked there" // of the peer
	WhyNATs         Why = "nats"              // two such NATs cannot meet; see Status.NAT and Status.PeerNAT
	WhyPunching     Why = "punching"          // a way is being looked for
	WhyNoAnswer     Why = "no answer"         // none was found; it is tried again while traffic flows
	WhyNotTried     Why = "not tried"         // no offer or answer of the peer was there yet
	WhyNotValidated Why = "not validated"     // a way was found, and QUIC is about to take it
)

// why tells why a link whose packets go by the relay is not direct.
func why(class Class, st punch.State) Why {
	switch {
	case class == RelayOnly:
		return WhyPolicy
	case st.Path.IsValid():
		return WhyNotValidated
	case st.Hopeless && st.Here.Mapping == punch.MappingBlocked:
		return WhyBlockedHere
	case st.Hopeless && st.There.Mapping == punch.MappingBlocked:
		return WhyBlockedThere
	case st.Hopeless:
		return WhyNATs
	case st.Phase != punch.Idle:
		return WhyPunching
	case st.Counters.Rounds == 0:
		return WhyNotTried
	}
	return WhyNoAnswer
}
