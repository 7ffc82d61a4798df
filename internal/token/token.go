// Package token is the relay token: the rendezvous mints it, the relay checks it, the instance only
// carries it. It says that one instance of one job may use one relay for some minutes.
//
//	offset  size  field
//	     0     1  version, 1
//	     1     3  zero
//	     4     8  expiry, seconds since 1970, big endian
//	    12    16  relay: first 16 bytes of SHA-256 of the relay's ID
//	    28    32  job ID
//	    60    32  public key (Ed25519) of the instance
//	    92    64  Ed25519 signature of the rendezvous over a label and bytes 0..91
//
// Unknown versions are refused; a longer token is refused.
package token

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/fnwire/fnwire/internal/job"
)

// Size is the length of a token in bytes.
const Size = 156

const (
	version = 1
	signed  = 92
	label   = "fnwire v1 relay token\x00"
)

// Errors that Verify returns; the relay counts them apart.
var (
	ErrMalformed = errors.New("relay token: malformed")
	ErrSignature = errors.New("relay token: not signed by this rendezvous")
	ErrAudience  = errors.New("relay token: made for another relay")
	ErrExpired   = errors.New("relay token: expired")
)

// Token is what a token says.
type Token struct {
	Job     job.ID
	Peer    [ed25519.PublicKeySize]byte
	Expires time.Time // whole seconds
}

func audience(relay string) []byte {
	h := sha256.Sum256([]byte(relay))
	return h[:16]
}

// Mint signs a token for the relay with this ID.
func Mint(key ed25519.PrivateKey, relay string, t Token) []byte {
	b := make([]byte, 0, Size)
	b = append(b, version, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	b = append(b, audience(relay)...)
	b = append(b, t.Job[:]...)
	b = append(b, t.Peer[:]...)
	return append(b, ed25519.Sign(key, append([]byte(label), b...))...)
}

// Claims returns what b, of Size bytes, says of its holder. It is not verified.
func Claims(b []byte) (of job.ID, peer [ed25519.PublicKeySize]byte) {
	return job.ID(b[28:60]), [32]byte(b[60:92])
}

// Verify reads a token at the relay with this ID. Cheap checks come before the signature.
func Verify(key ed25519.PublicKey, relay string, now time.Time, b []byte) (Token, error) {
	if len(b) != Size || b[0] != version || b[1] != 0 || b[2] != 0 || b[3] != 0 {
		return Token{}, ErrMalformed
	}
	if string(b[12:28]) != string(audience(relay)) {
		return Token{}, ErrAudience
	}
	secs := binary.BigEndian.Uint64(b[4:])
	if secs > 1<<40 {
		return Token{}, ErrMalformed
	}
	t := Token{Expires: time.Unix(int64(secs), 0)}
	t.Job, t.Peer = Claims(b)
	if !now.Before(t.Expires) {
		return Token{}, ErrExpired
	}
	if !ed25519.Verify(key, append([]byte(label), b[:signed]...), b[signed:]) {
		return Token{}, ErrSignature
	}
	return t, nil
}
