package transport

import (
	"net/netip"
	"testing"

	"github.com/pion/stun/v2"

	"github.com/fnwire/fnwire/internal/hostile"
)

func FuzzParseAnswer(f *testing.F) {
	m, err := stun.Build(stun.TransactionID, stun.BindingSuccess, &stun.XORMappedAddress{IP: []byte{192, 0, 2, 1}, Port: 4000})
	if err != nil {
		f.Fatal(err)
	}
	m6, err := stun.Build(stun.TransactionID, stun.BindingSuccess, &stun.XORMappedAddress{IP: netip.MustParseAddr("2001:db8::1").AsSlice(), Port: 1}, stun.Fingerprint)
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range hostile.Of(
		m.Raw,
		m.Raw[:24],
		m6.Raw,
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		id, mapped, ok := parseAnswer(b)
		if !ok {
			return
		}
		if !mapped.IsValid() || mapped.Port() == 0 || mapped.Addr().Is4In6() || string(id[:]) != string(b[8:20]) {
			t.Errorf("%v from %x", mapped, b)
		}
		var c stunClient
		c.handle(mapped, b) // to no question
	})
}

// What is asked is within what a relay answers (package relay/server): the answer may not be longer.
func TestRequestIsLongEnough(t *testing.T) {
	for _, c := range []change{noRequest, changeNone, changePort} {
		if _, raw, err := newRequest(c); err != nil || len(raw) < 20+24 {
			t.Errorf("%d bytes, %v", len(raw), err)
		}
	}
}
