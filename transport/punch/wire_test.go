package punch

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/fnwire/fnwire/internal/hostile"
)

var goldenKey = [32]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
	16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}

func zeros(n int) string { return string(bytes.Repeat([]byte("00"), n)) }

// golden holds each message as bytes; the MACs were computed with another implementation of HMAC.
var golden = []struct {
	name string
	msg  message
	hex  string
}{
	{"probe", message{kind: TypeProbe, flags: flagControlling, tag: Tag{0xa1, 0xa2, 0xa3, 0xa4}, sequence: 0x0102030405060708, size: ProbeSize},
		"10020000a1a2a3a40102030405060708" + "a979ebc21fe00254599a9e2829f33695" + zeros(32)},
	{"nomination", message{kind: TypeProbe, flags: flagControlling | flagNominate, generation: 3, tag: Tag{0, 0, 0, 1}, sequence: 2, size: PaddedSize},
		"10030003000000010000000000000002" + "fd31ff968067394e01c7a825090ea3df" + zeros(1168)},
	{"reply", message{kind: TypeReply, flags: flagGivenUp, generation: 2, tag: Tag{0xa1, 0xa2, 0xa3, 0xa4}, sequence: 0x0102030405060708,
		observed: netip.MustParseAddrPort("198.51.100.7:4660"), size: ProbeSize},
		"11080002a1a2a3a40102030405060708" + "49da4e148582ae6913a637d5a98fc9c4" + "00000000000000000000ffffc6336407" + "1234" + zeros(14)},
	{"call", message{kind: TypeCall, flags: flagControlling, generation: 2, sequence: 9, candidates: []netip.AddrPort{
		netip.MustParseAddrPort("10.0.0.2:4001"), netip.MustParseAddrPort("[2001:db8::1]:443")}, size: 68},
		"12020002000000020000000000000009" + "0d0d4a8006e0cc56d4a2d53120089e18" +
			"00000000000000000000ffff0a000002" + "0fa1" + "20010db8000000000000000000000001" + "01bb"},
	{"call with NAT", message{kind: TypeCall, sequence: 9, candidates: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:4001")},
		nat: NAT{Mapping: MappingSequential, Step: -2, Public: netip.MustParseAddrPort("198.51.100.7:4660")}, size: 70},
		"12000001000000000000000000000009" + "d510ca2a28823c0a5fd4d4eee9a76843" + "00000000000000000000ffff0a000002" + "0fa1" +
			"03" + "fe" + "00000000000000000000ffffc6336407" + "1234"},
	{"call with attempt", message{kind: TypeCall, sequence: 9, candidates: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:4001")},
		nat:     NAT{Mapping: MappingRandom, Public: netip.MustParseAddrPort("198.51.100.7:4660")},
		attempt: attempt{kind: attemptFan, number: 0x102, first: 4000, last: 4016}, size: 78},
		"12000001000000000000000000000009" + "86d99c71c16978c3f6ed1d420abe49bd" + "00000000000000000000ffff0a000002" + "0fa1" +
			"04" + "00" + "00000000000000000000ffffc6336407" + "1234" + "02" + "00" + "0102" + "0fa0" + "0fb0"},
	{"empty call", message{kind: TypeCall, sequence: 9, candidates: []netip.AddrPort{}, size: 32},
		"12000000000000000000000000000009" + "97faca06c70f038580b893db89ba44a7"},
}

