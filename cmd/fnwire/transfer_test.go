package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/internal/cli"
)

// pattern is a state that does not repeat.
func pattern(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b) // never fails
	return b
}

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// write makes a file and returns its path.
func write(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// files lists what is below dir.
func files(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, rerr := filepath.Rel(dir, path)
			found, err = append(found, filepath.ToSlash(rel)), rerr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes with digest %s, want %d with %s", path, len(got), digest(got), len(want), digest(want))
	}
}

func TestSendReceive(t *testing.T) {
	env, _ := startDev(t)
	for i, tt := range []struct {
		path  string
		bytes int
		late  bool // the receiver starts after the sender
		want  []string
	}{
		{"auto", 20 << 20, false, []string{"relay", "relay+direct", "direct"}},
		{"auto", 1 << 10, true, []string{"relay", "relay+direct", "direct"}},
		{"auto", 0, false, []string{"relay", "direct"}},
		{"relay", 3<<20 + 1, false, []string{"relay"}},
		{"relay", 1, true, []string{"relay"}},
		{"direct", 3<<20 + 7, false, []string{"direct"}},
		{"direct", 1 << 20, true, []string{"direct"}},
	} {
		t.Run(fmt.Sprintf("%s-%d-late-%v", tt.path, tt.bytes, tt.late), func(t *testing.T) {
			state := pattern(tt.bytes)
			file, dir := write(t, "state.bin", state), t.TempDir()
			from, to := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
			sendArgs := []string{"send", "--name", from, "--to", to, "--path", tt.path, "--json", file}
			receiveArgs := []string{"--json", "--out", dir}
			var s, r *process
			if tt.late {
				s = env.start(t, nil, append(sendArgs, "--verbose")...)
				s.await(&s.err, "fnlib: joined")
				r = env.startReceive(t, to, receiveArgs...)
			} else {
				r = env.startReceive(t, to, receiveArgs...)
				s = env.start(t, nil, sendArgs...)
			}
			s.want(cli.ExitOK)
			r.want(cli.ExitOK)

			wantFile(t, filepath.Join(dir, "state.bin"), state)
			var sent sendReport
			s.decode(&s.out, &sent)
			if !sent.OK || sent.From != from || sent.To != to || sent.Key != "state.bin" ||
				sent.Bytes != int64(len(state)) || sent.Digest != digest(state) || !slices.Contains(tt.want, sent.Path) || sent.Seconds <= 0 {
				t.Errorf("sent %+v", sent)
			}
			var got receiveReport
			r.decode(&r.out, &got)
			if !got.OK || got.From != from || got.To != to || got.Key != "state.bin" || got.Bytes != sent.Bytes ||
				got.Digest != sent.Digest || got.File != filepath.Join(dir, "state.bin") {
				t.Errorf("received %+v", got)
			}
		})
	}
}

// TestPipes sends standard input and receives to standard output, reports aside.
func TestPipes(t *testing.T) {
	env, _ := startDev(t)
	state := pattern(5 << 20)
	r := env.startReceive(t, "b", "--out", "-", "--log-level", "error")
	s := env.start(t, bytes.NewReader(state), "send", "--name", "a", "--to", "b", "-").want(cli.ExitOK)
	r.want(cli.ExitOK)
	if got := r.out.String(); got != string(state) {
		t.Errorf("%d bytes on stdout, want %d", len(got), len(state))
	}
	if !strings.Contains(s.out.String(), digest(state)) || !strings.Contains(r.err.String(), digest(state)) {
		t.Errorf("reports without digest: %q, %q", &s.out, &r.err)
	}
	if !strings.Contains(s.out.String(), `"stdin"`) {
		t.Errorf("key: %q", &s.out)
	}
}

// TestStateArrivesAsItComes holds that a slow pipe is not kept back until a chunk is full.
func TestStateArrivesAsItComes(t *testing.T) {
	env, _ := startDev(t)
	r := env.startReceive(t, "b", "--out", "-")
	s, pw := env.startPiped(t, "send", "--to", "b", "-")
	for i := range 3 {
		line := fmt.Sprintf("line %d\n", i)
		if _, err := io.WriteString(pw, line); err != nil {
			t.Fatal(err)
		}
		r.await(&r.out, line)
	}
	if err := pw.Close(); err != nil {
		t.Fatal(err)
	}
	s.want(cli.ExitOK)
	r.want(cli.ExitOK)
}

