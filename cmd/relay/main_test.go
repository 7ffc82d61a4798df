package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
	relayserver "github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begin runs the command until stop is called, and returns its ready line.
func begin(t *testing.T, args ...string) (ready readyLine, log *bytes.Buffer, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	r, w := io.Pipe()
	log = new(bytes.Buffer)
	cmd := newCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append([]string{"--json", "--id", "r1", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"}, args...))
	cmd.SetOut(w)
	cmd.SetErr(log)
	done := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		_ = w.CloseWithError(err)
		done <- err
	}()
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		cancel()
		t.Fatalf("%v: %v", args, err)
	}
	return ready, log, func() error { cancel(); return <-done }
}

// binds checks that an instance with a token of this key gets a session.
func binds(t *testing.T, addr netip.AddrPort, mint func(token.Token) []byte) {
	t.Helper()
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	jobID := job.NewKey().ID()
	sock, err := udpx.Listen("udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	c := relay.NewClient(relay.Config{
		ID: "r1", Addr: addr, Identity: id, Job: jobID,
		Token: mint(token.Token{Job: jobID, Peer: [32]byte(id.Ed25519[32:]), Expires: time.Now().Add(time.Minute)}),
		Send:  func(to netip.AddrPort, b []byte, seg int) error { return sock.Write(b, seg, 0, to) },
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	done := make(chan struct{}, 2)
	go func() { _ = c.Run(ctx); done <- struct{}{} }()
	go func() {
		b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
		for sock.Read(&b) == nil {
			c.HandlePacket(b.Buf[:b.N])
		}
		done <- struct{}{}
	}()
	select {
	case <-c.Ready():
	case <-ctx.Done():
		s, err := c.State()
		t.Errorf("no session: %s, %v", s, err)
	}
	cancel()
	_ = sock.Close()
	<-done
	<-done
}

func TestTokenKey(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ready, log, stop := begin(t, "--token-key", base64.StdEncoding.EncodeToString(pub), "--log-level", "debug")
	binds(t, ready.Addr, func(tok token.Token) []byte { return token.Mint(key, "r1", tok) })
	if len(ready.STUN) != 2 || ready.ID != "r1" {
		t.Errorf("%+v", ready)
	}
	for path, want := range map[string]string{"healthz": "ok", "readyz": "ok", "metrics": "fnwire_relay_challenges_total 1"} {
		res, err := http.Get("http://" + ready.HTTP + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !strings.Contains(string(b), want) {
			t.Errorf("%s: %s", path, b)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		if !json.Valid([]byte(l)) {
			t.Errorf("log is not JSON: %s", l)
		}
	}
}

// With --https the relay takes WebSocket connections, with the certificate whose hash it prints.
func TestHTTPS(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ready, _, stop := begin(t, "--token-key", base64.StdEncoding.EncodeToString(pub), "--https", "127.0.0.1:0")
	hash, err := hex.DecodeString(ready.Cert)
	if err != nil {
		t.Fatal(err)
	}
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	jobID := job.NewKey().ID()
	c := relay.NewClient(relay.Config{
		ID: "r1", Addr: ready.Addr, Identity: id, Job: jobID, HTTPS: ready.HTTPS, CertSHA256: hash,
		Token: token.Mint(key, "r1", token.Token{Job: jobID, Peer: [32]byte(id.Ed25519[32:]), Expires: time.Now().Add(time.Minute)}),
		Send:  func(netip.AddrPort, []byte, int) error { return nil }, // UDP is blocked
		Deliver: func(leg *relay.Client, b []byte, seg int) {
			for ; len(b) > 0; b = b[min(seg, len(b)):] {
				leg.HandlePacket(b[:min(seg, len(b))])
			}
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	done := make(chan struct{})
	go func() { _ = c.Run(ctx); close(done) }()
	select {
	case <-c.Ready():
	case <-ctx.Done():
		s, err := c.State()
		t.Errorf("no session: %s, %v", s, err)
	}
	cancel()
	<-done
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// The relay announces itself to a real rendezvous, which gives it the key for tokens.
func TestAnnounces(t *testing.T) {
	const secret = "a relay secret of some length"
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rdv, err := server.New(server.Config{Listen: "127.0.0.1:0", Open: true, RelaySecret: secret, TokenKey: key})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rdv.Run(ctx) }()
	<-rdv.Ready()
	t.Setenv("FNWIRE_RELAY_SECRET", secret)
	ready, _, stop := begin(t, "--rendezvous", rdv.URL())
	binds(t, ready.Addr, func(tok token.Token) []byte { return token.Mint(key, "r1", tok) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	t.Setenv("FNWIRE_RELAY_SECRET", "another relay secret of some length")
	cmd := newCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs([]string{"--id", "r2", "--listen", "127.0.0.1:0", "--http", "off", "--rendezvous", rdv.URL()})
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	if err := cmd.ExecuteContext(ctx); err == nil || !strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestUsageErrors(t *testing.T) {
	t.Setenv("FNWIRE_RELAY_SECRET", "short")
	for want, args := range map[string][]string{
		"--id":                {"--token-key", "x"},
		"nobody could use":    {"--id", "a"},
		"--token-key":         {"--id", "a", "--token-key", "x"},
		"--listen":            {"--id", "a", "--listen", "host"},
		"--stun2":             {"--id", "a", "--listen", ":65535"},
		"FNWIRE_RELAY_SECRET": {"--id", "a", "--rendezvous", "nats://127.0.0.1:1"},
		"--https ADDR":        {"--id", "a", "--tls-cert", "x"},
		"belong together":     {"--id", "a", "--https", ":0", "--tls-cert", "x"},
		"--tls-cert:":         {"--id", "a", "--https", ":0", "--tls-cert", "no-such", "--tls-key", "no-such"},
		"--https:":            {"--id", "a", "--https", "host"},
	} {
		cmd := newCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(args)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
	t.Setenv("FNWIRE_RELAY_SECRET", "a relay secret of some length")
	cmd := newCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs([]string{"--id", "a", "--rendezvous", "nats://127.0.0.1:1"})
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "--public") {
		t.Errorf("got %v", err)
	}
}

// A limit that is negative would be none.
func TestNegativeLimits(t *testing.T) {
	newCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if !strings.HasPrefix(f.Value.Type(), "int") {
			return
		}
		cmd := newCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs([]string{"--id", "a", "--token-key", "x", "--" + f.Name, "-1"})
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "--"+f.Name) {
			t.Errorf("--%s -1: got %v", f.Name, err)
		}
	})
}

// ANCHORS, relay: metrics and pprof on loopback or behind auth. There is no pprof.
func TestMetricsAreOnLoopback(t *testing.T) {
	a, err := netip.ParseAddrPort(newCommand().Flags().Lookup("http").DefValue)
	if err != nil || !a.Addr().IsLoopback() {
		t.Errorf("%v, %v", a, err)
	}
	s, err := relayserver.New(relayserver.Config{ID: "r", TokenKey: func() ed25519.PublicKey { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/metrics": http.StatusOK, "/debug/pprof/": http.StatusNotFound, "/": http.StatusNotFound} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}
