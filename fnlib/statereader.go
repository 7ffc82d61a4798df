package fnlib

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
)

// stateReader reads the chunks and the trailer of a SEND stream. A deadline of r may cut it short at any byte: it goes on
// from there when it is called again.
type stateReader struct {
	r    io.Reader
	size int64 // that the header promised; -1: nothing
	hash hash.Hash
	read int64
	head [trailerSize]byte // of the chunk to come, as far as it was read
	have int               // bytes in head
	left int               // of the chunk at hand
}

func newStateReader(r io.Reader, size int64) stateReader {
	return stateReader{r: r, size: size, hash: sha256.New()}
}

// Read returns io.EOF after a trailer that agrees with what was read, ErrDigest after one that does not, and errWire for
// what is no chunk. An end without a trailer is io.ErrUnexpectedEOF.
func (s *stateReader) Read(b []byte) (int, error) {
	if s.left == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n, err := s.r.Read(b[:min(len(b), s.left)])
	s.left -= n
	s.read += int64(n)
	s.hash.Write(b[:n]) // never fails (hash.Hash)
	return n, unexpected(err)
}

// goOn continues on another stream, which begins with the chunk at the byte after those that were read.
func (s *stateReader) goOn(r io.Reader) { s.r, s.have, s.left = r, 0, 0 }

// next reads the next chunk's length, or the trailer.
func (s *stateReader) next() error {
	if err := s.fill(4); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(s.head[:])
	if n > maxChunk {
		return fmt.Errorf("%w: chunk of %d bytes", errWire, n)
	}
	if s.left = int(n); n > 0 {
		s.have = 0
		return nil
	}
	if err := s.fill(trailerSize); err != nil {
		return err
	}
	total, want := binary.BigEndian.Uint64(s.head[4:]), s.head[12:]
	if total != uint64(s.read) || subtle.ConstantTimeCompare(s.hash.Sum(nil), want) == 0 || s.size >= 0 && s.size != s.read {
		return ErrDigest
	}
	return io.EOF
}

// fill reads until head has n bytes.
func (s *stateReader) fill(n int) error {
	if s.have >= n {
		return nil
	}
	m, err := io.ReadAtLeast(s.r, s.head[s.have:n], n-s.have)
	s.have += m
	return unexpected(err)
}

// unexpected is err, unless that is the end of the stream: only the trailer ends a state.
func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // io.Reader's contract is the bare io.EOF
		return io.ErrUnexpectedEOF
	}
	return err
}
