// Package seal keeps what is stored secret and whole under a job's key, so that a store is trusted with keeping states, and
// not with reading or changing them. It never touches a store or a network.
//
// It is the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its
// Nonce-Reuse Misuse-Resistance, 2015) with AES-256-GCM, as age has it with another cipher: segments of 64 KiB, each
// with a nonce that counts them and tells the last. Cutting, reordering, repeating or joining sealed texts is noticed before a byte of the
// segment concerned is given out.
//
//	offset  size  field
//	     0     4  magic and version, "fnw1"
//	     4    32  salt, random
//	    36        segments: up to 65,536 bytes encrypted, 16 bytes tag. Only the last is shorter, or empty if it is the only one.
//
// The key of a text is HKDF-SHA256 of the caller's key, with that salt and the info "fnwire v1 seal " and the text's name: a text is of no
// use under another name. The nonce is 7 bytes of zero, 4 bytes of counter, big endian, and a byte, 1 for the last segment and 0
// for others.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// ErrForged is matched when the text was not sealed under this key and name, or was changed since.
var ErrForged = errors.New("seal: not what was sealed")

// HeadSize is how many bytes stand before the segments.
const HeadSize = len(magic) + saltSize

const (
	magic    = "fnw1"
	saltSize = 32
	headSize = HeadSize
	segment  = 64 << 10
	tagSize  = 16
	ahead    = segment + tagSize + 1 // a byte after a segment tells that it is not the last
)

// Bytes seals what is in memory.
func Bytes(key [32]byte, name string, plain []byte) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := NewWriter(&sealed, key, name)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	err = w.Close()
	return sealed.Bytes(), err
}

// Open opens what is in memory.
func Open(key [32]byte, name string, sealed []byte) ([]byte, error) {
	return io.ReadAll(NewReader(bytes.NewReader(sealed), key, name))
}

// stream seals or opens one segment after the other.
type stream struct {
	aead  cipher.AEAD
	count uint64
	nonce [12]byte
}

