package file_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/file"
	"github.com/fnwire/fnwire/fnlib/store/storetest"
	"github.com/fnwire/fnwire/internal/hostile"
)

func TestMain(m *testing.M) {
	if url := os.Getenv("FNWIRE_TEST_WRITER"); url != "" {
		write(url)
		return
	}
	goleak.VerifyTestMain(m)
}

// endless never ends, and says when there is something to kill.
type endless struct{ told bool }

func (e *endless) Read(p []byte) (int, error) {
	if !e.told {
		e.told = true
		return rand.Read(p)
	}
	fmt.Println("writing")
	select {}
}

// write is what the process does that is killed.
func write(url string) {
	s, err := file.Open(context.Background(), url)
	if err == nil {
		err = s.Put(context.Background(), "k", &endless{}, store.PutOptions{})
	}
	fmt.Println(err)
}

func Example() {
	dir, err := os.MkdirTemp("", "states")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	s, err := file.Open(ctx, "file://"+filepath.ToSlash(dir))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = s.Close() }()
	fmt.Println(s.Put(ctx, "job/a", strings.NewReader("state"), store.PutOptions{TTL: time.Hour}))
	r, info, err := s.Get(ctx, "job/a", 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = r.Close() }()
	rest, err := io.ReadAll(r)
	fmt.Printf("%q of %d bytes, %v\n", rest, info.Size, err)
	// Output:
	// <nil>
	// "ate" of 5 bytes, <nil>
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := file.Open(t.Context(), "file://"+t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// clocked opens a store with a clock that the test moves.
func clocked(t *testing.T, dir string) (*file.Store, *time.Time) {
	t.Helper()
	now := time.UnixMilli(0x0102030405)
	s, err := file.OpenAt("file://"+dir, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, &now
}

// files lists what is in a directory, directories with a slash at the end.
func files(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel := filepath.ToSlash(strings.TrimPrefix(strings.TrimPrefix(path, dir), string(filepath.Separator)))
		if d != nil && d.IsDir() {
			rel += "/"
		}
		found = append(found, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found[1:]
}

func put(t *testing.T, s store.Store, key, state string, ttl time.Duration) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(state), store.PutOptions{TTL: ttl}); err != nil {
		t.Fatal(err)
	}
}

func TestGolden(t *testing.T) {
	dir := t.TempDir()
	s, _ := clocked(t, dir)
	put(t, s, "Job/a", "state", 10*time.Millisecond)
	put(t, s, "b", "", 0)
	for name, want := range map[string]string{
		"^job/a!": "666e7731" + "000000010203040f" + hex.EncodeToString([]byte("state")),
		"b!":      "666e7731" + "0000000000000000",
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if got := hex.EncodeToString(b); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, want)
		}
	}
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	s, now := clocked(t, dir)
	put(t, s, "a/b/short", "1", time.Second)
	put(t, s, "a/long", "2", time.Hour)
	put(t, s, "a/ever", "3", 0)
	put(t, s, "c/d/short", "4", time.Second)
	foreign := []string{"notes!", "readme", "x!/"}
	for _, name := range foreign[:2] {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("not fnwire's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "x!"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x!", "y"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(time.Second + time.Millisecond)
	if _, _, err := s.Get(t.Context(), "a/b/short", 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("expired: %v", err)
	}
	s.Sweep(t.Context())
	want := []string{"+lock", "+tmp/", "a/", "a/ever!", "a/long!", "notes!", "readme", "x!/", "x!/y"}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("left %q, want %q", got, want)
	}
}

