package fnlib

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

	unknownSize = ^uint64(0)

	sendHeaderSize  = 12
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
)

// Stream error codes.
const (
	resetNotListening = 0x10
	resetAborted      = 0x11
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

// sendHeader opens a stream that carries a state.
type sendHeader struct {
	key  string
	size uint64 // unknownSize if the sender does not know
}

func appendSendHeader(b []byte, h sendHeader) []byte {
	b = append(b, streamSend, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.key)))
	b = binary.BigEndian.AppendUint64(b, h.size)
	return append(b, h.key...)
}

// readSendHeader reads what follows the type.
func readSendHeader(r io.Reader) (h sendHeader, err error) {
	var b [sendHeaderSize - 1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return h, err
	}
	if b[0] != 0 {
		return h, fmt.Errorf("%w: flags %#x", errWire, b[0])
	}
	n := binary.BigEndian.Uint16(b[1:])
	h.size = binary.BigEndian.Uint64(b[3:])
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
}

func appendReply(b []byte, r reply) []byte {
	reason := r.reason[:min(len(r.reason), maxReason)]
	b = append(b, streamReply, r.status)
	b = binary.BigEndian.AppendUint16(b, uint16(len(reason)))
	b = binary.BigEndian.AppendUint64(b, r.bytes)
	b = append(b, r.digest[:]...)
	return append(b, reason...)
}

// readReply reads the reply, and calls taken if the receiver says before it that it has taken the state.
func readReply(r io.Reader, taken func()) (p reply, err error) {
	var b [replyHeaderSize]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return p, err
	}
	if b[0] == streamTaken {
		taken()
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return p, err
		}
	}
	if _, err := io.ReadFull(r, b[1:]); err != nil {
		return p, err
	}
	n := binary.BigEndian.Uint16(b[2:])
	if b[0] != streamReply || b[1] > statusProtocol || n > maxReason {
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
