package wukong3

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var (
	idA   = id{0: 1, 15: 2}
	addrA = netip.MustParseAddrPort("198.51.100.3:5000")
)

// golden is every message over TLS.
func golden() map[string]any {
	const one, addr = "01000000000000000000000000000002", "00000000000000000000ffffc63364031388"
	return map[string]any{
		"01001e" + "00000007" + "03" + "1388" + one + "0002" + "c1c2" + "6b6579": pairMsg{7, true, true, 5000, idA, []byte{0xc1, 0xc2}, "key"},
		"020027" + "00000007" + one + addr + "c3":                                matchMsg{7, idA, addrA, []byte{0xc3}},
		"030004" + "00000007":          doneMsg{7},
		"040006" + "00000007" + "6e6f": refusedMsg{7, "no"},
	}
}

func marshal(msg any) []byte {
	return msg.(interface{ append([]byte) []byte }).append(nil)
}

func TestGolden(t *testing.T) {
	for want, msg := range golden() {
		b := marshal(msg)
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%T: %s, want %s", msg, got, want)
		}
		if got, err := read(bytes.NewReader(b)); err != nil || !reflect.DeepEqual(got, msg) {
			t.Errorf("%T: read as %+v, %v", msg, got, err)
		}
		if _, err := read(bytes.NewReader(b[:len(b)-1])); err != io.ErrUnexpectedEOF {
			t.Errorf("%T: cut short: %v", msg, err)
		}
	}
	const one = "01000000000000000000000000000002"
	for want, b := range map[string][]byte{
		"01" + one + strings.Repeat("00", addrBytes):        appendEcho(nil, idA, netip.AddrPort{}),
		"02" + one + "00000000000000000000ffffc63364031388": appendEcho(nil, idA, addrA),
	} {
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	longest := pairMsg{cert: make([]byte, maxCert), key: strings.Repeat("k", maxKey)}
	if _, err := read(bytes.NewReader(marshal(longest))); err != nil {
		t.Error(err)
	}
	for name, m := range map[string]any{
		"key":         pairMsg{key: strings.Repeat("k", maxKey+1)},
		"key of 0":    pairMsg{},
		"malformed":   pairMsg{cert: make([]byte, maxCert+1), key: "k"},
		"message of ": pairMsg{cert: make([]byte, maxCert+1), key: strings.Repeat("k", maxKey)},
	} {
		if _, err := read(bytes.NewReader(marshal(m))); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := read(bytes.NewReader(marshal(refusedMsg{1, strings.Repeat("r", 2*maxReason)}))); err != nil || len(got.(refusedMsg).reason) != maxReason {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzRead(f *testing.F) {
	for s := range golden() {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := read(bytes.NewReader(b))
		if err != nil {
			return
		}
		if got := marshal(msg); !bytes.Equal(got, b[:len(got)]) {
			t.Errorf("%x was read as %+v, which is %x", b, msg, got)
		}
	})
}

func FuzzParseUDP(f *testing.F) {
	f.Add(appendEcho(nil, idA, netip.AddrPort{}))
	f.Add(appendEcho(nil, idA, addrA))
	f.Add(append([]byte{udpAgreed}, idA[:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, of, from, ok := parseUDP(b)
		if !ok {
			return
		}
		again := append([]byte{kind}, of[:]...)
		if kind == udpEcho || kind == udpEchoed {
			again = appendEcho(nil, of, from)
		}
		if kind != udpEcho && !bytes.Equal(again, b) || len(again) != len(b) {
			t.Errorf("%x is %x", b, again)
		}
	})
}
