package relay_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func counting(b []byte, from byte) {
	for i := range b {
		b[i] = from + byte(i)
	}
}

func testKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	counting(seed, 0)
	return ed25519.NewKeyFromSeed(seed)
}

type sample struct {
	name   string
	frame  []byte
	golden string
	value  any
	parse  func([]byte) (any, bool)
}

// any1 makes a parser comparable to the others.
func any1[T any](parse func([]byte) (T, bool)) func([]byte) (any, bool) {
	return func(b []byte) (any, bool) { return parse(b) }
}

func samples() []sample {
	short, nonce := ident.Short{0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7}, relay.Nonce{1, 2, 3, 4, 5, 6, 7, 8}
	bind := relay.Bind{Nonce: nonce, Time: time.UnixMilli(0x0102030405)}
	counting(bind.Token[:], 0x10)
	chal := relay.Challenge{Nonce: nonce}
	counting(chal.Cookie[:], 0x40)
	prove := relay.Prove{Short: short, Nonce: nonce, Cookie: chal.Cookie}
	bound := relay.Bound{Nonce: nonce, Lifetime: 600, Observed: netip.MustParseAddrPort("192.0.2.1:4660"), Instance: 0x1122334455667788}
	ping, pong := relay.Ping{Short: short, Nonce: nonce}, relay.Pong{Nonce: nonce, Instance: 0x1122334455667788}
	refused := relay.Refused{Reason: relay.ReasonExpired, Nonce: nonce}
	return []sample{
		{"BIND", relay.AppendBind(nil, "relay-1", testKey(), bind),
			"21010000 0102030405060708 0000000102030405 " + hex.EncodeToString(bind.Token[:]) +
				goldenBindSignature + strings.Repeat("00", 992), bind, any1(relay.ParseBind)},
		{"CHALLENGE", relay.AppendChallenge(nil, chal),
			"22010000 0102030405060708 404142434445464748494a4b4c4d4e4f50515253", chal, any1(relay.ParseChallenge)},
		{"PROVE", relay.AppendProve(nil, "relay-1", testKey(), prove),
			"23010000 a0a1a2a3a4a5a6a7 0102030405060708 404142434445464748494a4b4c4d4e4f50515253" + goldenProveSignature,
			prove, any1(relay.ParseProve)},
		{"BOUND", relay.AppendBound(nil, bound),
			"24010000 0102030405060708 00000258 00000000000000000000ffffc0000201 1234 0000 1122334455667788", bound, any1(relay.ParseBound)},
		{"PING", relay.AppendPing(nil, ping), "25010000 a0a1a2a3a4a5a6a7 0102030405060708", ping, any1(relay.ParsePing)},
		{"PONG", relay.AppendPong(nil, pong), "26010000 0102030405060708 1122334455667788", pong, any1(relay.ParsePong)},
		{"UNBOUND", relay.AppendUnbound(nil, nonce), "27010000 0102030405060708", nonce, any1(relay.ParseUnbound)},
		{"GONE", relay.AppendGone(nil, nonce, short), "28010203 a0a1a2a3a4a5a6a7", short,
			func(b []byte) (any, bool) { return relay.ParseGone(b, nonce) }},
		{"REFUSED", relay.AppendRefused(nil, refused), "29010100 0102030405060708", refused, any1(relay.ParseRefused)},
	}
}

func TestGolden(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			if want := strings.ReplaceAll(s.golden, " ", ""); hex.EncodeToString(s.frame) != want {
				t.Errorf("got  %x\nwant %s", s.frame, want)
			}
			got, ok := s.parse(s.frame)
			if !ok || !reflect.DeepEqual(got, s.value) {
				t.Errorf("parsed %+v, want %+v", got, s.value)
			}
			for _, bad := range [][]byte{nil, s.frame[:len(s.frame)-1], append(bytes.Clone(s.frame), 0)} {
				if _, ok := s.parse(bad); ok {
					t.Errorf("took %d bytes", len(bad))
				}
			}
			bad := bytes.Clone(s.frame)
			bad[1]++ // another version; in GONE another nonce
			if _, ok := s.parse(bad); ok {
				t.Error("took another version")
			}
		})
	}
}

