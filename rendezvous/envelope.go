package rendezvous

import (
	"crypto/ed25519"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
)

// Kinds of hello.
const (
	KindOffer  = "offer"
	KindAnswer = "answer"
	KindStored = "stored" // a state for the addressee is in the store
	KindEarly  = "early"  // a state goes beside the envelope, as its Early
	KindSaid   = "said"   // what the addressee of such a state says of it
)

// Classes of path that the sender of a hello accepts.
const (
	ClassAuto   uint8 = 0
	ClassDirect uint8 = 1
	ClassRelay  uint8 = 2
)

// Candidate is an address at which an instance may be reached.
type Candidate struct {
	Addr netip.AddrPort `json:"addr"`
	Kind string         `json:"kind"` // "host", "srflx", "mapped"
}

// Hello is the body of an envelope.
type Hello struct {
	Job        job.ID         `json:"job"`
	Kind       string         `json:"kind"` // KindOffer or one of the others
	FromName   string         `json:"from_name"`
	FromPeer   string         `json:"from_peer"`
	FromEpoch  uint64         `json:"from_epoch"`
	ToName     string         `json:"to_name"`
	ToPeer     string         `json:"to_peer,omitempty"` // required in an answer, and with KindSaid
	Seq        uint64         `json:"seq"`               // grows over all hellos of one instance
	Time       time.Time      `json:"time"`
	InReplyTo  uint64         `json:"in_reply_to,omitempty"` // an answer's: Seq of the offer
	Class      uint8          `json:"class"`                 // ClassAuto, ClassDirect or ClassRelay
	Nonce      Nonce          `json:"nonce"`                 // one per instance
	Candidates []Candidate    `json:"candidates,omitempty"`  // at most MaxCandidates
	Relay      string         `json:"relay,omitempty"`       // ID of the sender's home relay
	RelayAddr  netip.AddrPort `json:"relay_addr"`
	NAT        *NAT           `json:"nat,omitempty"` // none = nothing known

	// Lost names the link of this class that the sender of an offer had with the addressee last, if any: a link
	// that the addressee has and that is not named is newer than the offer, and stays.
	Lost Nonce `json:"lost,omitzero"`
	// Flight is what the sender's QUIC says first, at most MaxFlight bytes of packets.
	Flight [][]byte `json:"flight,omitempty"`

	// Stored is the name of a state in the store, at most MaxStored bytes; of KindStored only.
	Stored string `json:"stored,omitempty"`

	// Said is what is said of an early state, at most MaxSaid bytes; of KindSaid only.
	Said []byte `json:"said,omitempty"`

	// Joining says that the offer went with the sender's join: FromEpoch is what the service says it is, and
	// a relay is not known yet.
	Joining bool `json:"-"`
}

// NAT is what the sender of a hello knows of the NAT that it is behind. The numbers are those of package
// transport/punch; a receiver takes what it does not know for "unknown".
type NAT struct {
	Mapping uint8          `json:"mapping"`
	Step    int8           `json:"step,omitempty"`
	Public  netip.AddrPort `json:"public,omitzero"`
}

// Envelope carries a Hello. The fields beside Body are for the service, which routes by them; they
// prove nothing, and Open refuses an envelope whose body says otherwise.
type Envelope struct {
	V         int    `json:"v"`
	Job       job.ID `json:"job"`
	Kind      string `json:"kind"`
	FromName  string `json:"from_name"`
	FromPeer  string `json:"from_peer"`
	FromEpoch uint64 `json:"from_epoch"`
	ToName    string `json:"to_name"`
	Body      string `json:"body"` // JSON of Hello
	MAC       []byte `json:"mac"`  // job.Key.MAC("rendezvous envelope", kind, body)

	// Early is what goes beside an envelope of KindEarly to who holds the name now, at most MaxEarly bytes. It is sealed by its sender:
	// the MAC does not cover it.
	Early []byte `json:"-"`
}

// Self says to whom an envelope must be addressed for Open to accept it.
type Self struct {
	Name string
	Peer peer.ID
}

func envelopeMAC(key job.Key, kind, body string) []byte {
	mac := key.MAC("rendezvous envelope", []byte(kind), []byte(body))
	return mac[:]
}

