package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/internal/cli"
)

// makeTree makes a directory with what directories hold.
func makeTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "results")
	for _, d := range []string{"", "empty", "a/b/c"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range map[string]struct {
		n    int
		mode fs.FileMode
	}{"run.sh": {20, 0o755}, "nothing": {0, 0o600}, "a/b/c/deep": {300_000, 0o640}, "a/\u00e9 \u4e2d": {7, 0o644}} {
		if err := os.WriteFile(filepath.Join(dir, name), pattern(f.n), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../run.sh", filepath.Join(dir, "a", "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// look lists what is below a directory, with modes and contents.
func look(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		line := rel + " " + st.Mode().String()
		switch {
		case st.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + digest(b)
		case st.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line = rel + " -> " + to
		}
		found = append(found, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestSendDirectory holds that a directory arrives as it is, whole or not at all.
func TestSendDirectory(t *testing.T) {
	env, _ := startDev(t)
	dir, out := makeTree(t), filepath.Join(t.TempDir(), "not", "there")
	send := func(args ...string) *process {
		return env.start(t, nil, append([]string{"send", "--to", "b"}, args...)...)
	}
	for _, more := range [][]string{nil, {"--overwrite"}} {
		r := env.startReceive(t, "b", append(more, "--extract", "--out", out)...)
		send(dir + "/").want(cli.ExitOK)
		r.want(cli.ExitOK)
		if got, want := look(t, filepath.Join(out, "results")), look(t, dir); !slices.Equal(got, want) {
			t.Errorf("received:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if err := os.WriteFile(filepath.Join(out, "results", "old"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// What is there stays, and what is no archive is refused.
	r := env.startReceive(t, "b", "--extract", "--out", out)
	send(dir).fails(cli.ExitFailed, "rejected", "exists")
	env.start(t, bytes.NewReader(pattern(5000)), "send", "--to", "b", "-").fails(cli.ExitFailed, "rejected", "no tar stream")
	env.start(t, bytes.NewReader(archive(t, tar.Header{Name: "../x"})), "send", "--to", "b", "-").fails(cli.ExitFailed, "rejected", "outside")
	r.interrupt()
	r.want(cli.ExitCanceled)
	if got := files(t, out); !slices.Contains(got, "results/old") || slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, ".part") }) {
		t.Errorf("files: %q", got)
	}

	// Without --extract it is the archive.
	r = env.startReceive(t, "b", "--out", out)
	send(dir).want(cli.ExitOK)
	r.want(cli.ExitOK)
	b, err := os.ReadFile(filepath.Join(out, "results.tar"))
	if err != nil {
		t.Fatal(err)
	}
	if h, err := tar.NewReader(bytes.NewReader(b)).Next(); err != nil || h.Name != "a/" {
		t.Errorf("archive begins with %+v, %v", h, err)
	}
	env.run(t, "receive", "--name", "b", "--extract", "--out", filepath.Join(out, "results.tar")).fails(cli.ExitUsage, "--extract")
	env.run(t, "receive", "--name", "b", "--extract", "--out", "-").fails(cli.ExitUsage, "--extract")
}

// archive makes a tar stream.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		data := []byte("data")
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(data))
		}
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sparse is an archive of 3 kB with a file of 64 MiB.
func sparse(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := tar.Header{Name: "s", Typeflag: tar.TypeReg, Size: 512, Mode: 0o644, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"GNU_sparse.major": "1", "GNU_sparse.minor": "0", "GNU_sparse.name": "s", "GNU_sparse.realsize": fmt.Sprint(64 << 20),
	}}
	nothing := append([]byte("0\n"), make([]byte, 510)...) // is what the map of the file's parts holds
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(nothing); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(b.Bytes(), []byte("GNU_sparse"), []byte("GNU.sparse")) // which package tar does not write
}

// refused are archives that would write outside of their directory, hold what no state needs, or are broken; with what is said of each.
func refused(t testing.TB) map[string][]byte {
	t.Helper()
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	file := archive(t, tar.Header{Name: "x"})
	return map[string][]byte{
		`names "../x"`:     archive(t, tar.Header{Name: "ok"}, tar.Header{Name: "../x"}),
		`names "/etc/x"`:   archive(t, tar.Header{Name: "/etc/x"}),
		`names "a/../../x`: archive(t, tar.Header{Name: "a/../../x"}),
		`link to "../.."`:  archive(t, link("l", "../.."), tar.Header{Name: "l/x"}),
		`link to "/etc"`:   archive(t, link("l", "/etc"), tar.Header{Name: "l/x"}),
		"escapes":          archive(t, link("a/b", "."), link("a/b/c", "../.."), tar.Header{Name: "a/b/c/x"}),
		`"d" is neither`:   archive(t, tar.Header{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}),
		`"f" is neither`:   archive(t, tar.Header{Name: "f", Typeflag: tar.TypeFifo}),
		`"h" is neither`:   archive(t, tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "ok"}),
		`"s" is sparse`:    sparse(t),
		`"a/b" cannot be`:  archive(t, tar.Header{Name: "a"}, tar.Header{Name: "a/b"}),
		`"a" cannot be`:    archive(t, tar.Header{Name: "a/b"}, tar.Header{Name: "a"}),
		`"d/" cannot be`:   archive(t, tar.Header{Name: "d"}, tar.Header{Name: "d/", Typeflag: tar.TypeDir}),
		`"." cannot be`:    archive(t, tar.Header{Name: "."}),
		`nn" cannot be`:    archive(t, tar.Header{Name: strings.Repeat("n", 150) + "/" + strings.Repeat("n", 300)}, tar.Header{Name: "nn"}),
		"no tar stream":    file[100:],
		"unexpected EOF":   file[:514],
	}
}

func TestUnpackRefuses(t *testing.T) {
	for why, b := range refused(t) {
		outside := t.TempDir()
		s, err := openSink(t.Context(), filepath.Join(outside, "in")+"/", nil, true)
		if err != nil {
			t.Fatal(err)
		}
		s.(*dirSink).extract = true
		to, err := s.begin("k.tar")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = to.Write(b); err == nil {
			_, err = to.commit()
		} else {
			to.abort()
		}
		if !errors.As(err, new(unfit)) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
		if got := files(t, outside); len(got) != 0 {
			t.Errorf("%s: left %q", why, got)
		}
		s.close()
	}
}

// FuzzUnpack: whatever an archive says, nothing appears outside of its directory.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, tar.Header{Name: "a/b"}, tar.Header{Name: "a/l", Typeflag: tar.TypeSymlink, Linkname: "b"}))
	for _, b := range refused(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		outside := t.TempDir()
		dir := filepath.Join(outside, "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_ = unpack(root, bytes.NewReader(b)) // refused or not
		entries, err := os.ReadDir(outside)
		if err != nil || len(entries) != 1 {
			t.Fatalf("%v, %v", entries, err)
		}
	})
}

// Send returns while a Read of its state is under way, and the state is closed then.
func TestTreeIsClosedWhileRead(t *testing.T) {
	dir := t.TempDir()
	sparse := filepath.Join(dir, "a") // which takes minutes to read
	if err := errors.Join(os.WriteFile(sparse, nil, 0o600), os.Truncate(sparse, 1<<36)); err != nil {
		t.Fatal(err)
	}
	s, err := openTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	reading, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		b := make([]byte, 1<<10)
		_, err := s.r.Read(b)
		close(reading)
		for err == nil {
			_, err = s.r.Read(b)
		}
		ended <- err
	}()
	<-reading
	s.close()
	if err := <-ended; errors.Is(err, io.EOF) {
		t.Error("read to its end")
	}
	if _, err := s.r.Read(make([]byte, 1)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}
