package fnlib

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/zchunk"
)

// Golden bytes of every message in the package comment.
func TestWireGolden(t *testing.T) {
	var digest Digest
	for i := range digest {
		digest[i] = byte(i)
	}
	id := stateID(digest[:16])
	const i = "000102030405060708090a0b0c0d0e0f"
	const d = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"CONN":         {appendConnHeader(nil, "http"), "01" + "04" + "68747470"},
		"SEND":         {appendSendHeader(nil, sendHeader{key: "k1", size: 258, id: id}), "02" + "00" + "0002" + "0000000000000102" + i + "00000000" + "6b31"},
		"SEND unknown": {appendSendHeader(nil, sendHeader{size: unknownSize, id: id}), "02" + "00" + "0000" + "ffffffffffffffff" + i + "00000000"},
		"SEND resumed": {
			appendSendHeader(nil, sendHeader{key: "k1", size: 258, id: id, resume: true, age: 258 * time.Millisecond}),
			"02" + "01" + "0002" + "0000000000000102" + i + "00000102" + "6b31",
		},
		"compressed chunk": {setCompressedHead(append(make([]byte, compressedHead), "frame"...), 258), "80000005" + "00000102" + "6672616d65"},

		"TAKEN":   {appendTaken(nil, 258), "06" + "0000000000000102"},
		"trailer": {appendTrailer(nil, 258, digest), "00000000" + "0000000000000102" + d},
		"REPLY":   {appendReply(nil, reply{status: statusRejected, bytes: 258, digest: digest, reason: "no"}), "03" + "01" + "0002" + "0000000000000102" + d + "6e6f"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

// zeros is a frame that stands for chunkSize bytes of zero; see internal/zchunk for its layout.
var zeros = []byte{
	0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 4, 0, // magic; descriptor; size
	0x02, 0, 0x10, 0, 0x03, 0, 0x10, 0, // two blocks, each 131,072 times a zero
}

// packedZeros is a chunk of chunkSize zeros, compressed.
func packedZeros() []byte {
	return setCompressedHead(append(make([]byte, compressedHead), zeros...), chunkSize)
}

func TestWireLimits(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		read func(io.Reader) error
	}{
		"CONN with a long service": {[]byte{maxService + 1}, func(r io.Reader) error { _, err := readConnHeader(r); return err }},
		"SEND with flags":          {append([]byte{2}, make([]byte, 30)...), func(r io.Reader) error { _, err := readSendHeader(r); return err }},
		"SEND with a long key":     {append([]byte{0, 0xff, 0xff}, make([]byte, 28)...), func(r io.Reader) error { _, err := readSendHeader(r); return err }},
		"SEND of an absurd size":   {append([]byte{0, 0, 0, 0x7f}, make([]byte, 27)...), func(r io.Reader) error { _, err := readSendHeader(r); return err }},
		"REPLY of another type":    {make([]byte, replyHeaderSize), func(r io.Reader) error { _, err := readReply(r, func(int64) error { return nil }); return err }},
		"REPLY with a long reason": {append([]byte{streamReply, 0, 0xff, 0xff}, make([]byte, 40)...), func(r io.Reader) error { _, err := readReply(r, func(int64) error { return nil }); return err }},
	} {
		if err := c.read(bytes.NewReader(c.b)); !errors.Is(err, errWire) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"a long chunk":                         {0, 0x10, 0, 1},
		"a long compressed chunk":              {0x80, 0, 0, 9, 0, 4, 0, 1},
		"a chunk that compression made longer": {0x80, 0, 0, 9, 0, 0, 0, 9},
		"a compressed chunk of nothing":        {0x80, 0, 0, 0, 0, 0, 0, 9},
		"a compressed chunk that is none":      append([]byte{0x80, 0, 0, 5, 0, 0, 0, 9}, "frame"...),
		"a chunk that stands for more":         setCompressedHead(append(make([]byte, compressedHead), zeros...), 1000),
		"a chunk that stands for less":         setCompressedHead(append(make([]byte, compressedHead), zeros...), chunkSize-1),
	} {
		s := newStateReader(bytes.NewReader(b), -1)
		if got, err := io.ReadAll(&s); !errors.Is(err, errWire) || len(got) > 0 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if b := appendReply(nil, reply{reason: strings.Repeat("x", 5000)}); len(b) != replyHeaderSize+maxReason {
		t.Errorf("reply of %d bytes", len(b))
	}
}

func FuzzConnHeader(f *testing.F) {
	for _, b := range hostile.Of(
		appendConnHeader(nil, "http"),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || b[0] != streamConn {
			return
		}
		s, err := readConnHeader(bytes.NewReader(b[1:]))
		if err == nil && !bytes.HasPrefix(b, appendConnHeader(nil, s)) {
			t.Errorf("%q does not come back", b)
		}
	})
}

func FuzzSendHeader(f *testing.F) {
	for _, b := range hostile.Of(
		appendSendHeader(nil, sendHeader{key: "part-7", size: 1 << 20}),
		appendSendHeader(nil, sendHeader{size: unknownSize}),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || b[0] != streamSend {
			return
		}
		h, err := readSendHeader(bytes.NewReader(b[1:]))
		if err == nil && !bytes.HasPrefix(b, appendSendHeader(nil, h)) {
			t.Errorf("%q does not come back", b)
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, b := range hostile.Of(
		appendReply(nil, reply{status: statusAccepted, bytes: 7}),
		appendReply(nil, reply{status: statusRejected, reason: "no"}),
		appendReply(appendTaken(nil, 0), reply{status: statusAccepted}),
		appendReply(appendTaken(appendTaken(nil, 7), 1<<40), reply{status: statusUnknown, reason: "late"}),
		[]byte{streamTaken, streamTaken},
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var words []byte
		p, err := readReply(bytes.NewReader(b), func(offset int64) error {
			words = appendTaken(words, offset)
			return nil
		})
		if !bytes.HasPrefix(b, words) || err == nil && !bytes.HasPrefix(b[len(words):], appendReply(nil, p)) {
			t.Errorf("%q does not come back", b)
		}
	})
}

// FuzzStoredHead holds that what a store gives is read as it was written, or refused.
func FuzzStoredHead(f *testing.F) {
	for _, b := range hostile.Of(
		appendSendHeader([]byte{5, 'm', 'a', 'p', '-', '3'}, sendHeader{key: "part-7", size: 9}),
		appendSendHeader([]byte{0}, sendHeader{}),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		from, h, err := readStoredHead(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, appendSendHeader(append([]byte{byte(len(from))}, from...), h)) {
			t.Errorf("%q does not come back", b)
		}
	})
}

// FuzzEarly holds that what comes by the rendezvous is read back as it was written, or refused.
func FuzzEarly(f *testing.F) {
	id := stateID{1, 2, 3}
	for _, b := range hostile.Of(
		appendSendHeader(nil, sendHeader{key: "part-7", size: 9, id: id}),
		appendReply(id[:], reply{status: statusRejected, bytes: 9, reason: "no room"}),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := readEarlyHead(bytes.NewReader(b)); err == nil && (h.size > MaxEarly || !bytes.HasPrefix(b, appendSendHeader(nil, h))) {
			t.Errorf("%q does not come back", b)
		}
		if id, p, err := readWord(bytes.NewReader(b)); err == nil && !bytes.HasPrefix(b, appendReply(id[:], p)) {
			t.Errorf("%q does not come back", b)
		}
	})
}

