package punch

import (
	"crypto/hmac"
	"crypto/sha256"
)

// Tag is what PROBEs and REPLYs of one pair of instances start their transaction ids with, so that
// the owner of many Machines can tell whose a datagram from an unknown address is.
type Tag [4]byte

// TagOf returns the tag of a key. Two keys may share one; the MAC decides.
func TagOf(key [32]byte) Tag {
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte("transaction tag"))
	return Tag(h.Sum(nil)[:4])
}
