package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// serveHTTP serves on l until the test ends.
func serveHTTP(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	s := &http.Server{Handler: h, ReadHeaderTimeout: patience}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close() // the connections are the test's
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestTunnelHTTP has an HTTP client ask a server: bodies both ways, connections that are used again, some
// that are closed after each answer, and several at a time.
func TestTunnelHTTP(t *testing.T) {
	env, _ := startDev(t)
	l := listenTCP(t)
	serveHTTP(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close")
		}
		_ = http.NewResponseController(w).EnableFullDuplex() // of HTTP/1, which this is
		_, _ = io.Copy(w, r.Body)                            // the client sees the failure
	}))
	addr, expose, forward := env.tunnelTo(t, l.Addr().String())
	transport := &http.Transport{}
	client := &http.Client{Transport: transport, Timeout: patience}
	ask := func(path string, body []byte) error {
		r, err := client.Post("http://"+addr+path, "application/octet-stream", bytes.NewReader(body))
		if err != nil {
			return err
		}
		got, err := io.ReadAll(r.Body)
		_ = r.Body.Close() // was read to its end
		if err != nil || r.StatusCode != http.StatusOK || !bytes.Equal(got, body) {
			return fmt.Errorf("%s: %s, %d bytes of %d, %w", path, r.Status, len(got), len(body), err)
		}
		return nil
	}
	var all errgroup.Group
	for i := range 8 {
		all.Go(func() error {
			for j := range 10 {
				if err := ask([]string{"/", "/last"}[j%2], pattern(1+i*j*10_000)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	transport.CloseIdleConnections()
	finish(forward, expose)
}

// gitCommand has nothing of the user's or the machine's configuration.
func gitCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(environ(nil), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
		"http_proxy=", "HTTP_PROXY=", "all_proxy=", "ALL_PROXY=")
	return cmd
}

// makeRepository returns a directory with a bare repository repo.git that a file server can serve.
func makeRepository(t *testing.T) (root, head string) {
	t.Helper()
	root = t.TempDir()
	tree := filepath.Join(root, "tree")
	git := func(dir string, args ...string) string {
		out, err := gitCommand(testContext(t), dir, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
		return string(bytes.TrimSpace(out))
	}
	git(root, "init", "-q", tree)
	for i := range 30 {
		if err := os.WriteFile(filepath.Join(tree, fmt.Sprint("file-", i)), pattern(i*i*3000), 0o600); err != nil {
			t.Fatal(err)
		}
		git(tree, "add", ".")
		git(tree, "commit", "-qm", fmt.Sprint("file ", i))
	}
	git(root, "clone", "-q", "--bare", tree, "repo.git")
	git(filepath.Join(root, "repo.git"), "update-server-info")
	return root, git(tree, "rev-parse", "HEAD")
}

// needGit skips the test where there is no git. Continuous integration has one.
func needGit(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("FNWIRE_CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// wantClone checks what git has cloned.
func wantClone(t *testing.T, dir, head string) {
	t.Helper()
	out, err := gitCommand(testContext(t), dir, "rev-parse", "HEAD").CombinedOutput()
	if err != nil || string(bytes.TrimSpace(out)) != head {
		t.Errorf("HEAD is %s, want %s (%v)", out, head, err)
	}
	if out, err := gitCommand(testContext(t), dir, "fsck", "--strict").CombinedOutput(); err != nil {
		t.Errorf("git fsck: %v: %s", err, out)
	}
	if out, err := gitCommand(testContext(t), dir, "status", "--porcelain").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("git status: %v: %s", err, out)
	}
}

// TestTunnelGit clones a repository of loose objects and packs over HTTP.
func TestTunnelGit(t *testing.T) {
	needGit(t)
	env, _ := startDev(t)
	root, head := makeRepository(t)
	l := listenTCP(t)
	serveHTTP(t, l, http.FileServer(http.Dir(root)))
	addr, expose, forward := env.tunnelTo(t, l.Addr().String())
	work := t.TempDir()
	began := time.Now()
	out, err := gitCommand(testContext(t), work, "clone", "http://"+addr+"/repo.git", "copy").CombinedOutput()
	if err != nil {
		t.Fatalf("git clone: %v: %s", err, out)
	}
	t.Logf("cloned in %v", time.Since(began).Round(time.Millisecond))
	wantClone(t, filepath.Join(work, "copy"), head)
	finish(forward, expose)
}
