package relay

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/token"
)

// First bytes of the frames.
const (
	TypeData      = 0x20
	TypeBind      = 0x21
	TypeChallenge = 0x22
	TypeProve     = 0x23
	TypeBound     = 0x24
	TypePing      = 0x25
	TypePong      = 0x26
	TypeUnbound   = 0x27
	TypeGone      = 0x28
	TypeRefused   = 0x29
)

// Lengths of the frames.
const (
	HeaderBytes    = 12   // of DATA, before the packet
	BindBytes      = 1232 // padded to what an IPv6 MTU of 1280 leaves: see doc.go
	ChallengeBytes = 32
	ProveBytes     = 104
	BoundBytes     = 44
	PingBytes      = 20
	PongBytes      = 20
	UnboundBytes   = 12
	GoneBytes      = 12
	RefusedBytes   = 12

	// MaxFrame is the longest DATA: what an Ethernet MTU leaves for a UDP payload over IPv4.
	MaxFrame = 1472
	// MaxPacket is the longest packet that a relay carries.
	MaxPacket = MaxFrame - HeaderBytes
)

const (
	version    = 1
	bindSigned = 176
	bindEnd    = 240 // padding follows
	provSigned = 40
	bindLabel  = "fnwire v1 relay bind\x00"
	proveLabel = "fnwire v1 relay prove\x00"
)

// Nonce ties an answer to its question.
type Nonce [8]byte

// Cookie is what the relay makes to see it again from the same address.
type Cookie [20]byte

// Reason says why a relay refuses a bind.
type Reason byte

// Reasons.
const (
	ReasonExpired Reason = 1
	ReasonClock   Reason = 2
	ReasonFull    Reason = 3
	ReasonJobFull Reason = 4
	ReasonPrefix  Reason = 5
	ReasonRevoked Reason = 6
	// ReasonDraining also comes unasked, with the nonce of the bind that made the session, which goes on for a moment.
	ReasonDraining Reason = 7
)

// String tells cause and remedy.
func (r Reason) String() string {
	switch r {
	case ReasonExpired:
		return "token expired; ask the rendezvous for a new one"
	case ReasonClock:
		return "the bind's time is off by minutes; set the clock"
	case ReasonFull:
		return "no session is free; use another relay"
	case ReasonJobFull:
		return "the job has as many sessions as a job may; use another relay or raise the limit"
	case ReasonPrefix:
		return "this network has as many sessions as it may; use another relay or raise the limit"
	case ReasonRevoked:
		return "the instance was revoked"
	case ReasonDraining:
		return "the relay is about to end; use another relay"
	default:
		return "unknown reason"
	}
}

func plain(b []byte, kind byte, size int) bool {
	return len(b) == size && b[0] == kind && b[1] == version && b[2] == 0 && b[3] == 0
}

func signed(label, relay string, frame []byte) []byte {
	h := sha256.Sum256([]byte(relay))
	b := make([]byte, 0, len(label)+len(h)+len(frame))
	b = append(b, label...)
	b = append(b, h[:]...)
	return append(b, frame...)
}

// PutHeader writes the first HeaderBytes of a DATA frame. Only 24 bits of tag are carried.
func PutHeader(b []byte, tag uint32, to ident.Short) {
	binary.BigEndian.PutUint32(b, tag&0xffffff|TypeData<<24)
	copy(b[4:HeaderBytes], to[:])
}

// ParseData splits a DATA frame; packet aliases b and is not empty.
func ParseData(b []byte) (peer ident.Short, tag uint32, packet []byte, ok bool) {
	if len(b) <= HeaderBytes || len(b) > MaxFrame || b[0] != TypeData {
		return ident.Short{}, 0, nil, false
	}
	return ident.Short(b[4:HeaderBytes]), binary.BigEndian.Uint32(b) & 0xffffff, b[HeaderBytes:], true
}

