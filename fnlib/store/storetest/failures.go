package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib/store"
)

var errTest = errors.New("the test's reader fails")

// failing gives n bytes and then fails.
type failing struct {
	io.Reader
	then func() error
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err == io.EOF { //nolint:errorlint // io.EOF itself is what a reader must return
		err = f.then()
	}
	return n, err
}

// unchanged fails the test unless the only object is k, as put made it.
func unchanged(t *testing.T, st store.Store, seed byte, size int64) {
	t.Helper()
	expect(t, st, "k", seed, size, 0)
	if found := list(t, st, ""); len(found) != 1 || found["k"] != size {
		t.Errorf("list: %v", found)
	}
}

func testReaderFails(t *testing.T, st store.Store) {
	put(t, st, "k", 1, 1000, store.PutOptions{})
	for _, cause := range []error{errTest, io.ErrUnexpectedEOF} {
		for _, size := range []int64{0, 10, 1 << 20, 8 << 20, large} {
			for _, key := range []string{"k", "new"} {
				r := failing{content(2, size), func() error { return cause }}
				if err := st.Put(t.Context(), key, r, store.PutOptions{Size: size}); !errors.Is(err, cause) {
					t.Errorf("%d bytes and %v: %v", size, cause, err)
				}
			}
			unchanged(t, st, 1, 1000)
		}
	}
}

func testCancelledPut(t *testing.T, st store.Store) {
	put(t, st, "k", 1, 1000, store.PutOptions{})
	for _, size := range []int64{0, 1 << 20, large} {
		for _, key := range []string{"k", "new"} {
			ctx, cancel := context.WithCancel(t.Context())
			rest := content(3, large)
			r := io.MultiReader(failing{content(2, size), func() error { cancel(); return io.EOF }}, rest)
			if err := st.Put(ctx, key, r, store.PutOptions{}); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled after %d bytes: %v", size, err)
			}
			cancel()
		}
		unchanged(t, st, 1, 1000)
	}
}

func testCancelledGet(t *testing.T, st store.Store) {
	const size = 3 * large // more than any driver has read ahead
	put(t, st, "k", 1, size, store.PutOptions{Size: size})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, _, err := st.Get(ctx, "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes and %v after the context ended", n, err)
	}
}

func testCancelledBefore(t *testing.T, st store.Store) {
	put(t, st, "k", 1, 1000, store.PutOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, getErr := st.Get(ctx, "k", 0)
	for name, err := range map[string]error{
		"put":    st.Put(ctx, "k", content(2, 10), store.PutOptions{}),
		"get":    getErr,
		"delete": st.Delete(ctx, "k"),
		"list":   st.List(ctx, "", func(store.Info) bool { return true }),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	unchanged(t, st, 1, 1000)
}

// testCloseEarly holds that a reader may be closed in the middle, and that the store works on.
func testCloseEarly(t *testing.T, st store.Store) {
	put(t, st, "k", 1, 3*large, store.PutOptions{})
	for _, n := range []int64{0, 1, 9 << 20} {
		r, _, err := st.Get(t.Context(), "k", 5)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, r, n); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("close after %d bytes: %v", n, err)
		}
	}
	expect(t, st, "k", 1, 3*large, large)
}

func testReplacedWhileRead(t *testing.T, st store.Store) {
	whileRead(t, st, func() error { return st.Put(t.Context(), "k", content(2, 3*large), store.PutOptions{}) })
	expect(t, st, "k", 2, 3*large, 0)
}

func testDeletedWhileRead(t *testing.T, st store.Store) {
	whileRead(t, st, func() error { return st.Delete(t.Context(), "k") })
	gone(t, st, "k")
}

