package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
)

// TestDevEnvironment reads what dev prints to the end, which comes while dev runs, has a shell evaluate it,
// and uses that.
func TestDevEnvironment(t *testing.T) {
	key := job.NewKey()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	args := []string{"dev", "--listen", "127.0.0.1:0", "--job", "it's a job", "--job-key", key.Encode()}
	p := environment{}.startWith(t, args, func(cmd *exec.Cmd) { cmd.Stdout = pw })
	_ = pw.Close() // the process has its own
	text, err := io.ReadAll(pr)
	if err != nil {
		t.Fatal(err)
	}
	sh := exec.CommandContext(testContext(t), "sh", "-c", `eval "$TEXT"; env -u TEXT | grep ^FNWIRE_`)
	sh.Env = append(environ(nil), "TEXT="+string(text))
	out, err := sh.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	env := environment{}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, beCommand) {
			env = append(env, line)
		}
	}
	all := strings.Join(env, "\n")
	for _, want := range []string{"FNWIRE_URL=nats://127.0.0.1:", "FNWIRE_JOB=it's a job", "FNWIRE_JOB_KEY=" + key.Encode()} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in %q", want, all)
		}
	}
	if len(env) != 3 {
		t.Errorf("%d variables: %q", len(env), all)
	}
	env.run(t, "netcheck").want(cli.ExitOK)
	p.interrupt()
	p.want(cli.ExitOK)
	if p.err.String() != "" {
		t.Errorf("dev says %q", &p.err)
	}
	env.run(t, "ls", "--timeout", "2s").fails(cli.ExitFailed, "unreachable")
}

func TestDevAddresses(t *testing.T) {
	_, r := startDev(t, "--listen", "127.0.0.2:0", "--public", "localhost", "--relays", "2")
	if !strings.HasPrefix(r.URL, "nats://127.0.0.1:") || len(r.Relays) != 2 {
		t.Errorf("%+v", r)
	}
	for _, one := range r.Relays {
		if one.Addr.Addr().String() != "127.0.0.1" || len(one.STUN) != 2 || one.STUN[0] != one.Addr || one.STUN[1].Port() == one.Addr.Port() {
			t.Errorf("%+v", one)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	environment{}.run(t, "dev", "--listen", l.Addr().String()).fails(cli.ExitFailed, "in use", "--listen", "free port")
	environment{}.run(t, "dev", "--listen", "192.0.2.1:4222").fails(cli.ExitFailed, "address of this machine", "--public")
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	environment{}.run(t, "dev", "--listen", "127.0.0.1:0", "--relay-listen", u.LocalAddr().String()).fails(cli.ExitFailed, "relay", "in use")
}

func TestPlan(t *testing.T) {
	for _, tt := range []struct {
		dev  dev
		want string // "" is an error
	}{
		{dev{listen: "127.0.0.1:4222", relays: 1}, "127.0.0.1:4222 [127.0.0.1:0]"},
		{dev{listen: "[::1]:0", relays: 2}, "[::1]:0 [[::1]:0 [::1]:0]"},
		{dev{listen: "127.0.0.1:1", relayListen: "127.0.0.2:3478", relays: 3}, "127.0.0.1:1 [127.0.0.2:3478 127.0.0.2:3480 127.0.0.2:3482]"},
		{dev{listen: ":4222", public: "192.0.2.1", relays: 1}, "0.0.0.0:4222 [0.0.0.0:0]"},
		{dev{listen: "127.0.0.1:0", relayListen: ":1", relays: 1}, ""},
		{dev{listen: "127.0.0.1:70000", relays: 1}, ""},
		{dev{listen: "127.0.0.1", relays: 1}, ""},
		{dev{listen: "127.0.0.1:0", relays: 17}, ""},
	} {
		p, err := tt.dev.plan(t.Context())
		var b strings.Builder
		b.WriteString(p.nats + " [")
		for i, a := range p.relays {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(a.String())
		}
		got := b.String() + "]"
		switch {
		case tt.want == "" && err == nil:
			t.Errorf("%+v: no error", tt.dev)
		case tt.want != "" && (err != nil || got != tt.want):
			t.Errorf("%+v: %s, %v; want %s", tt.dev, got, err, tt.want)
		}
	}
}

// TestDevEndsWithEverything runs dev in this process and holds that nothing of it stays.
func TestDevEndsWithEverything(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stderr bytes.Buffer
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	d := dev{common: &common{logLevel: "warn", json: true}, listen: "127.0.0.1:0", relays: 2}
	go func() { done <- d.run(ctx, pw, &stderr) }()
	if _, err := pr.Read(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("stopped in %v", time.Since(began))
	if stderr.Len() > 0 {
		t.Errorf("dev says %q", &stderr)
	}
}

func TestShellQuote(t *testing.T) {
	for _, s := range []string{"", "a", "a b", "it's", `a"$b`, "`x`", "nats://[::1]:4222,nats://h:1", "a\nb", "é"} {
		out, err := exec.CommandContext(testContext(t), "sh", "-c", "printf %s "+shellQuote(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q: %s gives %q, %v", s, shellQuote(s), out, err)
		}
	}
}
