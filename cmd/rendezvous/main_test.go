package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/natsobj"
	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

// output is what a command writes.
type output struct {
	mu    sync.Mutex // guards what follows
	text  bytes.Buffer
	grown chan struct{} // closed at the next write, and replaced
}

func newOutput() *output { return &output{grown: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.grown)
	o.grown = make(chan struct{})
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await returns once s was written.
func (o *output) await(t *testing.T, s string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		o.mu.Lock()
		grown, there := o.grown, strings.Contains(o.text.String(), s)
		o.mu.Unlock()
		if there {
			return
		}
		select {
		case <-grown:
		case <-late:
			t.Fatalf("%q was not written: %s", s, o)
		}
	}
}

// begin runs the command until stop is called, and returns its first line.
func begin(t *testing.T, args ...string) (line []byte, log *output, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	r, w := io.Pipe()
	log = newOutput()
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(w)
	cmd.SetErr(log)
	done := make(chan error, 1)
	go func() {
		err := cmd.ExecuteContext(ctx)
		_ = w.CloseWithError(err)
		done <- err
	}()
	line, err := bufio.NewReader(r).ReadBytes('\n')
	if err != nil {
		cancel()
		t.Fatalf("%v: %v", args, err)
	}
	return line, log, func() error { cancel(); return <-done }
}

