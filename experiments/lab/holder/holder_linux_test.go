package holder_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/holder"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"go.uber.org/goleak"
)

func socket(t *testing.T) string {
	dir, err := os.MkdirTemp("", "holder")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "lab.sock")
}

func TestListen(t *testing.T) {
	path := socket(t)
	if _, err := holder.Status(t.Context(), path); !errors.Is(err, holder.ErrDown) {
		t.Errorf("Status without holder: %v, want ErrDown", err)
	}
	ln, err := holder.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket: %v (%v), want 0600", info.Mode(), err)
	}
	if _, err := holder.Listen(path); !errors.Is(err, holder.ErrInUse) {
		t.Errorf("second Listen: %v, want ErrInUse", err)
	}
	ln.SetUnlinkOnClose(false) // as after SIGKILL
	ln.Close()
	if _, err := holder.Status(t.Context(), path); !errors.Is(err, holder.ErrDown) {
		t.Errorf("Status with a stale socket: %v, want ErrDown", err)
	}
	if ln, err = holder.Listen(path); err != nil {
		t.Fatalf("Listen over a stale socket: %v", err)
	}
	ln.Close()
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Listen(path); err == nil || !strings.Contains(err.Error(), "0700") {
		t.Errorf("Listen in a directory open to others: %v, want a refusal", err)
	}
	if _, err := holder.Status(t.Context(), path); err == nil || errors.Is(err, holder.ErrDown) {
		t.Errorf("Status in a directory open to others: %v, want a refusal", err)
	}
}

// Whatever is written to the socket, the holder answers or closes, and goes on.
func TestBadRequests(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	l := labtest.New(t, lab.Host{Name: "a"})
	path := socket(t)
	ln, err := holder.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- holder.Serve(ctx, ln, l, "test") }()
	for _, text := range []string{"", "x", " {", " []\n", " {\"op\":\"fly\"}\n", " {\"op\":\"exec\",\"command\":{\"host\":\"a\"}}\n"} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Error(err)
		}
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			t.Error(err)
		}
		if answer, err := io.ReadAll(conn); err != nil || !strings.Contains(string(answer), "error") {
			t.Errorf("%q is answered with %q, %v; want an error", text, answer, err)
		}
		conn.Close()
	}
	if _, err := holder.Status(ctx, path); err != nil {
		t.Errorf("Status after bad requests: %v", err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
