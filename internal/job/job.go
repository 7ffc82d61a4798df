// Package job holds what a job is to every part of fnwire: its secret key, its public identity and
// the rule for names. Everything else that is secret derives from the key, so that a function needs
// to be given one secret only.
//
// Derivation is HKDF-SHA256 (RFC 5869) without salt; the info string names the purpose.
package job

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// KeySize is the length of a job key in bytes.
const KeySize = 32

// MaxName is the most bytes that a name may have.
const MaxName = 64

// Key is the secret that all functions of a job share. It prints as "job key (hidden)".
type Key struct {
	secret [KeySize]byte
	id     ID // of the secret: it takes as long to compute as a signature, and each offer needs it
}

// NewKey makes a key from the system's random source.
func NewKey() Key {
	var secret [KeySize]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	return newKey(secret)
}

func newKey(secret [KeySize]byte) Key {
	k := Key{secret: secret}
	k.id = ID(k.Signer().Public().(ed25519.PublicKey))
	return k
}

// ParseKey reads a key as Encode writes it. The URL-safe alphabet and a missing padding are accepted.
func ParseKey(s string) (Key, error) {
	s = strings.TrimRight(strings.TrimSpace(s), "=")
	s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil || len(b) != KeySize {
		return Key{}, fmt.Errorf("job key: want %d bytes in base64 (make one with `fnwire keygen`)", KeySize)
	}
	return newKey([KeySize]byte(b)), nil
}

// Encode returns the key in base64. It is the only way to get the secret out.
func (k Key) Encode() string { return base64.StdEncoding.EncodeToString(k.secret[:]) }

// IsZero reports whether k was never set.
func (k Key) IsZero() bool { return k == Key{} }

// String hides the secret, so that a key can reach a log without harm.
func (k Key) String() string { return "job key (hidden)" }

// GoString hides the secret from %#v.
func (k Key) GoString() string { return k.String() }

// Derive returns 32 bytes for one purpose.
func (k Key) Derive(purpose string) [32]byte {
	b, err := hkdf.Key(sha256.New, k.secret[:], nil, "fnwire v1 "+purpose, 32)
	if err != nil {
		panic("job: hkdf: " + err.Error()) // only for an absurd length
	}
	return [32]byte(b)
}

// Signer returns the private half of the job's signing key pair.
func (k Key) Signer() ed25519.PrivateKey {
	seed := k.Derive("job signature")
	return ed25519.NewKeyFromSeed(seed[:])
}

// ID returns the job's identity, which is the public half of the signing key pair.
func (k Key) ID() ID { return k.id }

// MAC authenticates parts for one purpose. Each part is preceded by its length, so that bytes cannot
// move from one part to the next.
func (k Key) MAC(purpose string, parts ...[]byte) [32]byte {
	key := k.Derive(purpose)
	h := hmac.New(sha256.New, key[:])
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}

// ID is a job's public identity: an Ed25519 public key.
type ID [ed25519.PublicKeySize]byte

var idEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// String returns 52 lower-case letters and digits, which is also a valid NATS subject token.
func (id ID) String() string { return strings.ToLower(idEncoding.EncodeToString(id[:])) }

// MarshalText makes an ID a string in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID(string(b))
	*id = v
	return err
}

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	b, err := idEncoding.DecodeString(strings.ToUpper(s))
	if err != nil || len(b) != len(ID{}) || ID(b).String() != s { // of all spellings, only the one
		return ID{}, errors.New("job ID: want the 52 characters that `fnwire keygen` prints")
	}
	return ID(b), nil
}

// Verify reports whether sig is the job's Ed25519 signature of msg.
func (id ID) Verify(msg, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(id[:], msg, sig)
}

// CheckName returns an error unless name has 1 to MaxName letters, digits, '-' or '_'.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("name %.80q: want 1 to %d characters", name, MaxName)
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return fmt.Errorf("name %q: only letters, digits, '-' and '_' are allowed", name)
		}
	}
	return nil
}
