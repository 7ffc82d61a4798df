package fnlib

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"github.com/fnwire/fnwire/internal/zchunk"
)

// stateReader reads the chunks and the trailer of a SEND stream. A deadline of r may cut it short at any byte: it goes on
// from there when it is called again.
type stateReader struct {
	r    io.Reader
	size int64 // that the header promised; -1: nothing
	hash hash.Hash
	read int64
	head [trailerSize]byte // of the chunk to come, as far as it was read
	have int               // bytes in head, or in frame
	left int               // of the chunk at hand

	codec  *zchunk.Codec // nil: one of its own when there is a compressed chunk
	packed int           // bytes of the compressed chunk at hand; 0: it is none
	frame  *frame        // them, until all were read
	plain  *frame        // what they stand for: the bytes up to rawEnd, of which left were not given out
	rawEnd int
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
	n, err := s.chunk(b[:min(len(b), s.left)])
	s.left -= n
	s.read += int64(n)
	s.hash.Write(b[:n]) // never fails (hash.Hash)
	return n, unexpected(err)
}

// goOn continues on another stream, which begins with the chunk at the byte after those that were read.
func (s *stateReader) goOn(r io.Reader) {
	s.r, s.have, s.left, s.packed = r, 0, 0, 0
	release(&s.frame)
	release(&s.plain)
}

// chunk reads bytes of the chunk at hand, of which there are as many at least.
func (s *stateReader) chunk(b []byte) (int, error) {
	if s.packed == 0 {
		return s.r.Read(b)
	}
	if s.plain == nil {
		if err := s.unpack(); err != nil {
			return 0, err
		}
	}
	return copy(b, s.plain[s.rawEnd-s.left:]), nil
}

// unpack reads the compressed chunk to its end and decompresses it.
func (s *stateReader) unpack() error {
	if s.frame == nil {
		s.frame = frames.Get().(*frame)
	}
	if err := s.fill(s.frame[:s.packed]); err != nil {
		return err
	}
	if s.codec == nil {
		s.codec = new(zchunk.Codec)
	}
	plain := frames.Get().(*frame)
	if _, err := s.codec.Decode(plain[:0], s.frame[:s.packed], s.left); err != nil {
		release(&plain)
		return fmt.Errorf("%w: the chunk at byte %d: %w", errWire, s.read, err)
	}
	s.plain, s.rawEnd = plain, s.left
	release(&s.frame)
	return nil
}

// release gives a buffer back, if there is one.
func release(f **frame) {
	if *f != nil {
		frames.Put(*f)
		*f = nil
	}
}

// next reads the next chunk's length, or the trailer.
func (s *stateReader) next() error {
	if s.packed > 0 { // which is done with
		s.packed, s.have = 0, 0
		release(&s.plain)
	}
	if err := s.fill(s.head[:4]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(s.head[:])
	if n&compressed != 0 {
		return s.nextCompressed(n &^ compressed)
	}
	if n > maxChunk {
		return fmt.Errorf("%w: chunk of %d bytes", errWire, n)
	}
	if s.left = int(n); n > 0 {
		s.have = 0
		return nil
	}
	if err := s.fill(s.head[:]); err != nil {
		return err
	}
	total, want := binary.BigEndian.Uint64(s.head[4:]), s.head[12:]
	if total != uint64(s.read) || subtle.ConstantTimeCompare(s.hash.Sum(nil), want) == 0 || s.size >= 0 && s.size != s.read {
		return ErrDigest
	}
	return io.EOF
}

// nextCompressed begins a compressed chunk of n bytes.
func (s *stateReader) nextCompressed(n uint32) error {
	if err := s.fill(s.head[:compressedHead]); err != nil {
		return err
	}
	raw := binary.BigEndian.Uint32(s.head[4:])
	if raw > zchunk.MaxRaw || n == 0 || n >= raw {
		return fmt.Errorf("%w: chunk of %d bytes compressed to %d", errWire, raw, n)
	}
	s.left, s.packed, s.have = int(raw), int(n), 0
	return nil
}

// fill reads until b is full, of which it has the first bytes from before.
func (s *stateReader) fill(b []byte) error {
	if s.have >= len(b) {
		return nil
	}
	m, err := io.ReadFull(s.r, b[s.have:])
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
