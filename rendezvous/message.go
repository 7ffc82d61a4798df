package rendezvous

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fnwire/fnwire/internal/job"
)

// Request is what travels to the service: a body and who vouches for it.
type Request struct {
	Body    string `json:"body"`
	JobSig  []byte `json:"job_sig,omitempty"`
	PeerSig []byte `json:"peer_sig,omitempty"`
}

// Head is what every body starts with.
type Head struct {
	V      int       `json:"v"`
	Job    job.ID    `json:"job"`
	Name   string    `json:"name"` // of the sender; in lookup and wait the name asked for
	Peer   string    `json:"peer,omitempty"`
	Issued time.Time `json:"issued"`
	Nonce  Nonce     `json:"nonce"`
}

// JoinRequest asks for a name.
type JoinRequest struct {
	Head
	Exclusive bool   `json:"exclusive,omitempty"` // refuse rather than take over, and rather than be taken over
	Epoch     uint64 `json:"epoch,omitempty"`     // of the same instance's join before

	// Offers are placed as soon as the name is taken, at most MaxJoinOffers. They name no epoch of their sender.
	Offers []Envelope `json:"offers,omitempty"`
}

// RenewRequest extends a lease, or ends it (leave).
type RenewRequest struct {
	Head
	Epoch uint64 `json:"epoch"`
	Seen  uint64 `json:"seen,omitempty"` // the last parked_to that arrived: those offers need not be kept
	Hard  Hints  `json:"hard,omitempty"` // what this instance has seen of them

	RelaysTag string `json:"relays_tag,omitempty"` // of the relays and tokens that arrived last
}

// Hints tell which ways through hard NATs have worked in a job: four fields of two bits, of which the instances alone know the
// meaning (package punch, Outlooks), 0 for nothing known. The service keeps for each field what was reported last.
// They let an instance try sooner or later, and are good for nothing else.
type Hints uint8

// With returns h with what a newer report knows.
func (h Hints) With(newer Hints) Hints {
	for mask := Hints(3); mask != 0; mask <<= 2 {
		if newer&mask != 0 {
			h = h&^mask | newer&mask
		}
	}
	return h
}

// OfferRequest has an envelope delivered to the holder of its ToName, or, if it is an offer, parked until there is one.
type OfferRequest struct {
	Head
	Epoch    uint64   `json:"epoch"`
	Envelope Envelope `json:"envelope"`
	Early    []byte   `json:"early,omitempty"` // the envelope's
}

// NameRequest asks about a name (lookup, wait) or about all (list, with an empty name).
type NameRequest struct {
	Head
	TimeoutMS int64 `json:"timeout_ms,omitempty"` // wait: how long to hold the request, at most MaxWait
}

// RelayInfo is a relay as an instance sees it.
type RelayInfo struct {
	ID   string           `json:"id"`
	Addr netip.AddrPort   `json:"addr"`
	STUN []netip.AddrPort `json:"stun,omitempty"` // where it answers binding requests, at most 4

	// HTTPS is the HOST:PORT where it takes the same frames over WebSocket and TLS; empty if it does not.
	// CertSHA256 is the hash of the certificate there, whoever signed it.
	HTTPS      string `json:"https,omitempty"`
	CertSHA256 []byte `json:"cert_sha256,omitempty"`

	Token   []byte    `json:"token,omitempty"`  // admits one instance; empty in announcements
	Expires time.Time `json:"expires,omitzero"` // of the token
}

// MaxRelayID is the most bytes that a relay's ID may have.
const MaxRelayID = 64

// Check returns an error unless r can be a relay. Its ID follows the rule for names.
func (r *RelayInfo) Check() error {
	if err := job.CheckName(r.ID); err != nil {
		return fmt.Errorf("relay ID: %w", err)
	}
	if !usable(r.Addr) {
		return fmt.Errorf("relay %s: address %v", r.ID, r.Addr)
	}
	if len(r.STUN) > 4 {
		return fmt.Errorf("relay %s: %d STUN addresses, at most 4", r.ID, len(r.STUN))
	}
	for _, a := range r.STUN {
		if !usable(a) {
			return fmt.Errorf("relay %s: STUN address %v", r.ID, a)
		}
	}
	return r.checkHTTPS()
}

// maxHost is the longest name that DNS allows.
const maxHost = 253

