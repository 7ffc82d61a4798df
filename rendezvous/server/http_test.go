package server_test

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

func TestHealthAndMetrics(t *testing.T) {
	key := job.NewKey()
	ns := existing(t)
	s := start(t, server.Config{NATS: ns.ClientURL(), Allow: []job.ID{key.ID()}, HTTP: "127.0.0.1:0", RelaySecret: secret})
	a := dial(t, s.URL(), key, "a")
	a.join(t)
	a.offer(t, "b")
	tr := &http.Transport{DisableKeepAlives: true}
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := (&http.Client{Transport: tr}).Get("http://" + s.HTTPAddr() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, _ := get(path); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
	_, text := get("/metrics")
	for _, line := range []string{
		`fnwire_rendezvous_requests_total{code="ok",verb="join"} 1`, `fnwire_rendezvous_offers_total{result="parked"} 1`,
		"fnwire_rendezvous_names 2", "fnwire_rendezvous_nats_connected 1", "fnwire_rendezvous_request_seconds_count",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	for _, private := range []string{key.Encode(), key.ID().String(), a.id.Peer.String(), secret} {
		if strings.Contains(text, private) {
			t.Errorf("metrics show %s", private)
		}
	}
	ns.Shutdown()
	for code := 0; code != http.StatusServiceUnavailable; { // as soon as the client library has noticed
		code, _ = get("/readyz")
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz without NATS: %d", code)
	}
}

func TestRunRefuses(t *testing.T) {
	open := server.Config{Open: true}
	with := func(f func(*server.Config)) server.Config { c := open; f(&c); return c }
	for name, c := range map[string]server.Config{
		"store on another's NATS": with(func(c *server.Config) { c.NATS, c.StorePassword = "nats://x", "y" }),
		"listen and not":          with(func(c *server.Config) { c.Listen, c.DontListen = ":0", true }),
		"WebSocket elsewhere":     with(func(c *server.Config) { c.NATS, c.WebSocket = "nats://x", ":0" }),
		"WebSocket nowhere":       with(func(c *server.Config) { c.DontListen, c.WebSocket = true, ":0" }),
		"relay without address":   with(func(c *server.Config) { c.Relays = []rendezvous.RelayInfo{{ID: "r"}} }),
		"short relay secret":      with(func(c *server.Config) { c.RelaySecret = "short" }),
		"too many replicas":       with(func(c *server.Config) { c.Replicas = 6 }),
		"short lease":             with(func(c *server.Config) { c.Lease = 1 }),
	} {
		if _, err := server.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	taken := start(t, open)
	for name, c := range map[string]server.Config{
		"port in use":      with(func(c *server.Config) { c.Listen = strings.TrimPrefix(taken.URL(), "nats://") }),
		"WebSocket in use": with(func(c *server.Config) { c.WebSocket = strings.TrimPrefix(taken.URL(), "nats://") }),
		"bad address":      with(func(c *server.Config) { c.Listen = "nowhere" }),
		"HTTP port in use": with(func(c *server.Config) { c.HTTP = strings.TrimPrefix(taken.URL(), "nats://") }),
		"no NATS there":    with(func(c *server.Config) { c.NATS = "nats://127.0.0.1:1" }),
		"no JetStream":     with(func(c *server.Config) { c.NATS, c.Replicated = "nats://127.0.0.1:1", true }),
	} {
		s, err := server.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(within(t)); err == nil {
			t.Errorf("%s: ran", name)
		}
		if _, err := s.InProcessConn(); err == nil {
			t.Errorf("%s: connects after the end", name)
		}
	}
	if err := taken.Run(within(t)); err == nil {
		t.Error("ran twice")
	}
}

func TestTemporaryDataIsRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, JetStream: true})
	if e, _ := os.ReadDir(dir); len(e) != 1 {
		t.Errorf("%d entries while running", len(e))
	}
	s.stop(t)
	if e, _ := os.ReadDir(dir); len(e) != 0 {
		t.Errorf("%d entries left behind", len(e))
	}
	if _, err := tryDial(t, s.URL(), key, "a"); !errors.Is(err, rendezvous.ErrUnreachable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestTokenKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	one, err := server.LoadTokenKey(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if two, err := server.LoadTokenKey(path); err != nil || !one.Equal(two) {
		t.Errorf("another key on the second reading: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("%d files, want 1", len(entries))
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := server.LoadTokenKey(path); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("key that others may read: %v", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.LoadTokenKey(path); err == nil {
		t.Error("garbage accepted")
	}
}