func TestGolden(t *testing.T) {
	s := newSealer(goldenKey)
	for _, g := range golden {
		b := s.seal(g.msg)
		if got := hex.EncodeToString(b); got != g.hex {
			t.Errorf("%s: %s", g.name, got)
		}
		want, _ := hex.DecodeString(g.hex)
		m, err := s.open(want)
		if err != nil || !reflect.DeepEqual(m, g.msg) {
			t.Errorf("%s: opened %+v, %v; want %+v", g.name, m, err, g.msg)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	s := newSealer(goldenKey)
	reseal := func(b []byte) []byte {
		copy(b[macOffset:], s.compute(b))
		return b
	}
	valid := func(i int) []byte { return s.seal(golden[i].msg) }
	for _, tt := range []struct {
		name string
		b    []byte
		want error
	}{
		{"empty", nil, errLength},
		{"31 bytes", valid(0)[:31], errLength},
		{"cut", valid(0)[:63], errMAC},
		{"cut and sealed", reseal(valid(0)[:63]), errLength},
		{"reply without address", reseal(valid(2)[:40]), errLength},
		{"longer", append(valid(0), 0), errMAC},
		{"too long", reseal(append(valid(1), 0)), errLength},
		{"small nomination", reseal(func() []byte { b := valid(0); b[1] |= flagNominate; return b }()), errLength},
		{"type 0x13", reseal(func() []byte { b := valid(0); b[0] = 0x13; return b }()), errType},
		{"type of QUIC", reseal(func() []byte { b := valid(0); b[0] = 0x40; return b }()), errType},
		{"17 candidates", reseal(func() []byte {
			b := make([]byte, headerSize+17*addressSize)
			b[0], b[3] = TypeCall, 17
			return b
		}()), errCount},
		{"count beyond the end", reseal(func() []byte { b := valid(3); b[3] = 3; return b }()), errCount},
	} {
		if _, err := s.open(tt.b); err != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// Each single bit is covered.
	for i := range golden {
		b := valid(i)
		for bit := range len(b) * 8 {
			b[bit/8] ^= 1 << (bit % 8)
			if _, err := s.open(b); err == nil {
				t.Fatalf("%s: bit %d may be flipped", golden[i].name, bit)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
	if _, err := newSealer([32]byte{1}).open(valid(0)); err != errMAC {
		t.Errorf("other key: %v", err)
	}
}

func TestUnknownIsIgnored(t *testing.T) {
	s := newSealer(goldenKey)
	b := s.seal(golden[3].msg)
	b[1] |= 0x80
	b = append(b, 1, 2, 3)
	copy(b[macOffset:], s.compute(b))
	if m, err := s.open(b); err != nil || len(m.candidates) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}

// FuzzParse opens anything, with a right MAC so that the parser behind it is reached, and seals what
// came out again.
func FuzzParse(f *testing.F) {
	s := newSealer(goldenKey)
	for _, g := range golden {
		for _, b := range hostile.Of(s.seal(g.msg)) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := s.open(b); len(b) < headerSize && err == nil {
			t.Fatal("opened a short datagram")
		}
		if len(b) < headerSize {
			return
		}
		copy(b[macOffset:], s.compute(b))
		m, err := s.open(b)
		if err != nil {
			return
		}
		again, err := s.open(s.seal(m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

// FuzzMachine gives a Machine datagrams with right MACs and any content.
func FuzzMachine(f *testing.F) {
	s := newSealer(goldenKey)
	for _, g := range golden {
		for _, b := range hostile.Of(s.seal(g.msg)) {
			f.Add(b, uint16(5), true)
			f.Add(b, uint16(0), false)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, port uint16, controlling bool) {
		if len(b) < headerSize {
			return
		}
		m := New(Config{Key: goldenKey, Controlling: controlling})
		from := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.9"), port)
		m.Step(epoch, Start{Remote: []netip.AddrPort{from}})
		for len(b) >= headerSize {
			n := min(len(b), 64)
			if b[1]&flagNominate != 0 {
				n = min(len(b), PaddedSize)
			}
			d := bytes.Clone(b[:n])
			copy(d[macOffset:], s.compute(d))
			for _, p := range []Packet{{From: from, Data: d}, {Data: d}} {
				in := len(d)
				for _, out := range m.Step(epoch, p).Send {
					if out.Data[0] == TypeReply && len(out.Data) > in {
						t.Fatalf("%d bytes answered by %d", in, len(out.Data))
					}
				}
			}
			b = b[n:]
		}
	})
}

func TestWindow(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var w window
	seen := map[uint64]bool{}
	top := uint64(0)
	base := uint64(1) << 40
	for range 200000 {
		seq := base + rng.Uint64N(1200)
		if rng.IntN(3) == 0 {
			base += rng.Uint64N(600) * uint64(rng.IntN(2))
		}
		want := !seen[seq] && (seq > top || top-seq < windowSize)
		if got := w.fresh(seq); got != want {
			t.Fatalf("seq %d, top %d: %v, want %v", seq, top, got, want)
		}
		seen[seq] = true
		top = max(top, seq)
	}
}
