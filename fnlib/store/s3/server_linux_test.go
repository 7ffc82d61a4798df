package s3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/s3"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

// TestFrozenServer holds that calls end with their context while the server is stopped, and that all is well when it goes on.
func TestFrozenServer(t *testing.T) {
	server := servertest.VersityGW(t)
	s := opened(t, server.URL)
	const size = 20 * s3.SmallSize
	put(t, s, "k", content(size), 0)
	in, _, err := s.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	thaw := servertest.Freeze(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, getErr := s.Get(ctx, "k", 0)
	for what, err := range map[string]error{
		"get":    getErr,
		"put":    s.Put(ctx, "k", bytes.NewReader(content(10)), store.PutOptions{}),
		"chunks": s.Put(ctx, "k", bytes.NewReader(content(size)), store.PutOptions{}),
		"delete": s.Delete(ctx, "k"),
		"list":   s.List(ctx, "", func(store.Info) bool { return true }),
	} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	thaw()
	_, err = io.Copy(io.Discard, in)
	if err := errors.Join(err, in.Close()); err != nil {
		t.Errorf("the reader that waited: %v", err)
	}
	put(t, s, "k", content(size), 0)
	read(t, s, "k", content(size))
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