func TestCount(t *testing.T) {
	env, _ := startDev(t)
	dir := t.TempDir()
	r := env.startReceive(t, "b", "--count", "3", "--out", dir, "--json")
	// One sender that pauses must not keep the others waiting.
	slow, pw := env.startPiped(t, "send", "--to", "b", "--key", "slow", "-")
	if _, err := pw.Write([]byte("first ")); err != nil {
		t.Fatal(err)
	}
	env.run(t, "send", "--to", "b", "--key", "one", write(t, "x", []byte("1"))).want(cli.ExitOK)
	env.run(t, "send", "--to", "b", "--key", "sub/two", write(t, "x", []byte("2"))).want(cli.ExitOK)
	if _, err := pw.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	if err := pw.Close(); err != nil {
		t.Fatal(err)
	}
	slow.want(cli.ExitOK)
	r.want(cli.ExitOK)
	wantFile(t, filepath.Join(dir, "slow"), []byte("first second"))
	wantFile(t, filepath.Join(dir, "sub", "two"), []byte("2"))
	if got := files(t, dir); !slices.Equal(got, []string{"one", "slow", "sub/two"}) {
		t.Errorf("files: %q", got)
	}
	if n := strings.Count(r.out.String(), "\n"); n != 3 {
		t.Errorf("%d reports, want 3", n)
	}
	// The receiver is gone: nothing accepts a fourth.
	env.run(t, "send", "--to", "b", "--timeout", "300ms", write(t, "x", nil)).fails(cli.ExitFailed, "300ms", "b")
}

// TestFileIsReplaced holds that --out FILE appears at once and whole, and that one state only fits.
func TestFileIsReplaced(t *testing.T) {
	env, _ := startDev(t)
	file := write(t, "out.bin", []byte("old"))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for i, out := range []string{file, link, filepath.Join(t.TempDir(), "new")} {
		r := env.startReceive(t, "b", "--out", out)
		state := pattern(1000 + i)
		env.start(t, bytes.NewReader(state), "send", "--to", "b", "--key", "../any key/will do", "-").want(cli.ExitOK)
		r.want(cli.ExitOK)
		wantFile(t, out, state)
	}
	wantFile(t, file, pattern(1001)) // through the link
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", st, err)
	}
	env.run(t, "receive", "--name", "b", "--count", "2", "--out", file).fails(cli.ExitUsage, "directory")
}

// TestDeviceIsWritten holds that a device is written to and not replaced by a file.
func TestDeviceIsWritten(t *testing.T) {
	env, _ := startDev(t)
	r := env.startReceive(t, "b", "--out", os.DevNull)
	env.start(t, strings.NewReader("x"), "send", "--to", "b", "-").want(cli.ExitOK)
	r.want(cli.ExitOK)
	if st, err := os.Stat(os.DevNull); err != nil || st.Mode().IsRegular() {
		t.Fatalf("%s: %v, %v", os.DevNull, st, err)
	}
}

// TestRefusedStates holds that a state that has no place here is refused with the reason, on both ends,
// and that the receiver goes on.
func TestRefusedStates(t *testing.T) {
	env, _ := startDev(t)
	outside := t.TempDir()
	dir := filepath.Join(outside, "in")
	if err := os.MkdirAll(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "exists"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	r := env.startReceive(t, "b", "--out", dir)
	for key, why := range map[string]string{
		"../x":      "no file name",
		"/etc/x":    "no file name",
		"a/../../x": "no file name",
		".":         "no file name",
		"link/x":    "link/x",
		"exists":    "exists",
		"taken":     "directory",
		"exists/x":  "exists/x",
		"a\nb":      "control",
	} {
		p := env.start(t, strings.NewReader("evil"), "send", "--to", "b", "--key", key, "-")
		p.fails(cli.ExitFailed, "rejected", why)
	}
	env.start(t, strings.NewReader("good"), "send", "--to", "b", "--key", "good", "-").want(cli.ExitOK)
	r.want(cli.ExitOK)
	if got := files(t, outside); !slices.Equal(got, []string{"in/exists", "in/good", "in/link"}) {
		t.Errorf("files: %q", got)
	}
	wantFile(t, filepath.Join(dir, "exists"), []byte("mine"))

	r = env.startReceive(t, "b", "--out", dir, "--overwrite", "--key", "exists")
	env.start(t, strings.NewReader("x"), "send", "--to", "b", "--key", "other", "-").fails(cli.ExitFailed, "rejected", `"exists"`)
	env.start(t, strings.NewReader("new"), "send", "--to", "b", "--key", "exists", "-").want(cli.ExitOK)
	r.want(cli.ExitOK)
	wantFile(t, filepath.Join(dir, "exists"), []byte("new"))
}

// TestReaderIsGone holds that both ends fail when nobody reads what the receiver writes.
func TestReaderIsGone(t *testing.T) {
	env, _ := startDev(t)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r := env.startWith(t, []string{"receive", "--verbose", "--name", "b", "--out", "-"}, func(cmd *exec.Cmd) { cmd.Stdout = pw })
	r.await(&r.err, "fnwire: joined")
	_, _ = pr.Close(), pw.Close()
	s := env.start(t, bytes.NewReader(pattern(8<<20)), "send", "--to", "b", "-").want(cli.ExitFailed)
	r.want(cli.ExitFailed)
	if !strings.Contains(r.err.String(), "broken pipe") {
		t.Errorf("receiver: %s", &r.err)
	}
	if s.out.String() != "" {
		t.Errorf("sender printed %q", &s.out)
	}
}