// Bind asks for a session.
type Bind struct {
	Nonce Nonce
	Time  time.Time // whole milliseconds
	Token [token.Size]byte
}

// AppendBind appends the frame, signed for the relay with this ID.
func AppendBind(b []byte, relay string, key ed25519.PrivateKey, m Bind) []byte {
	n := len(b)
	b = append(b, TypeBind, version, 0, 0)
	b = append(b, m.Nonce[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Time.UnixMilli()))
	b = append(b, m.Token[:]...)
	b = append(b, ed25519.Sign(key, signed(bindLabel, relay, b[n:]))...)
	return append(b, make([]byte, BindBytes-bindEnd)...)
}

// ParseBind reads the frame and leaves token and signature unchecked.
func ParseBind(b []byte) (Bind, bool) {
	if !plain(b, TypeBind, BindBytes) {
		return Bind{}, false
	}
	ms := binary.BigEndian.Uint64(b[12:])
	if ms > 1<<50 {
		return Bind{}, false
	}
	return Bind{Nonce: Nonce(b[4:12]), Time: time.UnixMilli(int64(ms)), Token: [token.Size]byte(b[20:bindSigned])}, true
}

// VerifyBind checks the signature of a frame that ParseBind took.
func VerifyBind(b []byte, relay string, key ed25519.PublicKey) bool {
	return ed25519.Verify(key, signed(bindLabel, relay, b[:bindSigned]), b[bindSigned:bindEnd])
}

// Challenge answers a Bind.
type Challenge struct {
	Nonce  Nonce
	Cookie Cookie
}

// AppendChallenge appends the frame.
func AppendChallenge(b []byte, m Challenge) []byte {
	b = append(b, TypeChallenge, version, 0, 0)
	b = append(b, m.Nonce[:]...)
	return append(b, m.Cookie[:]...)
}

// ParseChallenge reads the frame.
func ParseChallenge(b []byte) (Challenge, bool) {
	if !plain(b, TypeChallenge, ChallengeBytes) {
		return Challenge{}, false
	}
	return Challenge{Nonce: Nonce(b[4:12]), Cookie: Cookie(b[12:32])}, true
}

// Prove shows that the client has the key and receives at its address.
type Prove struct {
	Short  ident.Short
	Nonce  Nonce
	Cookie Cookie
}

// AppendProve appends the frame, signed for the relay with this ID.
func AppendProve(b []byte, relay string, key ed25519.PrivateKey, m Prove) []byte {
	n := len(b)
	b = append(b, TypeProve, version, 0, 0)
	b = append(b, m.Short[:]...)
	b = append(b, m.Nonce[:]...)
	b = append(b, m.Cookie[:]...)
	return append(b, ed25519.Sign(key, signed(proveLabel, relay, b[n:]))...)
}

// ParseProve reads the frame and leaves the signature unchecked.
func ParseProve(b []byte) (Prove, bool) {
	if !plain(b, TypeProve, ProveBytes) {
		return Prove{}, false
	}
	return Prove{Short: ident.Short(b[4:12]), Nonce: Nonce(b[12:20]), Cookie: Cookie(b[20:provSigned])}, true
}

// VerifyProve checks the signature of a frame that ParseProve took.
func VerifyProve(b []byte, relay string, key ed25519.PublicKey) bool {
	return ed25519.Verify(key, signed(proveLabel, relay, b[:provSigned]), b[provSigned:ProveBytes])
}

// Bound confirms a session.
type Bound struct {
	Nonce    Nonce
	Lifetime uint32         // seconds
	Observed netip.AddrPort // the client as the relay sees it
	Instance uint64         // random at each start of the relay
}

// AppendBound appends the frame.
func AppendBound(b []byte, m Bound) []byte {
	b = append(b, TypeBound, version, 0, 0)
	b = append(b, m.Nonce[:]...)
	b = binary.BigEndian.AppendUint32(b, m.Lifetime)
	ip := m.Observed.Addr().As16()
	b = append(b, ip[:]...)
	b = binary.BigEndian.AppendUint16(b, m.Observed.Port())
	b = append(b, 0, 0)
	return binary.BigEndian.AppendUint64(b, m.Instance)
}

