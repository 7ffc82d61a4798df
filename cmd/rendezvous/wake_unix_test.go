//go:build unix

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

const wakeSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// TestWakeFile: hooks are those of the file, which is read again on SIGHUP; one with a mistake changes nothing.
func TestWakeFile(t *testing.T) {
	called := make(chan string, 8)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { called <- r.URL.Path }))
	defer hook.Close()
	t.Setenv("WAKE_TEST_SECRET", wakeSecret)
	file := filepath.Join(t.TempDir(), "hooks.json")
	write := func(path string) {
		t.Helper()
		content := `{"hooks":[{"name":"b*","url":"` + hook.URL + path + `/{name}","secret":"env:WAKE_TEST_SECRET"}]}`
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("/first")
	t.Setenv("FNWIRE_WAKE_FILE", file)
	hungUp, stopHangup := signal.NotifyContext(t.Context(), syscall.SIGHUP) // as cli.Main has it
	defer stopHangup()
	key := job.NewKey()
	line, log, stop := begin(t, "--json", "--listen", "127.0.0.1:0", "--http", "off", "--allow", key.ID().String())
	var ready readyLine
	if err := json.Unmarshal(line, &ready); err != nil {
		t.Fatal(err)
	}
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	c, err := rendezvous.Dial(t.Context(), rendezvous.Config{URL: ready.URL, Key: key, Name: "a", Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	call := func(name string) {
		t.Helper()
		e, err := rendezvous.Seal(key, rendezvous.Hello{Job: key.ID(), Kind: rendezvous.KindOffer, FromName: "a", FromPeer: id.Peer.String(), FromEpoch: c.Epoch(), ToName: name})
		if err == nil {
			_, err = c.Offer(t.Context(), name, e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	call("b0")
	if path := <-called; path != "/first/b0" {
		t.Errorf("called %s", path)
	}
	for i, want := range []string{"/first/", "/second/"} {
		if i == 0 {
			if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			write("/second")
		}
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		log.await(t, []string{"not read again", "hooks read again"}[i])
		name := []string{"b1", "b2"}[i]
		call(name)
		if path := <-called; path != want+name {
			t.Errorf("called %s, want %s", path, want+name)
		}
	}
	if hungUp.Err() != nil {
		t.Error("SIGHUP ends the program")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "MfKQ") {
		t.Errorf("the log shows the secret: %s", log)
	}
}
