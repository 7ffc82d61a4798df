// Package rendezvous is how instances of a job find one another: the messages that a function and the
// rendezvous exchange over NATS, the sealed envelopes that two instances exchange through it, and the
// client of both. It carries no payload of functions but small states that do not wait for a link, sealed; it knows nothing of QUIC or of relays' frames, and
// trusts the service with nothing but delivery.
//
// # Subjects
//
//	fnwire.v1.<verb>.<jobID>           request to the service (queue group "fnwire")
//	fnwire.v1.inbox.<jobID>.<peerID>   to one instance; fnwire.v1.inbox.<jobID>.all to all of a job
//	fnwire.v1.ack.<jobID>.<copy>.<n>   acknowledges envelope n to one copy of the service
//	fnwire.v1.relay.announce           request of a relay to every copy of the service
//	fnwire.v1.event.joined.<jobID>.<name>  between copies of the service: a name has a new holder
//	_INBOX_<jobID>.<peerID>.<...>      replies; the service answers to no other subject
//
// # Requests
//
// Everything is JSON. Unknown fields are ignored, so that fields can be added; "v" is 1 and changes
// only if that is not enough. A request is at most [MaxRequest] bytes:
//
//	{"body": "<JSON text>", "job_sig": "<base64>", "peer_sig": "<base64>"}
//
// Signatures are Ed25519 over "fnwire v1 request", a zero byte, the verb, a zero byte, the job ID (32
// bytes) and the exact bytes of body. job_sig is made with the job's signing key, peer_sig with the
// instance's key.
//
//	verb     body            signed by      reply
//	join     JoinRequest     job, instance  JoinReply
//	renew    RenewRequest    instance       RenewReply
//	leave    RenewRequest    instance       Reply
//	offer    OfferRequest    instance       OfferReply
//	lookup   NameRequest     job            LookupReply
//	wait     NameRequest     job            LookupReply, once the name has a holder
//	list     NameRequest     job            ListReply
//
// Each body tells when it was issued; the service refuses what is off by more than [MaxClockSkew], and
// a join that it has seen before. A refusal is {"error": {"code": ..., "message": ...}}, see [Code].
//
// renew and leave carry "hard", what the instance has seen of hard NATs, and the answers to join and renew what the job
// has reported: see [Hints]. These answers also carry "relays_tag", which stands for the relays and tokens; a renewal that names
// it is told of these only if they are others by now.
//
// # Epochs
//
// The first holder of a name gets the time in milliseconds as its epoch, each later one at least one
// more than the holder before. So epochs grow even if the service has lost its memory in between. A
// join that names the epoch it had before ("epoch" > 0) is a return: the holder's own identity keeps
// its epoch, somebody else's wins only if that epoch is higher than the present holder's.
//
// # Inbox
//
//	{"v":1, "type":"envelope", "envelope":{...}}  an offer or an answer; acknowledged by an empty reply
//	{"v":1, "type":"fenced", "epoch":N}           the name has a newer holder; the client makes sure by renewing
//	{"v":1, "type":"relays", "spread_ms":N}       relays have changed: renew within N ms, when is for chance to say, to learn them
//	{"v":1, "type":"ask", "from":"<peerID>"}      is there a link with that instance? answered by {"v":1, "linked":true}
//	{"v":1, "type":"wake", "name":..., "wake":"failed: ..."}  nobody holds the name that was called, and its hook has failed
//
// # Relays
//
//	{"id":"r1", "addr":"IP:PORT", "stun":["IP:PORT"...], "https":"HOST:PORT", "cert_sha256":"base64"}
//
// in announcements, and with "token" and "expires" in answers to join and renew. "https" is where the relay takes the
// same frames over WebSocket and TLS, and "cert_sha256" the hash of its certificate; both or neither are there.
// All of it is under the announcement's MAC.
//
// # Envelopes
//
// [Envelope] is what two instances exchange. Its body repeats everything that matters and is
// authenticated under the job key, which the service does not have: it can lose an envelope, hold it
// back or repeat it, but not make or change one. One thing it adds: an offer that goes with a join cannot name the
// epoch that the join will bring, says 0, and has it written beside the body.
//
// The verb "offer" takes offers, and envelopes of [KindStored] and [KindEarly], which are delivered to the holder of the name but not parked.
// With [KindEarly] goes "early", a sealed state in base64: beside the envelope in the request, and in the message to the holder. If, of the other two,
// nobody holds the name, the service calls the name's hook, if it has one: see package rendezvous/wake.
//
// # Relay announcements
//
//	{"body": "<JSON of Announcement>", "mac": "<base64>"}  ->  {"body": "<JSON of AnnounceReply>", "mac": ...}
//
// Both MACs are HMAC-SHA256 under keys derived from the relay secret, one per direction; the reply's
// covers the request as well. An announcement holds for [AnnounceTTL].
package rendezvous

import "time"

// Limits of the protocol.
const (
	MaxRequest    = 96 << 10         // bytes of a request
	MaxEnvelope   = 8 << 10          // bytes of an envelope in JSON
	MaxCandidates = 16               // candidates in a hello
	MaxFlight     = 4000             // bytes of QUIC packets in a hello
	MaxStored     = 128              // bytes of the name of a stored state
	MaxEarly      = 36 << 10         // bytes of an early state, sealed
	MaxSaid       = 2 << 10          // bytes that are said of one
	MaxJoinOffers = 4                // offers that go with a join
	MaxParked     = 16               // offers that wait for one name
	MaxPark       = 10 * time.Minute // how long an offer may wait, and the age at which Open refuses it
	MaxWait       = time.Minute      // how long one wait request is held; Client.Wait repeats it
	MaxClockSkew  = 2 * time.Minute  // of a request's issue time

	AnnounceInterval = 10 * time.Second // how often a relay announces itself
	AnnounceTTL      = 30 * time.Second // how long an announcement holds
)