func FuzzStoredName(f *testing.F) {
	for _, s := range hostile.Strings(storedName(time.UnixMilli(1<<40), stateID{1, 2, 3}), "-") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if id, err := parseStoredName(name); err == nil && !strings.HasSuffix(name, "-"+id.String()) {
			t.Errorf("%q does not come back", name)
		}
	})
}

// FuzzState holds that a state is taken only if it has the digest and the length that its sender gave, however its
// bytes arrive.
func FuzzState(f *testing.F) {
	state := func(chunks ...string) []byte {
		var b []byte
		all := strings.Join(chunks, "")
		for _, c := range chunks {
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(c))), c...)
		}
		return appendTrailer(b, uint64(len(all)), sha256.Sum256([]byte(all)))
	}
	f.Add(appendTrailer(append(packedZeros(), state("one")[:7]...), chunkSize+3, sha256.Sum256(append(make([]byte, chunkSize), "one"...))), int64(-1))
	f.Add(setCompressedHead(append(make([]byte, compressedHead), zeros...), 1000), int64(-1))
	f.Add(state(), int64(0))
	f.Add(state("one", "two"), int64(-1))
	f.Add(state("one", "two"), int64(7))
	f.Add(state("one")[:10], int64(3))
	f.Add([]byte{0, 0x10, 0, 1}, int64(-1))
	f.Add(append(state("one"), "more"...), int64(3))
	for _, b := range hostile.Of(state("one", "two")) {
		f.Add(b, int64(-1))
		f.Add(b, int64(6))
	}
	var codec zchunk.Codec
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		whole, halves := newStateReader(bytes.NewReader(b), size), newStateReader(iotest.OneByteReader(bytes.NewReader(b)), size)
		whole.codec, halves.codec = &codec, &codec
		got, err := io.ReadAll(&whole)
		again, err2 := io.ReadAll(&halves)
		if !bytes.Equal(got, again) || (err == nil) != (err2 == nil) || errors.Is(err, errWire) != errors.Is(err2, errWire) {
			t.Fatalf("%d bytes, %v; byte by byte %d, %v", len(got), err, len(again), err2)
		}
		if err != nil {
			return
		}
		digest := sha256.Sum256(got)
		if size >= 0 && size != int64(len(got)) || !bytes.Contains(b, appendTrailer(nil, uint64(len(got)), digest)) {
			t.Errorf("took %d bytes of %x", len(got), b)
		}
	})
}

// A compressed chunk is read whatever buffers the application has, and in whatever pieces it comes.
func TestCompressedChunk(t *testing.T) {
	raw := append(make([]byte, chunkSize), "one"...)
	b := appendTrailer(append(packedZeros(), 0, 0, 0, 3, 'o', 'n', 'e'), uint64(len(raw)), sha256.Sum256(raw))
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(b), "byte by byte": iotest.OneByteReader(bytes.NewReader(b)), "with timeouts": iotest.TimeoutReader(bytes.NewReader(b)),
	} {
		s := newStateReader(r, int64(len(raw)))
		var got []byte
		for buf := make([]byte, 1000); ; {
			n, err := s.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			} else if err != nil && !errors.Is(err, iotest.ErrTimeout) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if !bytes.Equal(got, raw) || s.plain != nil || s.frame != nil {
			t.Errorf("%s: %d bytes", name, len(got))
		}
	}
}

func FuzzSplitAddr(f *testing.F) {
	for _, s := range []string{"reduce-0", "reduce-0:80", "a:", ":b", "a:b:c", "", "a b", "é:1"} {
		f.Add(s)
	}
	for _, s := range hostile.Strings("reduce-0:http") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := SplitAddr(s)
		if err != nil {
			return
		}
		if back, err := SplitAddr(a.String()); err != nil || back != a {
			t.Errorf("%q: %v does not come back: %v, %v", s, a, back, err)
		}
	})
}
