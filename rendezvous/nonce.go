package rendezvous

import (
	"encoding/base64"
	"errors"
)

// Nonce is 16 random bytes, in JSON 22 characters of base64.
type Nonce [16]byte

// MarshalText makes a Nonce a string in JSON.
func (n Nonce) MarshalText() ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(nil, n[:]), nil
}

// UnmarshalText is the inverse of MarshalText.
func (n *Nonce) UnmarshalText(b []byte) error {
	v, err := base64.RawStdEncoding.Strict().DecodeString(string(b))
	if err != nil || len(v) != len(n) {
		return errors.New("nonce: want 22 characters of base64")
	}
	*n = Nonce(v)
	return nil
}