func (r *RelayInfo) checkHTTPS() error {
	if r.HTTPS == "" {
		if len(r.CertSHA256) > 0 {
			return fmt.Errorf("relay %s: certificate without HTTPS address", r.ID)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(r.HTTPS)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
		return fmt.Errorf("relay %s: HTTPS address %q: want HOST:PORT", r.ID, r.HTTPS)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" || !usable(netip.AddrPortFrom(a, 1)) {
			return fmt.Errorf("relay %s: HTTPS address %q", r.ID, r.HTTPS)
		}
	} else if !isDNSName(host) {
		return fmt.Errorf("relay %s: HTTPS address %q: no host name", r.ID, r.HTTPS)
	}
	if len(r.CertSHA256) != sha256.Size {
		return fmt.Errorf("relay %s: hash of the certificate has %d bytes, want %d", r.ID, len(r.CertSHA256), sha256.Size)
	}
	return nil
}

func isDNSName(s string) bool {
	return s != "" && len(s) <= maxHost && s[0] != '.' && s[0] != '-' && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.'
	})
}

// Same tells whether two relays are announced alike; what belongs to one instance does not count.
func (r *RelayInfo) Same(o *RelayInfo) bool {
	return r.ID == o.ID && r.Addr == o.Addr && slices.Equal(r.STUN, o.STUN) && r.HTTPS == o.HTTPS && bytes.Equal(r.CertSHA256, o.CertSHA256)
}

// Bare returns r without what belongs to one instance.
func (r *RelayInfo) Bare() RelayInfo {
	return RelayInfo{ID: r.ID, Addr: r.Addr, STUN: slices.Clone(r.STUN), HTTPS: r.HTTPS, CertSHA256: slices.Clone(r.CertSHA256)}
}

// Reply is what every reply starts with, and all of it after a refusal or a leave.
type Reply struct {
	Error *RefusedError `json:"error,omitempty"`
}

// Refusal returns the refusal, or nil.
func (r *Reply) Refusal() *RefusedError { return r.Error }

// JoinReply tells the new holder what it holds.
type JoinReply struct {
	Reply
	Epoch   uint64      `json:"epoch,omitempty"`
	LeaseMS int64       `json:"lease_ms,omitempty"`
	Relays  []RelayInfo `json:"relays,omitempty"`

	// RelaysTag stands for the relays and tokens. If it is that of the request these are left out: nothing has changed.
	RelaysTag string `json:"relays_tag,omitempty"`

	// Parked offers are kept, and given again to whoever joins, until a renewal says that they arrived.
	Parked   []Envelope `json:"parked,omitempty"`
	ParkedTo uint64     `json:"parked_to,omitempty"`

	Hard Hints `json:"hard,omitempty"` // what instances of the job have reported
}

// RenewReply brings fresh tokens, and offers that were parked because the instance did not acknowledge them.
type RenewReply = JoinReply

// OfferReply tells what became of an offer.
type OfferReply struct {
	Reply
	Delivered bool   `json:"delivered"`       // the holder's instance acknowledged it; else it is parked
	Peer      string `json:"peer,omitempty"`  // the holder
	Epoch     uint64 `json:"epoch,omitempty"` // the holder's
	Wake      string `json:"wake,omitempty"`  // nobody holds the name, and its hook: WakeCalled, or WakeFailed and the reason
}

// What became of a name's wake hook.
const (
	WakeCalled = "called"
	WakeFailed = "failed: "
)

// Member is the holder of a name.
type Member struct {
	Name  string `json:"name"`
	Peer  string `json:"peer"`
	Epoch uint64 `json:"epoch"`
}

// LookupReply names the holder.
type LookupReply struct {
	Reply
	Member *Member `json:"member,omitempty"`
}

// ListReply lists the holders by name, at most MaxList.
type ListReply struct {
	Reply
	Members []Member `json:"members,omitempty"`
	More    bool     `json:"more,omitempty"` // there are others
}

// MaxList bounds the members in a ListReply.
const MaxList = 4096

