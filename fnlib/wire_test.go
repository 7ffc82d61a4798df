package fnlib

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
)

// Golden bytes of every message in the package comment.
func TestWireGolden(t *testing.T) {
	var digest Digest
	for i := range digest {
		digest[i] = byte(i)
	}
	const d = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"CONN":         {appendConnHeader(nil, "http"), "01" + "04" + "68747470"},
		"SEND":         {appendSendHeader(nil, sendHeader{key: "k1", size: 258}), "02" + "00" + "0002" + "0000000000000102" + "6b31"},
		"SEND unknown": {appendSendHeader(nil, sendHeader{size: unknownSize}), "02" + "00" + "0000" + "ffffffffffffffff"},
		"trailer":      {appendTrailer(nil, 258, digest), "00000000" + "0000000000000102" + d},
		"REPLY":        {appendReply(nil, reply{status: statusRejected, bytes: 258, digest: digest, reason: "no"}), "03" + "01" + "0002" + "0000000000000102" + d + "6e6f"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestWireLimits(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		read func(io.Reader) error
	}{
		"CONN with a long service": {[]byte{maxService + 1}, func(r io.Reader) error { _, err := readConnHeader(r); return err }},
		"SEND with flags":          {append([]byte{1}, make([]byte, 10)...), func(r io.Reader) error { _, err := readSendHeader(r); return err }},
		"SEND with a long key":     {append([]byte{0, 0xff, 0xff}, make([]byte, 8)...), func(r io.Reader) error { _, err := readSendHeader(r); return err }},
		"SEND of an absurd size":   {[]byte{0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0}, func(r io.Reader) error { _, err := readSendHeader(r); return err }},
		"REPLY of another type":    {make([]byte, replyHeaderSize), func(r io.Reader) error { _, err := readReply(r, func() {}); return err }},
		"REPLY with a long reason": {append([]byte{streamReply, 0, 0xff, 0xff}, make([]byte, 40)...), func(r io.Reader) error { _, err := readReply(r, func() {}); return err }},
	} {
		if err := c.read(bytes.NewReader(c.b)); !errors.Is(err, errWire) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b := appendReply(nil, reply{reason: strings.Repeat("x", 5000)}); len(b) != replyHeaderSize+maxReason {
		t.Errorf("reply of %d bytes", len(b))
	}
}

func FuzzConnHeader(f *testing.F) {
	f.Add(appendConnHeader(nil, "http"))
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
	f.Add(appendSendHeader(nil, sendHeader{key: "part-7", size: 1 << 20}))
	f.Add(appendSendHeader(nil, sendHeader{size: unknownSize}))
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
	f.Add(appendReply(nil, reply{status: statusAccepted, bytes: 7}))
	f.Add(appendReply(nil, reply{status: statusRejected, reason: "no"}))
	f.Add(appendReply([]byte{streamTaken}, reply{status: statusAccepted}))
	f.Add([]byte{streamTaken, streamTaken})
	f.Fuzz(func(t *testing.T, b []byte) {
		words := 0
		p, err := readReply(bytes.NewReader(b), func() { words++ })
		if words > 1 || err == nil && !bytes.HasPrefix(b[words:], appendReply(nil, p)) {
			t.Errorf("%q does not come back", b)
		}
	})
}
