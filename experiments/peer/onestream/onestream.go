// Package onestream hands over one state on one stream, whatever the stream is made of, so that transports are compared
// with the same bytes, buffers and checks on top. It makes no connection and recovers from nothing.
//
//	offset  size  field
//	     0     8  length of the state, big endian
//	     8     n  the state
//	   8+n     s  its checksum: 32 bytes SHA-256, or 4 bytes CRC-32C
//
// The receiver answers with the checksum of what it got.
package onestream

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"
)

const (
	copyBytes = 256 << 10
	maxBytes  = 1 << 40
)

// Check is the checksum of a state.
type Check string

// The checks. CRC-32C costs next to nothing, so that what is measured is the transport.
const (
	SHA256 Check = "sha256"
	CRC32C Check = "crc32c"
)

// New returns the hash of a check.
func (c Check) New() (hash.Hash, error) {
	switch c {
	case SHA256:
		return sha256.New(), nil
	case CRC32C:
		return crc32.New(crc32.MakeTable(crc32.Castagnoli)), nil
	}
	return nil, fmt.Errorf("onestream: no check %q", c)
}

// Stream is what a state is sent over.
type Stream interface {
	io.ReadWriter
	CloseWrite() error
}

// Send sends n bytes of r, and waits for the receiver's checksum, which must be its own. It returns that.
func Send(s Stream, r io.Reader, n int64, check Check) ([]byte, error) {
	h, err := check.New()
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(binary.BigEndian.AppendUint64(nil, uint64(n))); err != nil {
		return nil, fmt.Errorf("onestream: send: %w", err)
	}
	buf := make([]byte, copyBytes)
	for left := n; left > 0; {
		m, err := io.ReadFull(r, buf[:min(int64(len(buf)), left)])
		if err != nil {
			return nil, fmt.Errorf("onestream: state: %w", err)
		}
		h.Write(buf[:m])
		if _, err := s.Write(buf[:m]); err != nil {
			return nil, fmt.Errorf("onestream: send: %w", err)
		}
		left -= int64(m)
	}
	sum := h.Sum(nil)
	if _, err := s.Write(sum); err != nil {
		return nil, fmt.Errorf("onestream: send: %w", err)
	}
	if err := s.CloseWrite(); err != nil {
		return nil, fmt.Errorf("onestream: send: %w", err)
	}
	theirs := make([]byte, len(sum))
	if _, err := io.ReadFull(s, theirs); err != nil {
		return nil, fmt.Errorf("onestream: receipt: %w", err)
	}
	if !bytes.Equal(theirs, sum) {
		return nil, errors.New("onestream: the receiver has another checksum")
	}
	return sum, nil
}

// Received is a state that has come.
type Received struct {
	Bytes       int64
	Sum         []byte
	First, Last time.Time // when the first byte was there, and the last with the right checksum; First is zero if there are none
}

// Receive reads a state, checks it, and answers.
func Receive(s Stream, check Check) (Received, error) { return ReceiveTo(s, io.Discard, check) }

// ReceiveTo does what Receive does, and writes the state to w as it comes: before it is checked.
func ReceiveTo(s Stream, w io.Writer, check Check) (rc Received, err error) {
	h, err := check.New()
	if err != nil {
		return rc, err
	}
	var size [8]byte
	if _, err := io.ReadFull(s, size[:]); err != nil {
		return rc, fmt.Errorf("onestream: receive: %w", err)
	}
	n := binary.BigEndian.Uint64(size[:])
	if n > maxBytes {
		return rc, fmt.Errorf("onestream: state of %d bytes", n)
	}
	buf := make([]byte, copyBytes)
	for left := int64(n); left > 0; {
		m, err := s.Read(buf[:min(int64(len(buf)), left)])
		if m > 0 && rc.Bytes == 0 {
			rc.First = time.Now()
		}
		h.Write(buf[:m])
		if _, err := w.Write(buf[:m]); err != nil {
			return rc, fmt.Errorf("onestream: what is received cannot be written: %w", err)
		}
		rc.Bytes += int64(m)
		left -= int64(m)
		if err != nil && left > 0 {
			return rc, fmt.Errorf("onestream: receive: %w", err)
		}
	}
	rc.Sum = h.Sum(nil)
	want := make([]byte, len(rc.Sum))
	if _, err := io.ReadFull(s, want); err != nil {
		return rc, fmt.Errorf("onestream: receive: %w", err)
	}
	rc.Last = time.Now()
	if !bytes.Equal(rc.Sum, want) {
		return rc, errors.New("onestream: checksum mismatch")
	}
	if _, err := s.Write(rc.Sum); err != nil {
		return rc, fmt.Errorf("onestream: receipt: %w", err)
	}
	if err := s.CloseWrite(); err != nil {
		return rc, fmt.Errorf("onestream: receipt: %w", err)
	}
	return rc, nil
}