// TestSweepSparesWhatIsReplaced has an expired object replaced again and again while two stores sweep it.
func TestSweepSparesWhatIsReplaced(t *testing.T) {
	dir := t.TempDir()
	start := time.Now()
	early, err := file.OpenAt("file://"+dir, func() time.Time { return start.Add(-time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = early.Close() }()
	stop, done := make(chan struct{}), make(chan struct{})
	sweeper, err := file.OpenAt("file://"+dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sweeper.Close() }()
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				sweeper.Sweep(context.Background())
			}
		}
	}()
	for range 200 {
		put(t, early, "dir/k", "old", time.Millisecond)
		put(t, early, "dir/k", "new", 0)
		r, _, err := early.Get(t.Context(), "dir/k", 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		if err := early.Delete(t.Context(), "dir/k"); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-done
}

func TestSymlinksLeadNowhere(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	other, _ := clocked(t, outside)
	put(t, other, "secret", "outside", 0)
	s, _ := clocked(t, dir)
	for name, to := range map[string]string{"out": outside, "file!": filepath.Join(outside, "secret!"), "up": "../" + filepath.Base(outside)} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"out/secret", "file", "up/secret"} {
		if _, _, err := s.Get(t.Context(), key, 0); err == nil {
			t.Errorf("get %s leads outside", key)
		}
	}
	for _, key := range []string{"out/new", "up/new", "out/secret"} {
		if err := s.Put(t.Context(), key, strings.NewReader("inside"), store.PutOptions{}); err == nil {
			t.Errorf("put %s leads outside", key)
		}
		if err := s.Delete(t.Context(), key); err == nil {
			t.Errorf("delete %s leads outside", key)
		}
	}
	put(t, s, "file", "inside", 0) // replaces the link, not what it leads to
	if got := files(t, outside); !slices.Equal(got, []string{"+lock", "+tmp/", "secret!"}) {
		t.Errorf("outside: %q", got)
	}
	if b, err := os.ReadFile(filepath.Join(outside, "secret!")); err != nil || !bytes.HasSuffix(b, []byte("outside")) {
		t.Errorf("outside: %q, %v", b, err)
	}
	if err := s.List(t.Context(), "", func(i store.Info) bool { return i.Key == "file" || t.Failed() }); err != nil {
		t.Error(err)
	}
}

func TestTruncated(t *testing.T) {
	dir := t.TempDir()
	s, _ := clocked(t, dir)
	put(t, s, "k", "state", 0)
	if err := os.Truncate(filepath.Join(dir, "k!"), 7); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(t.Context(), "k", 0); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("a file without its header: %v", err)
	}
}

func TestURLs(t *testing.T) {
	for _, url := range []string{"file:", "file:relative", "file://host/dir", "http:///dir", "file:///dir?x=1", "file://user:secret@/dir", "/dir", "file:///%zz"} {
		s, err := file.Open(t.Context(), url)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s was opened", url)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
	dir := filepath.Join(t.TempDir(), "not yet", "there")
	s, err := file.Open(t.Context(), "file://localhost"+strings.ReplaceAll(dir, " ", "%20"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if want := "file://" + strings.ReplaceAll(dir, " ", "%20"); s.String() != want {
		t.Errorf("%s, want %s", s, want)
	}
}

// FuzzName holds that names are one to one with keys, on a file system that does not tell capital letters from small ones too.
func FuzzName(f *testing.F) {
	for _, s := range []string{"a!", "A", "^a!", "a^", "^^a!", "map-3/State", "+tmp/x!", "a!!/b!", "../x!"} {
		f.Add(s, "a")
	}
	for _, s := range hostile.Strings("map-3/^state!") {
		f.Add(s, "map-3/State")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if key, ok := file.KeyOf(a); ok && (file.PathOf(key) != a || store.CheckKey(key) != nil || !filepath.IsLocal(a)) {
			t.Errorf("%q is taken for the name of %q", a, key)
		}
		if store.CheckKey(a) != nil {
			return
		}
		if key, ok := file.KeyOf(file.PathOf(a)); !ok || key != a {
			t.Errorf("%q becomes %q, %v", a, key, ok)
		}
		if store.CheckKey(b) == nil && a != b && strings.EqualFold(file.PathOf(a), file.PathOf(b)) {
			t.Errorf("%q and %q have one name", a, b)
		}
	})
}

func FuzzHeader(f *testing.F) {
	for _, b := range hostile.Of(
		[]byte("fnw1\x00\x00\x00\x00\x00\x00\x00\x01state"),
		[]byte("fnw1"),
		[]byte("fnw2\x00\x00\x00\x00\x00\x00\x00\x01state"),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := fstest.MapFS{"f": {Data: b}}.Open("f")
		if err != nil {
			t.Fatal(err)
		}
		expires, size, err := file.Examine(in)
		if ok := len(b) >= 12 && string(b[:4]) == "fnw1"; ok != (err == nil) {
			t.Fatalf("%q: %v", b, err)
		} else if ok && (size != int64(len(b)-12) || expires != binary.BigEndian.Uint64(b[4:])) {
			t.Errorf("%q: expires at %d, %d bytes", b, expires, size)
		}
	})
}