// ParseBound reads the frame.
func ParseBound(b []byte) (Bound, bool) {
	if !plain(b, TypeBound, BoundBytes) || b[34] != 0 || b[35] != 0 {
		return Bound{}, false
	}
	ip := netip.AddrFrom16([16]byte(b[16:32])).Unmap()
	return Bound{
		Nonce: Nonce(b[4:12]), Lifetime: binary.BigEndian.Uint32(b[12:]),
		Observed: netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[32:])), Instance: binary.BigEndian.Uint64(b[36:]),
	}, true
}

// Ping asks whether the session stands.
type Ping struct {
	Short ident.Short
	Nonce Nonce
}

// AppendPing appends the frame.
func AppendPing(b []byte, m Ping) []byte {
	b = append(b, TypePing, version, 0, 0)
	b = append(b, m.Short[:]...)
	return append(b, m.Nonce[:]...)
}

// ParsePing reads the frame.
func ParsePing(b []byte) (Ping, bool) {
	if !plain(b, TypePing, PingBytes) {
		return Ping{}, false
	}
	return Ping{Short: ident.Short(b[4:12]), Nonce: Nonce(b[12:20])}, true
}

// Pong says that it does.
type Pong struct {
	Nonce    Nonce
	Instance uint64
}

// AppendPong appends the frame.
func AppendPong(b []byte, m Pong) []byte {
	b = append(b, TypePong, version, 0, 0)
	b = append(b, m.Nonce[:]...)
	return binary.BigEndian.AppendUint64(b, m.Instance)
}

// ParsePong reads the frame.
func ParsePong(b []byte) (Pong, bool) {
	if !plain(b, TypePong, PongBytes) {
		return Pong{}, false
	}
	return Pong{Nonce: Nonce(b[4:12]), Instance: binary.BigEndian.Uint64(b[12:])}, true
}

// AppendUnbound appends the frame that answers the ping with this nonce.
func AppendUnbound(b []byte, n Nonce) []byte {
	return append(append(b, TypeUnbound, version, 0, 0), n[:]...)
}

// ParseUnbound reads the frame.
func ParseUnbound(b []byte) (Nonce, bool) {
	if !plain(b, TypeUnbound, UnboundBytes) {
		return Nonce{}, false
	}
	return Nonce(b[4:12]), true
}

// AppendGone appends the frame. Of the nonce, which is that of the bind, three bytes are used.
func AppendGone(b []byte, n Nonce, dest ident.Short) []byte {
	return append(append(b, TypeGone, n[0], n[1], n[2]), dest[:]...)
}

// ParseGone reads the frame if it was made for the bind with this nonce.
func ParseGone(b []byte, n Nonce) (ident.Short, bool) {
	if len(b) != GoneBytes || b[0] != TypeGone || b[1] != n[0] || b[2] != n[1] || b[3] != n[2] {
		return ident.Short{}, false
	}
	return ident.Short(b[4:12]), true
}

// Refused answers a bind that is authentic and yet gets no session.
type Refused struct {
	Reason Reason
	Nonce  Nonce
}

// AppendRefused appends the frame.
func AppendRefused(b []byte, m Refused) []byte {
	return append(append(b, TypeRefused, version, byte(m.Reason), 0), m.Nonce[:]...)
}

// ParseRefused reads the frame. Reasons of a later time are taken.
func ParseRefused(b []byte) (Refused, bool) {
	if len(b) != RefusedBytes || b[0] != TypeRefused || b[1] != version || b[2] == 0 || b[3] != 0 {
		return Refused{}, false
	}
	return Refused{Reason: Reason(b[2]), Nonce: Nonce(b[4:12])}, true
}
