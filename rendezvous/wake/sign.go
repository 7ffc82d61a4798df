package wake

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	secretPrefix = "whsec_"
	minSecret    = 24 // bytes, as the specification has it
	maxSecret    = 64

	headerID        = "webhook-id"
	headerTimestamp = "webhook-timestamp"
	headerSignature = "webhook-signature"

	maxID         = 256 // bytes
	maxSignatures = 16
)

// Tolerance is how far the time of an attempt may be from the receiver's, in either direction.
const Tolerance = 5 * time.Minute

// Secret is what a hook and the rendezvous share.
type Secret struct{ key string }

// ParseSecret reads "whsec_" and base64 of 24 to 64 bytes; the prefix may be missing.
func ParseSecret(s string) (Secret, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, secretPrefix))
	if err != nil || len(key) < minSecret || len(key) > maxSecret {
		return Secret{}, fmt.Errorf(`wake: secret: want "whsec_" and base64 of %d to %d bytes, such as `+"`echo whsec_$(openssl rand -base64 32)` prints", minSecret, maxSecret)
	}
	return Secret{string(key)}, nil
}

// ParseSecrets reads secrets that are separated by white space: one, or while it is being replaced the new one and the old.
func ParseSecrets(s string) (all []Secret, err error) {
	for _, one := range strings.Fields(s) {
		secret, err := ParseSecret(one)
		if err != nil {
			return nil, err
		}
		all = append(all, secret)
	}
	if len(all) == 0 || len(all) > maxSignatures {
		return nil, fmt.Errorf("wake: %d secrets, want 1 to %d", len(all), maxSignatures)
	}
	return all, nil
}

// String hides the secret.
func (s Secret) String() string { return "wake secret (hidden)" }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return s.String() }

func (s Secret) mac(id, timestamp string, body []byte) []byte {
	h := hmac.New(sha256.New, []byte(s.key))
	_, _ = h.Write([]byte(id + "." + timestamp + ".")) // never fails (hash.Hash)
	_, _ = h.Write(body)
	return h.Sum(nil)
}

// sign returns the value of webhook-signature.
func sign(secrets []Secret, id, timestamp string, body []byte) string {
	all := make([]string, len(secrets))
	for i, s := range secrets {
		all[i] = "v1," + base64.StdEncoding.EncodeToString(s.mac(id, timestamp, body))
	}
	return strings.Join(all, " ")
}

// Verify is for the receiver of a hook's request: it returns what the rendezvous told, or an error that matches
// ErrSignature (answer 401) or ErrEvent (400). header returns the value of a header by its name in lower case, as
// [net/http.Header.Get] does; body must be the very bytes that arrived. It compares in constant time.
//
// Whoever has seen a request can send it again for as long as Tolerance. Where starting twice does harm, keep
// the webhook-id of what was accepted for twice that time, or join with exclusive use of the name.
func Verify(header func(name string) string, body []byte, secrets ...Secret) (Event, error) {
	return verify(header, body, time.Now(), secrets)
}

func verify(header func(string) string, body []byte, now time.Time, secrets []Secret) (Event, error) {
	id, timestamp := header(headerID), header(headerTimestamp)
	if id == "" || len(id) > maxID || strings.Contains(id, ".") {
		return Event{}, fmt.Errorf("%w: header %s is missing or malformed", ErrSignature, headerID)
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return Event{}, fmt.Errorf("%w: header %s is missing or malformed", ErrSignature, headerTimestamp)
	}
	if off := now.Sub(time.Unix(seconds, 0)); off.Abs() > Tolerance {
		return Event{}, fmt.Errorf("%w: made %v ago, at most %v (or clocks differ)", ErrSignature, off.Round(time.Second), Tolerance)
	}
	if len(body) > MaxEvent {
		return Event{}, fmt.Errorf("%w: %d bytes, at most %d", ErrEvent, len(body), MaxEvent)
	}
	if !signed(header(headerSignature), id, timestamp, body, secrets) {
		return Event{}, fmt.Errorf("%w: not signed with a secret of this hook", ErrSignature)
	}
	return parseEvent(body)
}

func signed(signatures, id, timestamp string, body []byte, secrets []Secret) bool {
	for i, one := range strings.Fields(signatures) {
		sum, v1 := strings.CutPrefix(one, "v1,")
		given, err := base64.StdEncoding.DecodeString(sum)
		if !v1 || err != nil || i >= maxSignatures {
			continue
		}
		for _, s := range secrets {
			if s.key != "" && hmac.Equal(given, s.mac(id, timestamp, body)) {
				return true
			}
		}
	}
	return false
}
