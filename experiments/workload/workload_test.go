package workload_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/fnwire/fnwire/experiments/workload"
)

func Example() {
	dir, err := os.MkdirTemp("", "workload")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		panic(err)
	}
	s, err := workload.FromFiles(8, file)
	if err != nil {
		panic(err)
	}
	b, err := io.ReadAll(s.Open())
	fmt.Println(s.Size(), string(b), err)
	// Output: 8 abcabcab <nil>
}

func TestCut(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	var all []byte
	for i, text := range []string{"hello ", "", "wide ", "world"} {
		p := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths, all = append(paths, p), append(all, text...)
	}
	s, err := workload.FromFiles(int64(len(all)), paths...)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(all) + 3 {
		want := all[:min(n, len(all))]
		cut := s.Cut(int64(n))
		got, err := io.ReadAll(cut.Open())
		if err != nil || !bytes.Equal(got, want) || cut.Size() != int64(len(want)) {
			t.Errorf("Cut(%d) = %q (%d), %v, want %q", n, got, cut.Size(), err, want)
		}
		if err := iotest.TestReader(cut.Open(), want); err != nil {
			t.Errorf("Cut(%d): %v", n, err)
		}
		sum := sha256.Sum256(want)
		if digest, err := cut.SHA256(t.Context()); err != nil || digest != hex.EncodeToString(sum[:]) {
			t.Errorf("digest of %q is %s, %v", want, digest, err)
		}
	}
}

func TestReal(t *testing.T) {
	const size = 5<<20 + 7
	s, err := workload.Real(t.Context(), size)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(s.Open())
	if err != nil || len(b) != size || s.Size() != size {
		t.Fatalf("%d bytes, Size %d, %v, want %d", len(b), s.Size(), err, size)
	}
	if zeros := bytes.Count(b, []byte{0}); zeros > size*3/4 {
		t.Errorf("%d of %d bytes are zeros", zeros, size)
	}
}

// TestCopyEnds: what takes long ends with its context.
func TestCopyEnds(t *testing.T) {
	s, err := workload.Real(t.Context(), 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	written := 0
	err = s.CopyTo(ctx, writer(func(b []byte) (int, error) {
		if written += len(b); written > 8<<20 {
			return 0, errors.New("it goes on")
		}
		cancel()
		return len(b), nil
	}))
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := s.SHA256(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func TestShrunkFile(t *testing.T) {
	p := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(p, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := workload.FromFiles(100, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(p, 50); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, s.Open()); err == nil {
		t.Errorf("%d bytes without an error from a file that has shrunk", n)
	}
	if _, err := workload.FromFiles(1, p+"no"); err == nil {
		t.Error("a file that is not there is accepted")
	}
}

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1000": 1000, "64MiB": 64 << 20, "1.5 GiB": 3 << 29, "200MB": 200e6, "7B": 7, "1 KiB": 1024} {
		if got, err := workload.ParseBytes(s); got != want || err != nil {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "-1", "MiB", "1TiB", "1e300", "NaN", "NaNMiB", "Inf"} {
		if got, err := workload.ParseBytes(s); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", s, got)
		}
	}
	for _, n := range []int64{0, 1, 1000, 1024, 1 << 20, 64 << 20, 3 << 30} {
		if got, err := workload.ParseBytes(workload.FormatBytes(n)); got != n || err != nil {
			t.Errorf("%d comes back as %d, %v", n, got, err)
		}
	}
}