func newStream(key [32]byte, salt []byte, name string) (*stream, error) {
	k, err := hkdf.Key(sha256.New, key[:], salt, "fnwire v1 seal "+name, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &stream{aead: aead}, err
}

// next is the nonce of the next segment.
func (s *stream) next(last bool) ([]byte, error) {
	if s.count > math.MaxUint32 {
		return nil, errors.New("seal: longer than 256 TiB")
	}
	binary.BigEndian.PutUint32(s.nonce[7:], uint32(s.count))
	s.count++
	s.nonce[11] = 0
	if last {
		s.nonce[11] = 1
	}
	return s.nonce[:], nil
}

type writer struct {
	w      io.Writer
	s      *stream
	buf    []byte // plain text of the segment at hand
	out    []byte
	err    error
	closed bool
}

// NewWriter returns what seals what is written to it, under a key and a name, and writes that to w. Close writes the last segment, without
// which the text is no good, and does not close w. It is for one goroutine.
func NewWriter(w io.Writer, key [32]byte, name string) (io.WriteCloser, error) {
	head := append(make([]byte, 0, headSize), magic...)
	head = head[:headSize]
	_, _ = rand.Read(head[len(magic):]) // never fails (crypto/rand)
	return newWriter(w, key, name, head)
}

func newWriter(w io.Writer, key [32]byte, name string, head []byte) (io.WriteCloser, error) {
	s, err := newStream(key, head[len(magic):], name)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	return &writer{w: w, s: s, buf: make([]byte, 0, segment), out: make([]byte, 0, segment+tagSize)}, nil
}

func (w *writer) Write(b []byte) (n int, err error) {
	if w.closed {
		return 0, errors.New("seal: write after close")
	}
	for len(b) > 0 && w.err == nil {
		if len(w.buf) == segment { // more follows, so it is not the last
			w.flush(false)
			continue
		}
		m := min(len(b), segment-len(w.buf))
		w.buf = append(w.buf, b[:m]...)
		b = b[m:]
		n += m
	}
	return n, w.err
}

func (w *writer) flush(last bool) {
	var nonce []byte
	if nonce, w.err = w.s.next(last); w.err != nil {
		return
	}
	w.out = w.s.aead.Seal(w.out[:0], nonce, w.buf, nil)
	w.buf = w.buf[:0]
	_, w.err = w.w.Write(w.out)
}

func (w *writer) Close() error {
	if w.closed {
		return w.err
	}
	w.closed = true
	if w.err == nil {
		w.flush(true)
	}
	return w.err
}

type reader struct {
	r     io.Reader
	key   [32]byte
	name  string
	s     *stream
	in    []byte // of the segment to come, as far as it was read
	spare []byte // in turn with in, since the plain text takes the place of what was sealed
	plain []byte // not given out yet
	err   error
}

// NewReader returns the plain text of what was sealed under that key and name. It reads r a segment and a byte ahead. The reader
// returns io.EOF only after the last segment, ErrForged for what is not as it was sealed, cut short included, and r's own
// errors. It is for one goroutine.
func NewReader(r io.Reader, key [32]byte, name string) io.Reader {
	return &reader{r: r, key: key, name: name}
}

func (r *reader) Read(b []byte) (int, error) {
	for len(r.plain) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if len(b) == 0 {
			return 0, nil
		}
		r.plain, r.err = r.open()
		if r.err != nil && r.err != io.EOF { //nolint:errorlint // as open returns it
			r.plain = nil
		}
	}
	n := copy(b, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// open returns the next segment; io.EOF with the last.
func (r *reader) open() ([]byte, error) {
	if r.s == nil {
		if err := r.begin(); err != nil {
			return nil, err
		}
	}
	have := len(r.in)
	n, last, err := fill(r.r, r.in[have:cap(r.in)])
	if err != nil {
		return nil, err
	}
	sealed, next := r.in[:have+n], byte(0)
	if !last {
		next = sealed[segment+tagSize]
		sealed = sealed[:segment+tagSize]
	}
	nonce, err := r.s.next(last)
	if err != nil {
		return nil, err
	}
	if last && len(sealed) == tagSize && r.s.count > 1 {
		return nil, fmt.Errorf("%w: an empty segment after others", ErrForged)
	}
	plain, err := r.s.aead.Open(sealed[:0], nonce, sealed, nil)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: segment %d", ErrForged, r.s.count)
	case last:
		return plain, io.EOF
	}
	r.in, r.spare = r.spare, r.in[:0]
	r.in = append(r.in, next)
	return plain, nil
}

// NewReaderFrom is NewReader from a byte of the plain text on, which must not be beyond its last one: head is the first HeadSize bytes of the sealed text, and
// r gives what follows its first Offset(from) bytes. It notices what NewReader notices, of the segments that it reads.
func NewReaderFrom(head []byte, r io.Reader, key [32]byte, name string, from int64) (io.Reader, error) {
	s := &reader{r: r, key: key, name: name}
	if err := s.take(head); err != nil {
		return nil, err
	}
	s.s.count = uint64(from / segment)
	if _, err := io.CopyN(io.Discard, s, from%segment); err != nil {
		if err == io.EOF { //nolint:errorlint // as Read returns it
			err = fmt.Errorf("%w: it ends before byte %d", ErrForged, from)
		}
		return nil, err
	}
	return s, nil
}

// Offset is where in a sealed text the segment begins that holds a byte of the plain text.
func Offset(plain int64) int64 { return int64(headSize) + plain/segment*(segment+tagSize) }

// fill is io.ReadFull, and tells the end of r from a failure of r that calls itself io.ErrUnexpectedEOF, as that of a connection does.
func fill(r io.Reader, b []byte) (n int, end bool, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	switch {
	case n == len(b):
		return n, false, nil
	case err == io.EOF:
		return n, true, nil
	}
	return n, false, err
}

func (r *reader) begin() error {
	head := make([]byte, headSize)
	switch _, end, err := fill(r.r, head); {
	case err != nil:
		return err
	case end:
		return fmt.Errorf("%w: shorter than its head", ErrForged)
	}
	return r.take(head)
}

func (r *reader) take(head []byte) error {
	if len(head) != headSize || !bytes.HasPrefix(head, []byte(magic)) {
		return fmt.Errorf("%w: no magic", ErrForged)
	}
	s, err := newStream(r.key, head[len(magic):], r.name)
	if err != nil {
		return err
	}
	r.s, r.in, r.spare = s, make([]byte, 0, ahead), make([]byte, 0, ahead)
	return nil
}

// Size is the length of a sealed text.
func Size(plain int64) int64 {
	segments := max(1, (plain+segment-1)/segment)
	return int64(headSize) + plain + segments*tagSize
}
