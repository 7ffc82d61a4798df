package s3_test

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/s3"
	"github.com/fnwire/fnwire/fnlib/store/storetest"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

func TestFrozenServer(t *testing.T) {
	server := servertest.VersityGW(t)
	storetest.Frozen(t, opened(t, server.URL), 20*s3.SmallSize, func() func() { return servertest.Freeze(t, server) })
}

// TestFull has the server's disk run full.
func TestFull(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("FNWIRE_CI") == "" {
		t.Skip("only root may mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=50m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := opened(t, servertest.VersityGWIn(t, dir).URL)
	put(t, s, "k", content(10), 0)
	for range 2 {
		if err := s.Put(t.Context(), "k", bytes.NewReader(content(8*s3.PartSize)), store.PutOptions{}); !errors.Is(err, store.ErrFull) {
			t.Errorf("64 MiB: %v", err)
		}
		noUploads(t, s)
		read(t, s, "k", content(10))
	}
	put(t, s, "k", content(2*s3.PartSize), 0) // there is room again
}
