package pieces

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
)

// First bytes of messages: those in use, and the range that is set aside.
const (
	Piece    = 0x30
	Question = 0x31
	Answer   = 0x32
	First    = 0x30
	Last     = 0x3f
)

// Sizes in bytes.
const (
	HeaderBytes = 24
	MaxPacket   = 1420
	// Whole is the longest packet that is not worth cutting: the pieces of the longest are not shorter.
	Whole = HeaderBytes + MaxPacket/2

	macOffset = 8
)

// Errors of Open and Join.
var (
	errLength = errors.New("pieces: length out of bounds")
	errType   = errors.New("pieces: unknown type")
	errMAC    = errors.New("pieces: wrong MAC")
)

// Message is what a header says.
type Message struct {
	Kind    byte // Piece, Question or Answer
	Subject byte // of a Piece: 0 front, 1 back
	Number  uint16
	Length  int // of the packet; Piece only
}

// Len returns the length of each piece of a packet of n bytes.
func Len(n int) int { return HeaderBytes + (n+1)/2 }

// sealer computes MACs; it is reused because keying HMAC costs two hash blocks and an allocation.
type sealer struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newSealer(key [32]byte) *sealer { return &sealer{mac: hmac.New(sha256.New, key[:])} }

func (s *sealer) compute(b []byte) []byte {
	s.mac.Reset()
	s.mac.Write(b[:macOffset])
	s.mac.Write(b[HeaderBytes:])
	return s.mac.Sum(s.sum[:0])[:HeaderBytes-macOffset]
}

// seal fills in the header of b, whose body is there.
func (s *sealer) seal(b []byte, m Message) {
	b[0], b[1] = m.Kind, m.Subject
	binary.BigEndian.PutUint16(b[2:], m.Number)
	binary.BigEndian.PutUint16(b[4:], uint16(m.Length))
	b[6], b[7] = 0, 0
	copy(b[macOffset:], s.compute(b))
}

// open checks a message and reads its header.
func (s *sealer) open(b []byte) (Message, error) {
	if len(b) < HeaderBytes || len(b) > MaxPacket {
		return Message{}, errLength
	}
	m := Message{Kind: b[0], Subject: b[1], Number: binary.BigEndian.Uint16(b[2:]), Length: int(binary.BigEndian.Uint16(b[4:]))}
	switch {
	case m.Kind < Piece || m.Kind > Answer || m.Kind == Piece && m.Subject > 1:
		return Message{}, errType
	case m.Kind == Piece && (m.Length < 2 || m.Length > MaxPacket || len(b) != Len(m.Length)),
		m.Kind == Answer && len(b) != HeaderBytes,
		m.Kind != Piece && m.Length != 0:
		return Message{}, errLength
	case !hmac.Equal(b[macOffset:HeaderBytes], s.compute(b)):
		return Message{}, errMAC
	}
	return m, nil
}
