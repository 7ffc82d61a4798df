package file_test

import (
	"bufio"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/file"
)

func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	s, now := clocked(t, dir)
	put(t, s, "k", "old", 0)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "FNWIRE_TEST_WRITER=file://"+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if line != "writing\n" {
		t.Fatalf("%q, %v", line, err)
	}
	r, _, err := s.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); string(b) != "old" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_ = r.Close()
	left := func() int {
		found, err := filepath.Glob(filepath.Join(dir, "+tmp", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	*now = time.Now().Add(30 * time.Minute)
	if s.Sweep(t.Context()); left() != 1 {
		t.Errorf("%d files in the making, want that of the killed writer, which might only be slow", left())
	}
	*now = time.Now().Add(2 * time.Hour)
	if s.Sweep(t.Context()); left() != 0 {
		t.Errorf("%d files are left", left())
	}
}

// TestDiskFull fills a file system of its own.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		if os.Getenv("FNWIRE_CI") != "" {
			t.Fatalf("mount: %v", err)
		}
		t.Skipf("only root can mount a small file system: run the test with sudo (%v)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := file.Open(t.Context(), "file://"+dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	put(t, s, "k", "old", 0)
	for range 3 {
		if err := s.Put(t.Context(), "k", io.LimitReader(rand.Reader, 2<<20), store.PutOptions{}); !errors.Is(err, store.ErrFull) {
			t.Errorf("%v, want ErrFull", err)
		}
	}
	put(t, s, "k2", strings.Repeat("x", 700<<10), 0) // nothing is left of what failed
	if got := files(t, dir); !slices.Equal(got, []string{"+lock", "+tmp/", "k!", "k2!"}) {
		t.Errorf("%q", got)
	}
}
