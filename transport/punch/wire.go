package punch

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"net/netip"
)

// Sizes of datagrams in bytes. PaddedSize is what a path must carry in both directions to be trusted: what QUIC begins with,
// so that a path MTU of 1280 is enough. A path on which larger packets are sent is doubted, and trusted again, by probes of
// their size, up to MaxSize.
const (
	ProbeSize  = 64
	PaddedSize = 1200
	MaxSize    = 1420

	headerSize  = 32
	addressSize = 18
	natSize     = 2 + addressSize
	attemptSize = 8
	macOffset   = 16
	replySize   = headerSize + addressSize
)

// MaxCandidates is the most addresses that a CALL may carry and that a Machine takes from an offer.
const MaxCandidates = 16

// First bytes of the three messages.
const (
	TypeProbe = 0x10
	TypeReply = 0x11
	TypeCall  = 0x12
)

const (
	flagNominate    = 1
	flagControlling = 2
	flagDoubt       = 4
	flagGivenUp     = 8
	flagAnswer      = 16
)

var (
	errLength = errors.New("punch: length out of bounds")
	errType   = errors.New("punch: unknown type")
	errMAC    = errors.New("punch: wrong MAC")
	errCount  = errors.New("punch: too many candidates, or fewer than counted")
)

// message is any of the three; fields that its type lacks are zero.
type message struct {
	kind       byte
	flags      byte
	generation uint16
	tag        Tag
	sequence   uint64
	observed   netip.AddrPort   // REPLY
	candidates []netip.AddrPort // CALL
	nat        NAT              // CALL
	attempt    attempt          // CALL
	size       int              // of the datagram
}

// sealer computes MACs; it is reused because keying HMAC costs two hash blocks and an allocation.
type sealer struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newSealer(key [32]byte) *sealer { return &sealer{mac: hmac.New(sha256.New, key[:])} }

func (s *sealer) compute(b []byte) []byte {
	s.mac.Reset()
	s.mac.Write(b[:macOffset])
	s.mac.Write(b[headerSize:])
	return s.mac.Sum(s.sum[:0])[:16]
}

// seal returns m as a datagram of m.size bytes.
func (s *sealer) seal(m message) []byte {
	b := make([]byte, m.size)
	b[0], b[1] = m.kind, m.flags
	binary.BigEndian.PutUint64(b[8:], m.sequence)
	switch m.kind {
	case TypeCall:
		binary.BigEndian.PutUint16(b[2:], uint16(len(m.candidates)))
		binary.BigEndian.PutUint16(b[6:], m.generation)
		for i, c := range m.candidates {
			putAddress(b[headerSize+i*addressSize:], c)
		}
		rest := b[headerSize+len(m.candidates)*addressSize:]
		if len(rest) >= natSize {
			putNAT(rest, m.nat)
			putAttempt(rest[natSize:], m.attempt)
		}
	default:
		binary.BigEndian.PutUint16(b[2:], m.generation)
		copy(b[4:8], m.tag[:])
		if m.kind == TypeReply {
			putAddress(b[headerSize:], m.observed)
		}
	}
	copy(b[macOffset:], s.compute(b))
	return b
}

// open checks a datagram's MAC and bounds and reads it.
func (s *sealer) open(b []byte) (message, error) {
	if len(b) < headerSize || len(b) > MaxSize {
		return message{}, errLength
	}
	if b[0] < TypeProbe || b[0] > TypeCall {
		return message{}, errType
	}
	if !hmac.Equal(b[macOffset:headerSize], s.compute(b)) {
		return message{}, errMAC
	}
	m := message{kind: b[0], flags: b[1], size: len(b), sequence: binary.BigEndian.Uint64(b[8:])}
	if m.kind == TypeCall {
		return openCall(b, m)
	}
	m.generation = binary.BigEndian.Uint16(b[2:])
	m.tag = Tag(b[4:8])
	if len(b) < ProbeSize || m.flags&flagNominate != 0 && len(b) != PaddedSize {
		return message{}, errLength
	}
	if m.kind == TypeReply {
		m.observed = getAddress(b[headerSize:])
	}
	return m, nil
}

func openCall(b []byte, m message) (message, error) {
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n > MaxCandidates || len(b) < headerSize+n*addressSize {
		return message{}, errCount
	}
	m.generation = binary.BigEndian.Uint16(b[6:])
	m.candidates = make([]netip.AddrPort, n)
	for i := range m.candidates {
		m.candidates[i] = getAddress(b[headerSize+i*addressSize:])
	}
	// What follows is missing in CALLs of older versions.
	if rest := b[headerSize+n*addressSize:]; len(rest) >= natSize {
		m.nat = getNAT(rest)
		m.attempt = getAttempt(rest[natSize:])
	}
	return m, nil
}

func putAttempt(b []byte, a attempt) {
	if len(b) < attemptSize {
		return
	}
	b[0] = a.kind
	binary.BigEndian.PutUint16(b[2:], a.number)
	binary.BigEndian.PutUint16(b[4:], a.first)
	binary.BigEndian.PutUint16(b[6:], a.last)
}

func getAttempt(b []byte) attempt {
	if len(b) < attemptSize {
		return attempt{}
	}
	return attempt{
		kind: b[0], number: binary.BigEndian.Uint16(b[2:]),
		first: binary.BigEndian.Uint16(b[4:]), last: binary.BigEndian.Uint16(b[6:]),
	}
}

func putNAT(b []byte, n NAT) {
	b[0], b[1] = byte(n.Mapping), byte(n.Step)
	putAddress(b[2:], n.Public)
}

// getNAT returns the zero value for what makes no sense to this version.
func getNAT(b []byte) NAT {
	return NAT{Mapping: Mapping(b[0]), Step: int8(b[1]), Public: getAddress(b[2:])}.known()
}

func putAddress(b []byte, a netip.AddrPort) {
	if !a.IsValid() {
		return
	}
	ip := a.Addr().As16()
	copy(b, ip[:])
	binary.BigEndian.PutUint16(b[16:], a.Port())
}

func getAddress(b []byte) netip.AddrPort {
	ip := netip.AddrFrom16([16]byte(b[:16])).Unmap()
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[16:]))
}

// window remembers which sequence numbers were seen, as RFC 4303 (3.4.3) does.
type window struct {
	top  uint64 // newest seen; bit i of bits stands for top-i
	bits [windowSize / 64]uint64
}

const windowSize = 256

// fresh reports whether seq may still be taken, and takes it.
func (w *window) fresh(seq uint64) bool {
	if seq > w.top {
		w.shift(seq - w.top)
		w.top = seq
	}
	age := w.top - seq
	if age >= windowSize || w.bits[age/64]&(1<<(age%64)) != 0 {
		return false
	}
	w.bits[age/64] |= 1 << (age % 64)
	return true
}

func (w *window) shift(n uint64) {
	if n >= windowSize {
		clear(w.bits[:])
		return
	}
	words, bits := int(n/64), n%64
	for i := len(w.bits) - 1; i >= 0; i-- {
		var v uint64
		if i >= words {
			v = w.bits[i-words] << bits
			if bits > 0 && i > words {
				v |= w.bits[i-words-1] >> (64 - bits)
			}
		}
		w.bits[i] = v
	}
}
