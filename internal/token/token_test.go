package token_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
)

var (
	key   = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	pub   = key.Public().(ed25519.PublicKey)
	now   = time.Unix(1_700_000_000, 0)
	given = token.Token{Job: job.ID{1, 2}, Peer: [32]byte{3, 4}, Expires: now.Add(time.Minute)}
)

func Example() {
	b := token.Mint(key, "relay-1", given)
	t, err := token.Verify(pub, "relay-1", now, b)
	fmt.Println(len(b), t == given, err)
	_, err = token.Verify(pub, "relay-2", now, b)
	fmt.Println(err)
	// Output:
	// 156 true <nil>
	// relay token: made for another relay
}

func TestGolden(t *testing.T) {
	b := token.Mint(key, "relay-1", given)
	if got := hex.EncodeToString(b[:32]); got != "010000000000000065"+"53f13c"+got[24:56]+"01020000" {
		t.Errorf("starts with %s", got)
	}
	if len(b) != token.Size || hex.EncodeToString(b[60:64]) != "03040000" {
		t.Errorf("%d bytes: %x", len(b), b)
	}
}

func TestVerify(t *testing.T) {
	good := token.Mint(key, "r", given)
	flip := func(i int) []byte {
		b := append([]byte(nil), good...)
		b[i] ^= 1
		return b
	}
	other := ed25519.NewKeyFromSeed([]byte("another seed of thirty-two bytes"))
	for name, c := range map[string]struct {
		b    []byte
		at   time.Time
		want error
	}{
		"good":             {good, now, nil},
		"expired":          {good, given.Expires, token.ErrExpired},
		"short":            {good[:token.Size-1], now, token.ErrMalformed},
		"long":             {append(append([]byte(nil), good...), 0), now, token.ErrMalformed},
		"empty":            {nil, now, token.ErrMalformed},
		"version":          {flip(0), now, token.ErrMalformed},
		"audience":         {flip(12), now, token.ErrAudience},
		"later expiry":     {flip(11), now, token.ErrSignature},
		"absurd expiry":    {flip(4), now, token.ErrSignature},
		"job":              {flip(28), now, token.ErrSignature},
		"peer":             {flip(60), now, token.ErrSignature},
		"signature":        {flip(155), now, token.ErrSignature},
		"other rendezvous": {token.Mint(other, "r", given), now, token.ErrSignature},
	} {
		_, err := token.Verify(pub, "r", c.at, c.b)
		if !errors.Is(err, c.want) && !(name == "absurd expiry" && errors.Is(err, token.ErrMalformed)) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	for _, b := range hostile.Of(
		token.Mint(key, "r", given),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := token.Verify(pub, "r", now, b)
		if err == nil && string(token.Mint(key, "r", got)) != string(b) {
			t.Errorf("%x passed", b)
		}
	})
}