// Seal makes the envelope of h. Time is set to now if it is zero. Errors match ErrEnvelope.
func Seal(key job.Key, h Hello) (Envelope, error) {
	if h.Time.IsZero() {
		h.Time = time.Now()
	}
	h.Time = h.Time.UTC().Truncate(time.Millisecond)
	if h.Job != key.ID() {
		return Envelope{}, fmt.Errorf("%w: seal: hello of another job", ErrEnvelope)
	}
	if err := h.check(); err != nil {
		return Envelope{}, fmt.Errorf("%w: seal: %w", ErrEnvelope, err)
	}
	body, err := json.Marshal(h)
	if err != nil {
		return Envelope{}, fmt.Errorf("%w: seal: %w", ErrEnvelope, err)
	}
	e := Envelope{
		V: 1, Job: h.Job, Kind: h.Kind, FromName: h.FromName, FromPeer: h.FromPeer, FromEpoch: h.FromEpoch,
		ToName: h.ToName, Body: string(body), MAC: envelopeMAC(key, h.Kind, string(body)),
	}
	if n := e.Size(); n > MaxEnvelope {
		return Envelope{}, fmt.Errorf("%w: seal: %d bytes, at most %d", ErrEnvelope, n, MaxEnvelope)
	}
	return e, nil
}

// Open checks that a member of the job made e for self within the last ten minutes, and returns what
// it says. A zero field of self is not compared. Whether the hello is older than another of the same
// instance (Seq) is for the caller to see. Errors match ErrEnvelope.
func Open(key job.Key, e Envelope, self Self) (Hello, error) {
	h, err := open(key, e, self, time.Now())
	if err != nil {
		return Hello{}, wrapEnvelope(err)
	}
	return h, nil
}

func wrapEnvelope(err error) error { return fmt.Errorf("%w: %w", ErrEnvelope, err) }

func open(key job.Key, e Envelope, self Self, now time.Time) (Hello, error) {
	if e.V != 1 {
		return Hello{}, fmt.Errorf("version %d", e.V)
	}
	if len(e.Body) > MaxEnvelope {
		return Hello{}, fmt.Errorf("%d bytes, at most %d", len(e.Body), MaxEnvelope)
	}
	if !hmac.Equal(e.MAC, envelopeMAC(key, e.Kind, e.Body)) {
		return Hello{}, fmt.Errorf("not sealed with this job's key")
	}
	var h Hello
	if err := json.Unmarshal([]byte(e.Body), &h); err != nil {
		return Hello{}, fmt.Errorf("body: %w", err)
	}
	switch {
	case h.Job != key.ID() || e.Job != h.Job:
		return Hello{}, fmt.Errorf("made for another job")
	case h.Kind != e.Kind:
		return Hello{}, fmt.Errorf("kind %.16q outside, %.16q inside", e.Kind, h.Kind)
	case h.FromPeer != e.FromPeer || h.FromName != e.FromName || h.FromEpoch != e.FromEpoch && !h.joining():
		return Hello{}, fmt.Errorf("sender outside and inside differ")
	case h.ToName != e.ToName:
		return Hello{}, fmt.Errorf("addressee outside and inside differ")
	case self.Name != "" && h.ToName != self.Name:
		return Hello{}, fmt.Errorf("addressed to another name")
	case self.Peer != "" && h.ToPeer != "" && h.ToPeer != self.Peer.String():
		return Hello{}, fmt.Errorf("addressed to another instance")
	case self.Peer != "" && h.FromPeer == self.Peer.String():
		return Hello{}, fmt.Errorf("sent by this very instance")
	case now.Sub(h.Time) > MaxPark || h.Time.Sub(now) > MaxPark:
		return Hello{}, fmt.Errorf("made %v ago, at most %v (or clocks differ)", now.Sub(h.Time).Round(time.Second), MaxPark)
	}
	if h.joining() {
		h.Joining, h.FromEpoch = true, e.FromEpoch
	}
	return h, h.check()
}

func (h *Hello) joining() bool { return h.FromEpoch == 0 && h.Kind == KindOffer }

