package server

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// LoadTokenKey reads the key that signs relay tokens: the 32-byte Ed25519 seed in base64. If there is no
// file it makes one that only its owner may read. A file that others may read is refused.
func LoadTokenKey(path string) (ed25519.PrivateKey, error) {
	key, err := readTokenKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails (crypto/rand)
	// Written aside and linked into place, so that of several copies that start at once one wins and
	// nobody reads half a key.
	f, err := os.CreateTemp(filepath.Dir(path), ".token-key-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // the link stays
	_, err = fmt.Fprintln(f, base64.StdEncoding.EncodeToString(seed))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("token key: %w", err)
	}
	return readTokenKey(path)
}

func readTokenKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("token key: others may read %s: chmod 600 it, or delete it for a new one", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("token key: %s does not hold %d bytes in base64", path, ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