func TestGoldenData(t *testing.T) {
	b := make([]byte, relay.HeaderBytes, 20)
	relay.PutHeader(b, 0xff010203, ident.Short{1, 2, 3, 4, 5, 6, 7, 8})
	b = append(b, "packet"...)
	if got := hex.EncodeToString(b); got != "20010203"+"0102030405060708"+hex.EncodeToString([]byte("packet")) {
		t.Errorf("got %s", got)
	}
	peer, tag, packet, ok := relay.ParseData(b)
	if !ok || peer != (ident.Short{1, 2, 3, 4, 5, 6, 7, 8}) || tag != 0x010203 || string(packet) != "packet" {
		t.Errorf("parsed %v %x %q %v", peer, tag, packet, ok)
	}
	for _, bad := range [][]byte{nil, b[:12], make([]byte, 100), append([]byte{0x20}, make([]byte, 1472)...)} {
		if _, _, _, ok := relay.ParseData(bad); ok {
			t.Errorf("took %d bytes", len(bad))
		}
	}
}

func TestSignatures(t *testing.T) {
	pub := testKey().Public().(ed25519.PublicKey)
	bind := relay.AppendBind(nil, "relay-1", testKey(), relay.Bind{Time: time.UnixMilli(1)})
	prove := relay.AppendProve(nil, "relay-1", testKey(), relay.Prove{})
	if !relay.VerifyBind(bind, "relay-1", pub) || !relay.VerifyProve(prove, "relay-1", pub) {
		t.Error("good signature refused")
	}
	// The bytes that are signed, put together as the package comment says.
	id := sha256.Sum256([]byte("relay-1"))
	if !ed25519.Verify(pub, slices.Concat([]byte("fnwire v1 relay bind\x00"), id[:], bind[:176]), bind[176:240]) ||
		!ed25519.Verify(pub, slices.Concat([]byte("fnwire v1 relay prove\x00"), id[:], prove[:40]), prove[40:]) {
		t.Error("signed bytes are not as documented")
	}
	if relay.VerifyBind(bind, "relay-2", pub) || relay.VerifyProve(prove, "relay-2", pub) {
		t.Error("good for another relay")
	}
	for i := range 240 { // the rest is padding
		bad := bytes.Clone(bind)
		bad[i] ^= 1
		if relay.VerifyBind(bad, "relay-1", pub) {
			t.Errorf("BIND: byte %d is not signed", i)
		}
	}
	for i := range prove {
		bad := bytes.Clone(prove)
		bad[i] ^= 1
		if relay.VerifyProve(bad, "relay-1", pub) {
			t.Errorf("PROVE: byte %d is not signed", i)
		}
	}
}

// FuzzFrame checks that what is parsed is built again to the same bytes.
func FuzzFrame(f *testing.F) {
	for _, s := range samples() {
		for _, b := range hostile.Of(s.frame) {
			f.Add(b)
		}
	}
	f.Add([]byte("\x20abcdefghijkpacket"))
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(again []byte) {
			t.Helper()
			if !bytes.Equal(again, b[:min(len(again), len(b))]) {
				t.Errorf("%x became %x", b, again)
			}
		}
		if m, ok := relay.ParseBind(b); ok {
			check(relay.AppendBind(nil, "r", testKey(), m)[:20+token.Size])
		}
		if m, ok := relay.ParseChallenge(b); ok {
			check(relay.AppendChallenge(nil, m))
		}
		if m, ok := relay.ParseProve(b); ok {
			check(relay.AppendProve(nil, "r", testKey(), m)[:40])
		}
		if m, ok := relay.ParseBound(b); ok && m.Observed.Addr().Is4() {
			check(relay.AppendBound(nil, m))
		}
		if m, ok := relay.ParsePing(b); ok {
			check(relay.AppendPing(nil, m))
		}
		if m, ok := relay.ParsePong(b); ok {
			check(relay.AppendPong(nil, m))
		}
		if m, ok := relay.ParseUnbound(b); ok {
			check(relay.AppendUnbound(nil, m))
		}
		if m, ok := relay.ParseRefused(b); ok {
			check(relay.AppendRefused(nil, m))
		}
		if len(b) > 4 {
			n := relay.Nonce{b[1], b[2], b[3]}
			if m, ok := relay.ParseGone(b, n); ok {
				check(relay.AppendGone(nil, n, m))
			}
		}
		if to, tag, p, ok := relay.ParseData(b); ok {
			var h [relay.HeaderBytes]byte
			relay.PutHeader(h[:], tag, to)
			check(append(h[:], p...))
		}
	})
}

const (
	goldenBindSignature = "59dd09a634482702eb0ce351a37d89aea727bf7fad78b2195795e3d27e660073" +
		"c103f79d4d5fb1742085a059f83fe7728bab89fce3815b5f353c22889b7b0f09"
	goldenProveSignature = "34f2c5e1a18d71ac7a6410d47f9dc7bd6a57f5aa598a46b7f594e413e4a91e32" +
		"c437f56c723e95a9995cfd111cc4874eeafe7106518e4386c42627c913819a00"
)