// check tests what a hello must satisfy whoever made it.
func (h *Hello) check() error {
	if err := job.CheckName(h.FromName); err != nil {
		return err
	}
	if err := job.CheckName(h.ToName); err != nil {
		return err
	}
	if err := CheckPeer(h.FromPeer); err != nil {
		return err
	}
	switch {
	case !isKind(h.Kind):
		return fmt.Errorf("kind %.16q", h.Kind)
	case (h.Kind == KindAnswer || h.Kind == KindSaid) && h.ToPeer == "":
		return errors.New("answer to nobody")
	case (h.Kind == KindSaid) != (len(h.Said) > 0) || len(h.Said) > MaxSaid:
		return fmt.Errorf("%d bytes said of a state", len(h.Said))
	case (h.Kind == KindStored) != (h.Stored != "") || len(h.Stored) > MaxStored:
		return fmt.Errorf("name of a stored state of %d bytes", len(h.Stored))
	case h.Class > ClassRelay:
		return fmt.Errorf("class %d", h.Class)
	case len(h.Relay) > MaxRelayID:
		return fmt.Errorf("relay ID of %d bytes, at most %d", len(h.Relay), MaxRelayID)
	case len(h.Candidates) > MaxCandidates:
		return fmt.Errorf("%d candidates, at most %d", len(h.Candidates), MaxCandidates)
	}
	flight := 0
	for _, p := range h.Flight {
		flight += len(p)
	}
	if flight > MaxFlight || len(h.Flight) > MaxFlight/1000 {
		return fmt.Errorf("flight of %d packets, %d bytes, at most %d", len(h.Flight), flight, MaxFlight)
	}
	if h.ToPeer != "" {
		if err := CheckPeer(h.ToPeer); err != nil {
			return err
		}
	}
	if h.RelayAddr.IsValid() && !usable(h.RelayAddr) {
		return fmt.Errorf("relay address %v", h.RelayAddr)
	}
	if h.NAT != nil && h.NAT.Public.IsValid() && !usable(h.NAT.Public) {
		return fmt.Errorf("public address %v", h.NAT.Public)
	}
	for _, c := range h.Candidates {
		if !usable(c.Addr) || c.Kind == "" || len(c.Kind) > 16 {
			return fmt.Errorf("candidate %v of kind %.16q", c.Addr, c.Kind)
		}
	}
	return nil
}

// usable refuses addresses that no instance or relay can have.
func usable(a netip.AddrPort) bool {
	ip := a.Addr()
	return a.IsValid() && a.Port() != 0 && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast() &&
		ip.Unmap() != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// CheckPeer returns an error unless s is the peer ID of an Ed25519 identity in its usual text form.
func CheckPeer(s string) error {
	_, err := peerKey(s)
	return err
}

// peerKey returns the key in a peer ID for which CheckPeer returns nil.
func peerKey(s string) (ed25519.PublicKey, error) {
	if len(s) > 64 {
		return nil, fmt.Errorf("peer ID of %d bytes", len(s))
	}
	id, err := peer.Decode(s)
	if err != nil {
		return nil, fmt.Errorf("peer ID %.64q: %w", s, err)
	}
	if id.String() != s { // another spelling of the same ID would be another subject
		return nil, fmt.Errorf("peer ID %.64q: not in base58", s)
	}
	return ident.PublicKey(id)
}

func isKind(kind string) bool {
	switch kind {
	case KindOffer, KindAnswer, KindStored, KindEarly, KindSaid:
		return true
	}
	return false
}

// Size returns the length of e in JSON, without Early.
func (e *Envelope) Size() int {
	n := len(`{"v":,"job":"","kind":,"from_name":,"from_peer":,"from_epoch":,"to_name":,"body":,"mac":""}`)
	n += decimals(int64(e.V)) + len(e.Job.String()) + len(strconv.FormatUint(e.FromEpoch, 10)) + base64.StdEncoding.EncodedLen(len(e.MAC))
	if e.MAC == nil {
		n += len("null") - len(`""`)
	}
	for _, s := range []string{e.Kind, e.FromName, e.FromPeer, e.ToName, e.Body} {
		n += quotedLen(s)
	}
	return n
}

func decimals(n int64) int { return len(strconv.FormatInt(n, 10)) }

// quotedLen is the length of s as a string in JSON, as package encoding/json writes it.
func quotedLen(s string) int {
	const escaped = len(`\u0000`)
	n := len(s) + 2
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c > '>' && c != '\\' && c < utf8.RuneSelf: // most
		case c == '"' || c == '\\' || c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t':
			n++
		case c < ' ' || c == '<' || c == '>' || c == '&':
			n += escaped - 1
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == '\u2028' || r == '\u2029' || r == utf8.RuneError && size == 1 {
				n += escaped - size
			}
			i += size - 1
		}
	}
	return n
}

// Check tests what the service can test without the job key.
func (e *Envelope) Check() error {
	if e.V != 1 || !isKind(e.Kind) || len(e.MAC) != 32 {
		return fmt.Errorf("%w: malformed", ErrEnvelope)
	}
	if (e.Kind == KindEarly) != (len(e.Early) > 0) || len(e.Early) > MaxEarly {
		return fmt.Errorf("%w: %d bytes beside it, at most %d, and only of kind %q", ErrEnvelope, len(e.Early), MaxEarly, KindEarly)
	}
	if err := job.CheckName(e.ToName); err != nil {
		return fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	if n := e.Size(); n > MaxEnvelope {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrEnvelope, n, MaxEnvelope)
	}
	return nil
}
