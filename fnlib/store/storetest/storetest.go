// Package storetest holds what every driver of fnlib/store must do, as tests that run against the real server:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) store.Store { ... })
//	}
//
// What only one driver can do, or get wrong, is tested beside that driver. Nothing but tests imports this package.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/fnwire/fnwire/fnlib/store"
)

// Suite says how the tests get a store, and in what it differs from others. The zero value of a field is what is usual.
type Suite struct {
	Open         func(t *testing.T) store.Store // an empty store, which the suite closes
	NoExpiry     bool                           // a TTL is for the service: the driver does not look at it
	ListsExpired bool                           // expired objects stay in lists until the service removes them
	Many         int                            // objects of the long list; 0: 1100
	Live         int                            // bytes that a put or a get of any size may hold; 0: 64 MiB
}

// Run tests a driver that differs in nothing.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	Suite{Open: open}.Run(t)
}

// Run runs all tests, each with a store of its own.
func (s Suite) Run(t *testing.T) {
	t.Helper()
	if s.Many == 0 {
		s.Many = 1100
	}
	if s.Live == 0 {
		s.Live = 64 << 20
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, store.Store)
	}{
		{"Sizes", testSizes},
		{"Offsets", testOffsets},
		{"WrongSize", testWrongSize},
		{"Replace", testReplace},
		{"Absent", testAbsent},
		{"BadKeys", testBadKeys},
		{"OddKeys", testOddKeys},
		{"List", testList},
		{"ListMany", func(t *testing.T, st store.Store) { testListMany(t, st, s.Many) }},
		{"ReaderFails", testReaderFails},
		{"CancelledPut", testCancelledPut},
		{"CancelledGet", testCancelledGet},
		{"CancelledBefore", testCancelledBefore},
		{"CloseEarly", testCloseEarly},
		{"ReplacedWhileRead", testReplacedWhileRead},
		{"DeletedWhileRead", testDeletedWhileRead},
		{"Concurrent", testConcurrent},
		{"NeverTorn", testNeverTorn},
		{"Memory", func(t *testing.T, st store.Store) { testMemory(t, st, uint64(s.Live)) }},
		{"Expiry", func(t *testing.T, st store.Store) { testExpiry(t, st, s) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := s.Open(t)
			t.Cleanup(func() {
				if err := st.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.test(t, st)
		})
	}
}

// content is size pseudo-random bytes, the same for the same seed.
func content(seed byte, size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
}

// onlyReader hides what else a reader can do.
type onlyReader struct{ io.Reader }

// same reads r to its end and compares.
func same(r, want io.Reader) error {
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(r, a)
		if err != nil && err != io.EOF && !short(err, n) {
			return err
		}
		m, _ := io.ReadFull(want, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("wrong bytes after %d: %d bytes where %d are right", at, n, m)
		}
		if n < len(a) {
			return nil
		}
		at += int64(n)
	}
}

// short tells whether io.ReadFull says no more than that the reader ended in the middle of the buffer. A reader's own
// io.ErrUnexpectedEOF looks the same, but the bytes that lack then show.
func short(err error, n int) bool { return n > 0 && err == io.ErrUnexpectedEOF } //nolint:errorlint // see above

// put stores content, by a reader that can do nothing but read.
func put(t *testing.T, st store.Store, key string, seed byte, size int64, opt store.PutOptions) {
	t.Helper()
	if err := st.Put(t.Context(), key, onlyReader{content(seed, size)}, opt); err != nil {
		t.Fatalf("put %s, %d bytes: %v", key, size, err)
	}
}

// get returns an error unless the object is what put made.
func get(ctx context.Context, st store.Store, key string, seed byte, size, offset int64) error {
	r, info, err := st.Get(ctx, key, offset)
	if err != nil {
		return err
	}
	want := content(seed, size)
	if _, err := io.CopyN(io.Discard, want, offset); err != nil {
		return err
	}
	if info != (store.Info{Key: key, Size: size}) {
		err = fmt.Errorf("info is %+v", info)
	}
	return errors.Join(err, same(r, want), r.Close())
}

// expect fails the test unless the object is what put made.
func expect(t *testing.T, st store.Store, key string, seed byte, size, offset int64) {
	t.Helper()
	if err := get(t.Context(), st, key, seed, size, offset); err != nil {
		t.Errorf("get %s, %d bytes from %d: %v", key, size, offset, err)
	}
}

// gone fails the test unless there is no such object.
func gone(t *testing.T, st store.Store, key string) {
	t.Helper()
	r, _, err := st.Get(t.Context(), key, 0)
	if err == nil {
		_ = r.Close()
	}
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get %s: %v, want ErrNotFound", key, err)
	}
}

// list returns the objects whose key starts with prefix, and their sizes.
func list(t *testing.T, st store.Store, prefix string) map[string]int64 {
	t.Helper()
	found := map[string]int64{}
	err := st.List(t.Context(), prefix, func(i store.Info) bool {
		if _, twice := found[i.Key]; twice {
			t.Errorf("list %q: %s twice", prefix, i.Key)
		}
		found[i.Key] = i.Size
		return true
	})
	if err != nil {
		t.Errorf("list %q: %v", prefix, err)
	}
	return found
}
