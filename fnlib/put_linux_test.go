package fnlib_test

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/fnwire/fnwire/fnlib"
)

// What does not fit on the disk leaves nothing behind, in memory neither.
func TestPutDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		if os.Getenv("FNWIRE_CI") != "" {
			t.Fatalf("no tmpfs: %v", err)
		}
		t.Skipf("no tmpfs: %v (run as root)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("TMPDIR", dir)
	w := newWorld(t, 1)
	a := w.joinWith(t, "a", func(c *fnlib.Config) { c.PutMemory = 2 << 20 })
	for range 3 {
		if _, err := a.Put(t.Context(), bytes.NewReader(randomBytes(3<<20)), fnlib.PutOptions{}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if used := fnlib.PutMemoryOf(a); used != 0 {
			t.Fatalf("%d bytes are still in use", used)
		}
	}
	wantGot(t, a, put(t, a, randomBytes(0), fnlib.PutOptions{}), nil)
}