// hash stands for that of a certificate.
const hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func TestServesAndStops(t *testing.T) {
	const relaySecret, storePassword = "a relay secret of some length", "a store password"
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("FNWIRE_RELAY_SECRET", relaySecret)
	t.Setenv("FNWIRE_LOG_LEVEL", "error") // the flag wins
	key := job.NewKey()
	tokenKey := filepath.Join(t.TempDir(), "key")
	line, log, stop := begin(t, "--json", "--log-level", "debug", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--allow", key.ID().String(),
		"--store-password", storePassword, "--token-key", tokenKey, "--relay", "r1=192.0.2.1:3478,192.0.2.1:3479,https://relay.example:443/"+hash, "--lease", "10s")
	var ready readyLine
	if err := json.Unmarshal(line, &ready); err != nil || !ready.Ready || ready.URL == "" || ready.HTTP == "" || ready.TokenKey == "" {
		t.Fatalf("%s: %v", line, err)
	}
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	c, err := rendezvous.Dial(ctx, rendezvous.Config{URL: ready.URL, Key: key, Name: "a", Identity: id})
	if err != nil {
		t.Fatal(err)
	}
	j, err := c.Join(ctx)
	if err != nil || j.Lease != 10*time.Second || len(j.Relays) != 1 || len(j.Relays[0].STUN) != 2 ||
		j.Relays[0].HTTPS != "relay.example:443" || hex.EncodeToString(j.Relays[0].CertSHA256) != hash {
		t.Errorf("%+v, %v", j, err)
	}
	_ = c.Close()
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
	for _, private := range []string{relaySecret, storePassword, key.Encode()} {
		if strings.Contains(log.String(), private) || bytes.Contains(line, []byte(private)) {
			t.Errorf("output shows %q", private)
		}
	}
	if !strings.Contains(log.String(), `"rendezvous ready"`) {
		t.Errorf("log: %s", log)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// With a data directory there are stores, which outlive the process, and without there are none unless they are asked for.
func TestStores(t *testing.T) {
	key := job.NewKey()
	dir := t.TempDir()
	put := func(st store.Store) error {
		return st.Put(t.Context(), "k", strings.NewReader("state"), store.PutOptions{})
	}
	get := func(st store.Store) error {
		_, _, err := st.Get(t.Context(), "k", 0)
		return err
	}
	for _, c := range []struct {
		args []string
		do   func(store.Store) error // nil: there is no store
	}{
		{nil, nil},
		{[]string{"--store-bytes", "64MiB"}, put},
		{[]string{"--data", dir}, put},
		{[]string{"--data", dir, "--store-job-bytes", "2MiB"}, get},
		{[]string{"--data", dir, "--store-bytes", "0"}, nil},
	} {
		line, _, stop := begin(t, append([]string{"--json", "--listen", "127.0.0.1:0", "--http", "off", "--allow", key.ID().String()}, c.args...)...)
		var ready readyLine
		if err := json.Unmarshal(line, &ready); err != nil {
			t.Fatal(err)
		}
		st, err := natsobj.OpenRendezvous(t.Context(), natsobj.Rendezvous{URL: ready.URL, JobKey: key.Encode()})
		switch {
		case c.do == nil && !errors.Is(err, store.ErrDenied):
			t.Errorf("%v: %v", c.args, err)
		case c.do != nil && err != nil:
			t.Errorf("%v: %v", c.args, err)
		case c.do != nil:
			if err := c.do(st); err != nil {
				t.Errorf("%v: %v", c.args, err)
			}
		}
		if st != nil {
			_ = st.Close()
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusesWithRemedy(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"closed":       {nil, "--allow"},
		"bad job":      {[]string{"--allow", "x"}, "keygen"},
		"bad relay":    {[]string{"--open", "--relay", "r=host:1"}, "ID=ADDR:PORT"},
		"bad hash":     {[]string{"--open", "--relay", "r=192.0.2.1:1,https://h:443/00"}, "SHA-256"},
		"no hash":      {[]string{"--open", "--relay", "r=192.0.2.1:1,https://h:443"}, "SHA-256"},
		"two HTTPS":    {[]string{"--open", "--relay", "r=192.0.2.1:1,https://h:443/" + hash + ",https://h:444/" + hash}, "one https"},
		"bad HTTPS":    {[]string{"--open", "--relay", "r=192.0.2.1:1,https://h/" + hash}, "HOST:PORT"},
		"half TLS":     {[]string{"--open", "--tls-cert", "x"}, "--tls-key"},
		"no hooks":     {[]string{"--open", "--wake-file", "/nonexistent"}, "no such file"},
		"no cert":      {[]string{"--open", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"}, "no such file"},
		"bad size":     {[]string{"--open", "--store-bytes", "1GB"}, "16GiB"},
		"small store":  {[]string{"--open", "--store-bytes", "1KiB"}, "1048576"},
		"not ours":     {[]string{"--open", "--store-bytes", "1GiB", "--nats", "nats://127.0.0.1:1"}, "existing NATS"},
		"bad level":    {[]string{"--open", "--log-level", "loud"}, "loud"},
		"argument":     {[]string{"x"}, "unknown command"},
		"replicas":     {[]string{"--open", "--replicas", "99"}, "--replicas 99: want 1 to 5"},
		"no replica":   {[]string{"--open", "--replicas", "0"}, "--replicas 0: want 1 to 5"},
		"lease":        {[]string{"--open", "--lease", "-1s"}, "lease of -1s"},
		"short secret": {[]string{"--open", "--relay-secret", "x"}, "at least 16"},
		"no NATS":      {[]string{"--open", "--http", "off", "--nats", "nats://me:hidden@127.0.0.1:1"}, "no NATS server answers at nats://127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := newCommand()
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			cmd.SetArgs(c.args)
			cmd.SetOut(io.Discard)
			cmd.SetErr(io.Discard)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := cmd.ExecuteContext(ctx)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
				t.Errorf("%v, want something about %q", err, c.want)
			}
		})
	}
}

func TestHelpHidesSecrets(t *testing.T) {
	t.Setenv("FNWIRE_RELAY_SECRET", "top secret of the relay")
	t.Setenv("FNWIRE_STORE_PASSWORD", "top secret of the store")
	cmd := newCommand()
	if u := cmd.UsageString(); strings.Contains(u, "top secret") {
		t.Error(u)
	}
}

func FuzzParseRelay(f *testing.F) {
	for _, s := range []string{
		"r1=192.0.2.1:3478", "r1=192.0.2.1:3478,192.0.2.1:3479", "r1=[2001:db8::1]:1", "r1", "=", "r1=192.0.2.1:3478,https://relay.example:443/" + hash,
	} {
		f.Add(s)
	}
	for _, s := range hostile.Strings("r1=192.0.2.1:3478,https://relay.example:443/" + hash) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRelay(s)
		if err == nil && (r.Check() != nil || len(r.STUN) == 0 || r.STUN[0] != r.Addr) {
			t.Errorf("%q: %+v", s, r)
		}
	})
}

// ANCHORS, relay: metrics and pprof on loopback.
func TestMetricsAreOnLoopback(t *testing.T) {
	a, err := netip.ParseAddrPort(newCommand().Flags().Lookup("http").DefValue)
	if err != nil || !a.Addr().IsLoopback() {
		t.Errorf("%v, %v", a, err)
	}
}
