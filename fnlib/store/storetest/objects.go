package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib/store"
)

// large is more than the parts or chunks of any driver, and no multiple of them.
const large = 20<<20 + 3

func testSizes(t *testing.T, st store.Store) {
	for i, size := range []int64{0, 1, 1 << 10, 1<<20 + 1, 8 << 20, large} {
		for j, hint := range []int64{0, size} {
			key := fmt.Sprintf("sizes/%d/%d", size, j)
			put(t, st, key, byte(i), size, store.PutOptions{Size: hint})
			expect(t, st, key, byte(i), size, 0)
		}
	}
}

func testOffsets(t *testing.T, st store.Store) {
	for _, size := range []int64{0, 1, 1000, large} {
		put(t, st, "k", 1, size, store.PutOptions{})
		for _, offset := range []int64{1, 999, 1 << 20, 8<<20 - 1, 8 << 20, large - 1, size} {
			if offset <= size {
				expect(t, st, "k", 1, size, offset)
			}
		}
		for _, offset := range []int64{-1, size + 1, size + 64<<20} {
			r, _, err := st.Get(t.Context(), "k", offset)
			if err == nil {
				_ = r.Close()
			}
			if err == nil || errors.Is(err, store.ErrNotFound) {
				t.Errorf("%d bytes from %d: %v", size, offset, err)
			}
		}
	}
}

// testWrongSize holds that a size which turns out wrong truncates nothing: the store refuses, or keeps what there was.
func testWrongSize(t *testing.T, st store.Store) {
	for i, hint := range []int64{1, 999, 1001, large} {
		key := fmt.Sprintf("wrong/%d", i)
		if err := st.Put(t.Context(), key, content(1, 1000), store.PutOptions{Size: hint}); err != nil {
			gone(t, st, key)
			continue
		}
		expect(t, st, key, 1, 1000, 0)
	}
}

func testReplace(t *testing.T, st store.Store) {
	for i, size := range []int64{10, large, 1 << 20, 0, large, 10, 11} {
		put(t, st, "k", byte(i), size, store.PutOptions{})
		expect(t, st, "k", byte(i), size, 0)
		if found := list(t, st, ""); !maps.Equal(found, map[string]int64{"k": size}) {
			t.Errorf("list: %v", found)
		}
	}
}

func testAbsent(t *testing.T, st store.Store) {
	gone(t, st, "k")
	gone(t, st, "no/such/k")
	for _, size := range []int64{1, large} {
		put(t, st, "k", 1, size, store.PutOptions{})
		for range 2 {
			if err := st.Delete(t.Context(), "k"); err != nil {
				t.Errorf("delete: %v", err)
			}
			gone(t, st, "k")
		}
	}
	if found := list(t, st, ""); len(found) != 0 {
		t.Errorf("list: %v", found)
	}
}

func testBadKeys(t *testing.T, st store.Store) {
	for _, key := range []string{"", "/", "a/", "/a", "a//b", "../a", "a/../../b", "a b", "a\x00", "a*", "a!", strings.Repeat("k", store.MaxKey+1)} {
		if err := st.Put(t.Context(), key, strings.NewReader("x"), store.PutOptions{}); err == nil {
			t.Errorf("put %q: no error", key)
		}
		if _, _, err := st.Get(t.Context(), key, 0); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("get %q: %v", key, err)
		}
		if err := st.Delete(t.Context(), key); err == nil {
			t.Errorf("delete %q: no error", key)
		}
	}
}

// testOddKeys holds that keys which are names and directories, long, or alike do not get into each other's way.
func testOddKeys(t *testing.T, st store.Store) {
	long := strings.Repeat("long-", store.MaxKey)
	keys := []string{
		"a", "a/b", "a/b/c", "A", "A/b", "a.", "a.b", ".a", "..a", "a..", "-a", "_", "=", "a=b==", "a-b", "a_b", "CON", "nul/x",
		long[:store.MaxKey], long[:200], long[:201], long[:200] + "/x", long[:255] + "/x", strings.Repeat("d/", 255) + "dd",
		".tmp/x", "tmp", "meta.json",
	}
	want := map[string]int64{}
	for i, key := range keys {
		want[key] = int64(i)
		put(t, st, key, byte(i), int64(i), store.PutOptions{})
	}
	for i, key := range keys {
		expect(t, st, key, byte(i), int64(i), 0)
	}
	if found := list(t, st, ""); !maps.Equal(found, want) {
		t.Errorf("list: %d of %d: %v", len(found), len(want), found)
	}
	if err := st.Delete(t.Context(), "a"); err != nil {
		t.Errorf("delete: %v", err)
	}
	gone(t, st, "a")
	expect(t, st, "a/b", 1, 1, 0)
	expect(t, st, "A", 3, 3, 0)
}

func testList(t *testing.T, st store.Store) {
	long := strings.Repeat("k", 250)
	sizes := map[string]int64{"a": 1, "ab": 2, "a/b": 3, "a/bc/d": 4, "b/a": 5, "big": large, long + "/" + long: 6, "x-y_z.w=": 7}
	for key, size := range sizes {
		put(t, st, key, 1, size, store.PutOptions{})
	}
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/bc/", "a/bc/d", "b", "c", "big", "x-y", "A", long[:200], long[:240], long + "/" + long[:220], "a*", "?", "../"} {
		want := map[string]int64{}
		for key, size := range sizes {
			if strings.HasPrefix(key, prefix) {
				want[key] = size
			}
		}
		if found := list(t, st, prefix); !maps.Equal(found, want) {
			t.Errorf("list %q: %v, want %v", prefix, found, want)
		}
	}
}

func testListMany(t *testing.T, st store.Store, many int) {
	want := map[string]int64{}
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(16)
	for i := range many {
		key := fmt.Sprintf("many/%d/%d", i%7, i)
		want[key] = int64(i % 3)
		g.Go(func() error { return st.Put(ctx, key, content(1, int64(i%3)), store.PutOptions{}) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if found := list(t, st, "many/"); !maps.Equal(found, want) {
		t.Errorf("%d objects, want %d", len(found), len(want))
	}
	n := 0
	err := st.List(t.Context(), "", func(store.Info) bool {
		n++
		return n < 3
	})
	if err != nil || n != 3 {
		t.Errorf("a list that is broken off gave %d objects, %v", n, err)
	}
}

func testExpiry(t *testing.T, st store.Store, s Suite) {
	if s.NoExpiry {
		return
	}
	for _, size := range []int64{10, large} {
		short, hour := store.PutOptions{TTL: time.Second}, store.PutOptions{TTL: time.Hour}
		put(t, st, "hour", 1, size, short)
		put(t, st, "ever", 2, size, short)
		put(t, st, "kept", 3, size, store.PutOptions{})
		put(t, st, "hour", 4, size, hour)
		put(t, st, "ever", 5, size, store.PutOptions{})
		put(t, st, "short", 6, size, short)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		for {
			err := get(ctx, st, "short", 6, size, 0)
			if errors.Is(err, store.ErrNotFound) {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("it does not expire: %v", err)
			}
		}
		cancel()
		gone(t, st, "short")
		expect(t, st, "hour", 4, size, 0)
		expect(t, st, "ever", 5, size, 0)
		expect(t, st, "kept", 3, size, 0)
		if found := list(t, st, "short"); len(found) != 0 && !s.ListsExpired {
			t.Errorf("list: %v", found)
		}
		put(t, st, "short", 7, size, store.PutOptions{})
		expect(t, st, "short", 7, size, 0)
	}
}