// Inbox is a message to an instance.
type Inbox struct {
	V        int       `json:"v"`
	Type     string    `json:"type"` // InboxEnvelope, InboxFenced, InboxRelays, InboxAsk or InboxWake
	Envelope *Envelope `json:"envelope,omitempty"`
	Early    []byte    `json:"early,omitempty"` // the envelope's
	Epoch    uint64    `json:"epoch,omitempty"`
	From     string    `json:"from,omitempty"` // peer ID of who asks
	Name     string    `json:"name,omitempty"` // that was called
	Wake     string    `json:"wake,omitempty"` // as in OfferReply

	// SpreadMS is the time over which the instances that hear of relays are to renew, each at random, since all hear of them at once.
	SpreadMS int64 `json:"spread_ms,omitempty"`
}

// linkedReply answers an InboxAsk.
type linkedReply struct {
	V      int  `json:"v"`
	Linked bool `json:"linked"` // there is a link with who asks
}

// Types of Inbox.
const (
	InboxEnvelope = "envelope"
	InboxFenced   = "fenced"
	InboxRelays   = "relays"
	InboxAsk      = "ask"  // whether there is a link; hints, as all that is not signed
	InboxWake     = "wake" // what became of the hook of a name for which an offer is parked; a hint likewise
)

// signedBytes is what a request's signatures cover.
func signedBytes(verb string, j job.ID, body string) []byte {
	b := make([]byte, 0, 64+len(body))
	b = append(b, "fnwire v1 request\x00"...)
	b = append(b, verb...)
	b = append(b, 0)
	b = append(b, j[:]...)
	return append(b, body...)
}

// SignRequest puts body (one of the request types) into a signed request. A nil key makes no signature.
func SignRequest(verb string, j job.ID, body any, jobKey, peerKey ed25519.PrivateKey) (Request, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return Request{}, err
	}
	r := Request{Body: string(b)}
	msg := signedBytes(verb, j, r.Body)
	if jobKey != nil {
		r.JobSig = ed25519.Sign(jobKey, msg)
	}
	if peerKey != nil {
		r.PeerSig = ed25519.Sign(peerKey, msg)
	}
	return r, nil
}

// ParseRequest reads a request for job j, as the service does: it checks size, the signatures that the
// verb needs, version, job, name and issue time, and then fills body, whose head must be at head.
// Errors are of type *RefusedError.
func ParseRequest(verb string, j job.ID, data []byte, now time.Time, body any, head *Head) error {
	if len(data) > MaxRequest {
		return Refuse(CodeBadRequest, "request of %d bytes, at most %d", len(data), MaxRequest)
	}
	var r Request
	if err := json.Unmarshal(data, &r); err != nil {
		return Refuse(CodeBadRequest, "request: not JSON")
	}
	needJob, needPeer := signers(verb)
	msg := signedBytes(verb, j, r.Body)
	if needJob && !j.Verify(msg, r.JobSig) {
		return Refuse(CodeUnauthorized, "%s is not signed with the job's key", verb)
	}
	if err := json.Unmarshal([]byte(r.Body), body); err != nil {
		return Refuse(CodeBadRequest, "%s: body: %v", verb, err)
	}
	if needPeer {
		pub, err := peerKey(head.Peer)
		if err != nil {
			return Refuse(CodeBadRequest, "%s: %v", verb, err)
		}
		if len(r.PeerSig) != ed25519.SignatureSize || !ed25519.Verify(pub, msg, r.PeerSig) {
			return Refuse(CodeUnauthorized, "%s is not signed by the instance it names", verb)
		}
	}
	switch {
	case head.V != 1:
		return Refuse(CodeBadRequest, "%s: version %d, want 1", verb, head.V)
	case head.Job != j:
		return Refuse(CodeUnauthorized, "%s: made for another job", verb)
	case now.Sub(head.Issued).Abs() > MaxClockSkew:
		return Refuse(CodeStale, "%s was issued %v away from the rendezvous' time; set the clock", verb, now.Sub(head.Issued).Round(time.Second))
	}
	if verb != VerbList {
		if err := job.CheckName(head.Name); err != nil {
			return Refuse(CodeIllegalName, "%v", err)
		}
	}
	return nil
}

// signers tells whose signatures a verb needs. A holder is known to the service by its key, so its
// later requests need only that.
func signers(verb string) (jobKey, peerKey bool) {
	switch verb {
	case VerbJoin:
		return true, true
	case VerbRenew, VerbLeave, VerbOffer:
		return false, true
	}
	return true, false
}
