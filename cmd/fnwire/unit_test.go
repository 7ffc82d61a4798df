package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/rendezvous"
)

func TestFileName(t *testing.T) {
	for key, want := range map[string]string{
		"a": "a", "a/b": filepath.Join("a", "b"), ".hidden": ".hidden", "a b": "a b", "é": "é", "..a": "..a",
		"": "", ".": "", "..": "", "../a": "", "a/..": "", "a/../b": "", "/a": "", "a/": "", "a//b": "", "./a": "", "a\x00b": "", "a\x1b[2J": "", "a\nb": "",
	} {
		got, err := fileName(key)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", key, got, err, want)
		}
	}
}

// TestDirSink holds what happens to files without any network: aborted states leave nothing, complete
// ones appear with the permissions that the umask gives.
func TestDirSink(t *testing.T) {
	dir := t.TempDir()
	s, err := openSink(t.Context(), dir+"/made/", io.Discard, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	first, err := s.begin("k")
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.begin("k") // at the same time, the same key
	if err != nil {
		t.Fatal(err)
	}
	for i, tg := range []target{first, second} {
		if _, err := fmt.Fprint(tg, i); err != nil {
			t.Fatal(err)
		}
	}
	where, err := first.commit()
	if err != nil || where != filepath.Join(dir, "made", "k") {
		t.Fatalf("%q, %v", where, err)
	}
	if _, err := second.commit(); !errors.As(err, new(unfit)) {
		t.Errorf("the second state of that key: %v", err)
	}
	third, err := s.begin("l/m")
	if err != nil {
		t.Fatal(err)
	}
	third.abort()
	wantFile(t, where, []byte("0"))
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("files: %q", got)
	}
	plain := filepath.Join(dir, "plain")
	f, err := os.Create(plain)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	a, errA := os.Stat(plain)
	b, errB := os.Stat(where)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if a.Mode() != b.Mode() {
		t.Errorf("mode %v, want %v", b.Mode(), a.Mode())
	}
}

func TestInterruptible(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	defer pw.Close()
	r := interruptible(ctx, pr)
	go func() { _, _ = pw.Write([]byte("ab")) }()
	b := make([]byte, 8)
	if n, err := r.Read(b); n != 2 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	cancel()
	if _, err := r.Read(b); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	got, err := io.ReadAll(interruptible(t.Context(), strings.NewReader("whole")))
	if string(got) != "whole" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestExplain(t *testing.T) {
	c := common{timeout: 5 * time.Second}
	err := c.explain(fmt.Errorf("fnlib: join: %w", errors.Join(rendezvous.ErrUnreachable, context.DeadlineExceeded)))
	want := "join: rendezvous unreachable; gave up after 5s (is it running (`fnwire dev` starts one), and is FNWIRE_URL right?)"
	if err.Error() != want || !errors.Is(err, rendezvous.ErrUnreachable) {
		t.Errorf("%q", err)
	}
	if got := c.explain(io.ErrUnexpectedEOF).Error(); got != io.ErrUnexpectedEOF.Error() {
		t.Errorf("%q", got)
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 64 << 20: "64.0 MiB", 5 << 40: "5.0 TiB", 1 << 62: "4096.0 PiB",
	} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		1234567890: "1.23s", 12345678: "12.3ms", 123456: "123µs", 999: "999ns", 0: "0s", 90 * time.Second: "1m30s",
	} {
		if got := short(d).String(); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestClip(t *testing.T) {
	for s, want := range map[string]string{"": "", "abcd": "abcd", "abcde": "abc…", "é\x1b[2Jx": "é?[…", "ab\xff": "ab\ufffd"} {
		if got := clip(s, 4); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// fullDisk takes what is written and cannot keep it, as a file system does that allocates late.
type fullDisk struct{ *os.File }

func (fullDisk) Sync() error { return syscall.ENOSPC }

// A state has its place only when the disk has it: the sender forgets it then.
func TestDirSinkDiskFull(t *testing.T) {
	dir := t.TempDir()
	s, err := openSink(t.Context(), dir, io.Discard, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	tg, err := s.begin("k")
	if err != nil {
		t.Fatal(err)
	}
	ft := tg.(*fileTarget)
	ft.file = fullDisk{ft.file.(*os.File)}
	if _, err := io.WriteString(ft, "state"); err != nil {
		t.Fatal(err)
	}
	if where, err := ft.commit(); !errors.Is(err, syscall.ENOSPC) || errors.As(err, new(unfit)) {
		t.Errorf("%q, %v", where, err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

// FuzzFileName holds that no key leads out of the directory, and none is changed on the way.
func FuzzFileName(f *testing.F) {
	for _, key := range []string{"a", "a/b", "../a", "/a", "a//b", "a\\b", "C:x", "CON", ".", "", "a/../../b", "\x00", "a\nb"} {
		f.Add(key)
	}
	for _, key := range hostile.Strings("a/b", "../a") {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		name, err := fileName(key)
		if err != nil {
			return
		}
		if !filepath.IsLocal(name) || filepath.Clean(name) != name || filepath.ToSlash(name) != key || name == "." {
			t.Errorf("%q becomes %q", key, name)
		}
	})
}