// whileRead holds that a reader gives the object that it opened, or fails, if something happens in the middle.
func whileRead(t *testing.T, st store.Store, something func() error) {
	t.Helper()
	const size = 3 * large
	put(t, st, "k", 1, size, store.PutOptions{})
	r, _, err := st.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	want := content(1, size)
	if err := same(io.LimitReader(r, 1<<20), io.LimitReader(want, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := something(); err != nil {
		t.Fatal(err)
	}
	err = sameOrFails(r, want)
	t.Logf("the reader: %v", err)
	if errors.Is(err, errTorn) {
		t.Error(err)
	}
}

var errTorn = errors.New("wrong bytes without an error")

// sameOrFails returns errTorn if r ends as if all were well, or gives a byte that is wrong, and otherwise what r ends with.
func sameOrFails(r, want io.Reader) error {
	a, b := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, err := r.Read(a)
		if m, _ := io.ReadFull(want, b[:n]); m != n || string(a[:n]) != string(b[:n]) {
			return errTorn
		}
		switch {
		case err == nil:
		case err == io.EOF:
			if n, _ := want.Read(b[:1]); n > 0 {
				return errTorn
			}
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("%w: a failure that passes for the end: %w", errTorn, err)
		default:
			return err
		}
	}
}

func testConcurrent(t *testing.T, st store.Store) {
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 16 {
		key, seed := fmt.Sprintf("concurrent/%d", i), byte(i)
		g.Go(func() error {
			for _, size := range []int64{1000, 3 << 20, 9 << 20, 0} {
				if err := st.Put(ctx, key, content(seed, size), store.PutOptions{}); err != nil {
					return err
				}
				if err := get(ctx, st, key, seed, size, size/2); err != nil {
					return fmt.Errorf("%s, %d bytes: %w", key, size, err)
				}
			}
			return st.Delete(ctx, key)
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if found := list(t, st, ""); len(found) != 0 {
		t.Errorf("left: %v", found)
	}
}

// testNeverTorn replaces one object over and over, by two writers, while readers look at it: each sees one of the versions whole, or
// an error. The first byte tells which version it is.
func testNeverTorn(t *testing.T, st store.Store) {
	sizes := []int64{5, 9 << 20, 300 << 10, 17 << 20}
	version := func(i int) io.Reader {
		return io.MultiReader(bytesReader(byte(i)), content(byte(i), sizes[i]))
	}
	if err := st.Put(t.Context(), "k", version(0), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	var writers, readers errgroup.Group
	var done atomic.Bool
	for w := range 2 {
		writers.Go(func() error {
			for i := range 12 {
				if err := st.Put(t.Context(), "k", version((i+2*w)%len(sizes)), store.PutOptions{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 2 {
		readers.Go(func() error {
			for last := false; ; last = done.Load() {
				err := readVersion(t.Context(), st, version)
				if errors.Is(err, errTorn) || errors.Is(err, store.ErrNotFound) || last && err != nil {
					return err
				}
				if last {
					return nil
				}
			}
		})
	}
	if err := writers.Wait(); err != nil {
		t.Error(err)
	}
	done.Store(true)
	if err := readers.Wait(); err != nil {
		t.Error(err)
	}
}

func bytesReader(b byte) io.Reader { return strings.NewReader(string([]byte{b})) }

func readVersion(ctx context.Context, st store.Store, version func(int) io.Reader) error {
	r, _, err := st.Get(ctx, "k", 0)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	var first [1]byte
	if _, err := io.ReadFull(r, first[:]); errors.Is(err, io.EOF) {
		return errTorn // no version is empty
	} else if err != nil {
		return err
	}
	want := version(int(first[0]))
	if _, err := io.ReadFull(want, first[:]); err != nil {
		return err
	}
	return sameOrFails(r, want)
}

// testMemory holds that neither Put nor Get collects the object.
func testMemory(t *testing.T, st store.Store, limit uint64) {
	const size = 160 << 20
	var most uint64
	base := live()
	watch := func() { most = max(most, live()) }
	for _, hint := range []int64{0, size} {
		if err := st.Put(t.Context(), "k", &every{r: content(1, size), call: watch}, store.PutOptions{Size: hint}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("put holds %.1f MiB", float64(most-min(most, base))/(1<<20))
	r, _, err := st.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if most > base+limit {
		t.Errorf("put of %d bytes holds %d", size, most-base)
	}
	most = 0
	if err := same(&every{r: r, call: watch}, content(1, size)); err != nil {
		t.Error(err)
	}
	t.Logf("get holds %.1f MiB", float64(most-min(most, base))/(1<<20))
	if most > base+limit {
		t.Errorf("get of %d bytes holds %d", size, most-base)
	}
}

// live returns the bytes that are in use.
func live() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// every calls after each 8 MiB.
type every struct {
	r    io.Reader
	n    int
	call func()
}

func (e *every) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if e.n += n; e.n >= 8<<20 {
		e.n = 0
		e.call()
	}
	return n, err
}
