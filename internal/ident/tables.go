package ident

import "crypto/ed25519"

// The standard library computes Ed25519's tables when a key is first used, which takes some 2 ms, a third of what a new process needs for
// joining. They do not depend on anything, so they are computed while the process starts.
func init() { //nolint:gochecknoinits // it changes nothing but when they are computed
	go func() {
		key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
		ed25519.Verify(key.Public().(ed25519.PublicKey), nil, make([]byte, ed25519.SignatureSize))
	}()
}
