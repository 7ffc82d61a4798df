// Package store says what fnwire wants of a storage service: the last way to hand over state, for a receiver that is not
// there, and the baseline that everything else is compared with. Each driver is a package of its own below this one, so that a
// function links only what it uses:
//
//	s, err := s3.Open(ctx, "s3://bucket/prefix")
//	node, err := fnlib.Join(ctx, fnlib.Config{Store: s, ...})
//
// A driver stores bytes as they are. What fnlib gives it is sealed under the job key already, so that a store is trusted with
// keeping states, and not with reading or changing them. Package storetest holds what every driver must do.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Errors that callers branch on, with errors.Is.
var (
	// ErrNotFound: there is no object of that key, or it has expired.
	ErrNotFound = errors.New("store: no such object")
	// ErrFull: the store has no room, or takes no object of that size.
	ErrFull = errors.New("store: no room")
	// ErrDenied: the store does not let these credentials do that.
	ErrDenied = errors.New("store: access denied")
)

// MaxKey is the most bytes that a key may have.
const MaxKey = 512

// Info describes an object.
type Info struct {
	Key  string
	Size int64 // bytes
}

// PutOptions describe an object to be stored. The zero value is the default.
type PutOptions struct {
	Size int64         // bytes, if known: some stores choose their part size by it; 0 or less: not known
	TTL  time.Duration // the store may remove it after that; 0: never by itself
}

// Store keeps objects by key. A key is one to MaxKey letters, digits, '-', '_', '.', '=' and '/', with no empty, "." or ".."
// segment (CheckKey). Methods may be called concurrently, and end with their context, whose error they match then. Other errors
// name the store and say what failed; they match ErrNotFound, ErrFull or ErrDenied where that is the cause.
type Store interface {
	// Put stores what r gives, whole or not at all, durably as far as the store is, and replaces what was there. It
	// uses bounded memory, whatever the size. If r fails, Put's error wraps that failure.
	Put(ctx context.Context, key string, r io.Reader, opt PutOptions) error
	// Get opens an object, from offset on; Info is that of the whole. An offset that is negative or beyond the end is an error.
	// Reading returns io.EOF at the object's end only: one that turns out incomplete, or is replaced meanwhile, makes it fail, or
	// gives the old bytes to their end. The reader ends with ctx, is for one goroutine, and must be closed.
	Get(ctx context.Context, key string, offset int64) (io.ReadCloser, Info, error)
	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, key string) error
	// List calls each for every object whose key starts with prefix, in any order, until each returns false.
	List(ctx context.Context, prefix string, each func(Info) bool) error
	// String is the store's URL without secrets.
	String() string
	// Close frees connections. Nothing else may be under way.
	Close() error
}

// CheckKey returns an error unless key may be one.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("store: key of %d bytes, want 1 to %d", len(key), MaxKey)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fmt.Errorf("store: key %q has an empty, \".\" or \"..\" segment", key)
		}
		for _, c := range []byte(segment) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '=':
			default:
				return fmt.Errorf("store: key %q: %q is not allowed", key, c)
			}
		}
	}
	return nil
}
