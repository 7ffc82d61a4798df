package fnlib

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// Types of stream: its first byte.
const (
	streamConn  = 0x01
	streamSend  = 0x02
	streamReply = 0x03
	streamPing  = 0x04
	streamBye   = 0x05
	streamTaken = 0x06
)

// Limits of the stream protocol.
const (
	MaxKey     = 1024    // bytes in the key of a state
	maxService = 64      // bytes in the name of a service
	maxReason  = 1024    // bytes in the reason of a refusal
	maxChunk   = 1 << 20 // bytes in one chunk
	chunkSize  = 256 << 10

	compressed     = 1 << 31 // in a chunk's length: what follows is the length of the bytes that it stands for, and then a Zstandard frame
	compressedHead = 8

	unknownSize = ^uint64(0)

	sendHeaderSize  = 32
	takenSize       = 9
	trailerSize     = 4 + 8 + sha256.Size
	replyHeaderSize = 44
	pingSize        = 9
	byeSize         = 5
)

// Status of a transfer in its reply.
const (
	statusAccepted = 0
	statusRejected = 1 // by the application
	statusDigest   = 2 // bytes received differ from bytes sent
	statusProtocol = 3 // malformed
	statusUnknown  = 4 // taken up again so late that the receiver no longer knows what became of it
)

// Stream error codes.
const (
	resetNotListening = 0x10
	resetAborted      = 0x11
	resetMoved        = 0x12 // the state goes on by another stream
)

var errWire = errors.New("malformed stream")

// connHeader opens a stream that carries a net.Conn.
func appendConnHeader(b []byte, service string) []byte {
	b = append(b, streamConn, byte(len(service)))
	return append(b, service...)
}

// readConnHeader reads what follows the type.
func readConnHeader(r io.Reader) (service string, err error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	if n[0] > maxService {
		return "", fmt.Errorf("%w: service of %d bytes", errWire, n[0])
	}
	b := make([]byte, n[0])
	_, err = io.ReadFull(r, b)
	return string(b), err
}

// stateID tells a state from all others, however often its sending is taken up again.
type stateID [16]byte

func newStateID() (id stateID) {
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

func (id stateID) String() string { return hex.EncodeToString(id[:]) }

// sendHeader opens a stream that carries a state.
type sendHeader struct {
	key    string
	size   uint64 // unknownSize if the sender does not know
	id     stateID
	resume bool
	age    time.Duration // since the state first went, in milliseconds
}

const flagResume = 1

func appendSendHeader(b []byte, h sendHeader) []byte {
	var flags byte
	if h.resume {
		flags = flagResume
	}
	b = append(b, streamSend, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.key)))
	b = binary.BigEndian.AppendUint64(b, h.size)
	b = append(b, h.id[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(min(h.age.Milliseconds(), math.MaxUint32)))
	return append(b, h.key...)
}

// readSendHeader reads what follows the type.
func readSendHeader(r io.Reader) (h sendHeader, err error) {
	var b [sendHeaderSize - 1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return h, err
	}
	if b[0]&^flagResume != 0 {
		return h, fmt.Errorf("%w: flags %#x", errWire, b[0])
	}
	n := binary.BigEndian.Uint16(b[1:])
	h.resume = b[0]&flagResume != 0
	h.size = binary.BigEndian.Uint64(b[3:])
	h.id = stateID(b[11:])
	h.age = time.Duration(binary.BigEndian.Uint32(b[27:])) * time.Millisecond
	if n > MaxKey {
		return h, fmt.Errorf("%w: key of %d bytes", errWire, n)
	}
	if h.size != unknownSize && h.size > 1<<62 {
		return h, fmt.Errorf("%w: size %d", errWire, h.size)
	}
	key := make([]byte, n)
	if _, err := io.ReadFull(r, key); err != nil {
		return h, err
	}
	h.key = string(key)
	return h, nil
}

// setCompressedHead writes the head of a compressed chunk of so many raw bytes to b, which has room for it before the frame.
func setCompressedHead(b []byte, raw int) []byte {
	binary.BigEndian.PutUint32(b, uint32(len(b)-compressedHead)|compressed)
	binary.BigEndian.PutUint32(b[4:], uint32(raw))
	return b
}

// trailer ends a state: a chunk of no bytes, the total and the digest.
func appendTrailer(b []byte, total uint64, digest [sha256.Size]byte) []byte {
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, total)
	return append(b, digest[:]...)
}

// reply tells the sender what became of its state.
type reply struct {
	status byte
	bytes  uint64
	digest [sha256.Size]byte
	reason string

	released bool // not of the wire: the store keeps the state
}

func appendReply(b []byte, r reply) []byte {
	reason := r.reason[:min(len(r.reason), maxReason)]
	b = append(b, streamReply, r.status)
	b = binary.BigEndian.AppendUint16(b, uint16(len(reason)))
	b = binary.BigEndian.AppendUint64(b, r.bytes)
	b = append(b, r.digest[:]...)
	return append(b, reason...)
}

func appendTaken(b []byte, offset int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, streamTaken), uint64(offset))
}

// readReply reads the reply, and calls taken for each time that the receiver says before it how far its application has come.
func readReply(r io.Reader, taken func(offset int64) error) (p reply, err error) {
	var b [replyHeaderSize]byte
	for {
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return p, err
		}
		if b[0] != streamTaken {
			break
		}
		if _, err := io.ReadFull(r, b[1:takenSize]); err != nil {
			return p, err
		}
		offset := binary.BigEndian.Uint64(b[1:])
		if offset > 1<<62 {
			return p, fmt.Errorf("%w: offset %d", errWire, offset)
		}
		if err := taken(int64(offset)); err != nil {
			return p, err
		}
	}
	if _, err := io.ReadFull(r, b[1:]); err != nil {
		return p, err
	}
	n := binary.BigEndian.Uint16(b[2:])
	if b[0] != streamReply || b[1] > statusUnknown || n > maxReason {
		return p, fmt.Errorf("%w: reply", errWire)
	}
	p.status = b[1]
	p.bytes = binary.BigEndian.Uint64(b[4:])
	p.digest = [sha256.Size]byte(b[12:])
	reason := make([]byte, n)
	_, err = io.ReadFull(r, reason)
	p.reason = string(reason)
	return p, err
}
