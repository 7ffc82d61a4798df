package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
)

// TestWrongCalls holds that what cannot work fails at once, with code 2 and the remedy.
func TestWrongCalls(t *testing.T) {
	env := environment{"FNWIRE_URL=nats://127.0.0.1:1", "FNWIRE_JOB_KEY=" + job.NewKey().Encode()}
	file := write(t, "x", nil)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"frobnicate"}, "unknown command"},
		{[]string{"send", "--frobnicate"}, "unknown flag"},
		{[]string{"send", "--to", "b"}, "arg"},
		{[]string{"send", file}, "--to"},
		{[]string{"send", "--to", "b c", file}, "letters, digits"},
		{[]string{"send", "--to", strings.Repeat("n", 65), file}, "64"},
		{[]string{"send", "--name", "a/b", "--to", "b", file}, "letters, digits"},
		{[]string{"send", "--name", "a", "--to", "a", file}, "own name"},
		{[]string{"send", "--to", "b", "--path", "warp", file}, "auto, direct or relay"},
		{[]string{"send", "--to", "b", "--key", strings.Repeat("k", 1025), file}, "1024"},
		{[]string{"send", "--to", "b", "--timeout", "-1s", file}, "--timeout"},
		{[]string{"send", "--to", "b", "--log-level", "loud", file}, "debug, info, warn or error"},
		{[]string{"send", "--to", "b", "--job-key", "short", file}, "keygen"},
		{[]string{"send", "--to", "b", "--creds", file + "-not", file}, "credentials"},
		{[]string{"receive"}, "--name"},
		{[]string{"receive", "--name", "é"}, "letters, digits"},
		{[]string{"receive", "--name", "b", "--count", "-1"}, "--count"},
		{[]string{"receive", "--name", "b", "--out", filepath.Join(file, "x")}, "--out"},
		{[]string{"receive", "--name", "b", "extra"}, "extra"},
		{[]string{"ping"}, "arg"},
		{[]string{"ping", "b", "--path", "store"}, "auto, direct or relay"},
		{[]string{"ping", "b", "--interval", "-1s"}, "--interval"},
		{[]string{"ping", "b", "--count", "-1"}, "--count"},
		{[]string{"ls", "--job-key", "****"}, "base64"},
		{[]string{"keygen", "--id", "--job-key", "x"}, "base64"},
		{[]string{"expose", "--name", "b"}, "arg"},
		{[]string{"expose", "8080"}, "--name"},
		{[]string{"expose", "--name", "b", "65536"}, "no such port"},
		{[]string{"expose", "--name", "b", "0"}, "no such port"},
		{[]string{"expose", "--name", "b", "::1:80"}, "HOST:PORT"},
		{[]string{"expose", "--name", "b", "--service", strings.Repeat("s", 65), "80"}, "64"},
		{[]string{"expose", "--name", "b", "--max-conns", "0", "80"}, "--max-conns"},
		{[]string{"expose", "--name", "b", "--dial-timeout", "0s", "80"}, "--dial-timeout"},
		{[]string{"forward", "--listen", "0", "--to", "b:80"}, "--name"},
		{[]string{"forward", "--name", "a", "--to", "b:80"}, "--listen"},
		{[]string{"forward", "--name", "a", "--listen", "here", "--to", "b:80"}, "HOST:PORT"},
		{[]string{"forward", "--name", "a", "--listen", "127.0.0.1:65536", "--to", "b:80"}, "invalid port"},
		{[]string{"forward", "--name", "a", "--listen", "0"}, "--to"},
		{[]string{"forward", "--name", "a", "--listen", "0", "--to", "b c:80"}, "letters, digits"},
		{[]string{"forward", "--name", "a", "--listen", "0", "--to", "b:"}, "service"},
		{[]string{"forward", "--name", "a", "--listen", "0", "--to", "a:80"}, "own name"},
		{[]string{"forward", "--name", "a", "--listen", "0", "--to", "b:80", "--path", "store"}, "auto, direct or relay"},
		{[]string{"dev", "--relays", "0"}, "--relays"},
		{[]string{"dev", "--listen", "here"}, "HOST:PORT"},
		{[]string{"dev", "--listen", "127.0.0.1:http"}, "number"},
		{[]string{"dev", "--listen", ":0"}, "--public"},
		{[]string{"dev", "--relay-listen", "127.0.0.1:65534", "--relays", "2"}, "ports"},
	} {
		env.run(t, tt.args...).fails(cli.ExitUsage, tt.want)
	}
	none := environment{}
	none.run(t, "ls").fails(cli.ExitUsage, "FNWIRE_URL", "fnwire dev")
	none.run(t, "ls", "--url", "nats://127.0.0.1:1").fails(cli.ExitUsage, "FNWIRE_JOB_KEY", "fnwire keygen")
	for _, url := range []string{"http://127.0.0.1:1", ":::", "nats://", "nats://127.0.0.1:1,ftp://h"} {
		env.run(t, "ls", "--url", url).fails(cli.ExitUsage, "nats://HOST:PORT")
	}
	none.run(t, "keygen", "--id").fails(cli.ExitUsage, "FNWIRE_JOB_KEY")

	env.run(t, "send", "--to", "b", file+"-not").fails(cli.ExitFailed, "no such file")
}

// TestNoRendezvous holds that a rendezvous that is not there, or does not talk, is told within the timeout.
func TestNoRendezvous(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	key := "FNWIRE_JOB_KEY=" + job.NewKey().Encode()
	for _, url := range []string{"nats://127.0.0.1:1", "nats://" + l.Addr().String()} {
		env := environment{"FNWIRE_URL=" + url, key}
		for _, args := range [][]string{
			{"send", "--to", "b", write(t, "x", nil)}, {"receive", "--name", "b", "--out", t.TempDir()},
			{"ping", "b"}, {"ls"}, {"netcheck"},
		} {
			began := time.Now()
			env.run(t, append(args, "--timeout", "2s")...).fails(cli.ExitFailed, "unreachable", url, "FNWIRE_URL")
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%q with %s took %v", args, url, took)
			}
		}
	}
}

// TestFailureAsJSON holds that --json tells of a failure too, and never within what is received.
func TestFailureAsJSON(t *testing.T) {
	env := environment{"FNWIRE_URL=nats://127.0.0.1:1", "FNWIRE_JOB_KEY=" + job.NewKey().Encode()}
	for _, tt := range []struct {
		args   []string
		code   int
		stderr bool
	}{
		{[]string{"ls"}, cli.ExitFailed, false},
		{[]string{"ping", "a b"}, cli.ExitUsage, false},
		{[]string{"ping"}, cli.ExitUsage, false},
		{[]string{"ping", "--bad"}, cli.ExitUsage, false},
		{[]string{"--bad"}, cli.ExitUsage, false},
		{[]string{"frobnicate"}, cli.ExitUsage, false},
		{[]string{"receive", "--name", "b", "--out", "-"}, cli.ExitFailed, true},
	} {
		p := env.run(t, append(tt.args, "--json")...).want(tt.code)
		out := &p.out
		if tt.stderr {
			out = &p.err
			if p.out.String() != "" {
				t.Errorf("%q: standard output: %q", tt.args, &p.out)
			}
		}
		var f failure
		if err := json.NewDecoder(strings.NewReader(out.String())).Decode(&f); err != nil || f.OK || f.Error == "" {
			t.Errorf("%q: %+v, %v", tt.args, f, err)
		}
	}
	env, _ = startDev(t)
	r := env.startReceive(t, "b", "--out", t.TempDir(), "--json")
	r.interrupt()
	r.want(cli.ExitCanceled)
	var f failure
	if r.decode(&r.out, &f); f.OK || f.Error != "interrupted" {
		t.Errorf("interrupted: %+v", f)
	}
}

func TestWrongJobKey(t *testing.T) {
	env, _ := startDev(t)
	env = append(slices.Clone(env), "FNWIRE_JOB_KEY="+job.NewKey().Encode()) // the last one counts
	for _, args := range [][]string{
		{"send", "--to", "b", write(t, "x", nil)}, {"receive", "--name", "b", "--out", t.TempDir()},
		{"ping", "b"}, {"ls"}, {"netcheck"},
	} {
		env.run(t, args...).fails(cli.ExitFailed, "not admitted", "FNWIRE_JOB_KEY")
	}
}

// TestFlagBeatsEnvironment holds what DESIGN says of flags, environment and defaults.
func TestFlagBeatsEnvironment(t *testing.T) {
	_, dev := startDev(t)
	env := environment{"FNWIRE_URL=nats://127.0.0.1:1", "FNWIRE_JOB_KEY=nonsense", "FNWIRE_NAME=not a name"}
	args := []string{"--url", dev.URL, "--job-key", dev.JobKey}
	r := env.startReceive(t, "b", append(args, "--out", t.TempDir())...)
	env.start(t, strings.NewReader("x"), append(args, "send", "--name", "a", "--to", "b", "-")...).want(cli.ExitOK)
	r.want(cli.ExitOK)

	env = environment{"FNWIRE_URL=" + dev.URL, "FNWIRE_JOB_KEY=" + dev.JobKey, "FNWIRE_NAME=from-env"}
	r = env.start(t, nil, "receive", "--verbose", "--out", t.TempDir())
	r.await(&r.err, "fnwire: joined as from-env")
	// Commands that only look leave a function its name, even if the environment holds it.
	env.run(t, "ping", "from-env", "--count", "1").want(cli.ExitOK)
	env.run(t, "netcheck").want(cli.ExitOK)
	env.run(t, "ping", "other", "--name", "from-env", "--timeout", "5s").fails(cli.ExitFailed, "--name")
	r.interrupt()
	r.want(cli.ExitCanceled)
}

func TestTimeouts(t *testing.T) {
	env, _ := startDev(t)
	short := []string{"--timeout", "300ms"}
	env.run(t, append(short, "send", "--to", "nobody", write(t, "x", nil))...).fails(cli.ExitFailed, "nobody", "not joined", "300ms", "--timeout")
	env.run(t, append(short, "receive", "--name", "b", "--out", t.TempDir())...).fails(cli.ExitFailed, "receive", "300ms", "--timeout")
	env.run(t, append(short, "ping", "nobody")...).fails(cli.ExitFailed, "nobody", "not joined", "300ms")
	// Without an end, the timeout is the end.
	env.run(t, append(short, "receive", "--name", "b", "--count", "0", "--out", t.TempDir())...).want(cli.ExitOK)
}

// TestInterruptedReceiver holds that Ctrl-C in the middle leaves no file and that the sender fails.
func TestInterruptedReceiver(t *testing.T) {
	env, _ := startDev(t)
	dir := t.TempDir()
	for _, count := range []string{"1", "0"} {
		r := env.startReceive(t, "b", "--out", dir, "--count", count)
		s, pw := env.startPiped(t, "send", "--to", "b", "--key", "half", "-")
		if _, err := pw.Write(pattern(1 << 20)); err != nil {
			t.Fatal(err)
		}
		awaitPart(t, dir)
		r.interrupt()
		r.want(cli.ExitCanceled)
		if got := files(t, dir); len(got) != 0 {
			t.Errorf("left behind: %q", got)
		}
		_, _ = pw.Write(pattern(1 << 20)) // the sender notices when it goes on
		_ = pw.Close()
		s.want(cli.ExitFailed)
	}
}

// awaitPart waits until a state is being received in dir.
func awaitPart(t *testing.T, dir string) { awaitParts(t, dir, 1) }

func awaitParts(t *testing.T, dir string, n int) {
	t.Helper()
	ctx := testContext(t)
	for {
		if strings.Count(strings.Join(files(t, dir), "\n")+"\n", ".part\n") >= n {
			return
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			t.Fatal("no state came")
		}
	}
}

// TestSameKeyAtOnce holds that of two states of one key the first has the place, and that the other does not end the receiver.
func TestSameKeyAtOnce(t *testing.T) {
	env, _ := startDev(t)
	dir := t.TempDir()
	r := env.startReceive(t, "b", "--out", dir, "--count", "0")
	first, pw1 := env.startPiped(t, "send", "--to", "b", "--key", "same", "-")
	second, pw2 := env.startPiped(t, "send", "--to", "b", "--key", "same", "-")
	for _, pw := range []*os.File{pw1, pw2} {
		if _, err := pw.Write(pattern(1 << 20)); err != nil {
			t.Fatal(err)
		}
	}
	awaitParts(t, dir, 2)
	_ = pw1.Close()
	first.want(cli.ExitOK)
	_ = pw2.Close()
	second.fails(cli.ExitFailed, "rejected", "exists")
	env.start(t, strings.NewReader("x"), "send", "--to", "b", "--key", "next", "-").want(cli.ExitOK)
	r.interrupt()
	r.want(cli.ExitOK)
	wantFile(t, filepath.Join(dir, "same"), pattern(1<<20))
}

// TestInterruptedSender holds that Ctrl-C ends a sender whose input is idle, and that the receiver drops
// the half state and goes on.
func TestInterruptedSender(t *testing.T) {
	env, _ := startDev(t)
	dir := t.TempDir()
	r := env.startReceive(t, "b", "--out", dir)
	s, pw := env.startPiped(t, "send", "--to", "b", "--key", "k", "-")
	if _, err := pw.Write(pattern(1 << 20)); err != nil {
		t.Fatal(err)
	}
	awaitPart(t, dir)
	s.interrupt()
	s.fails(cli.ExitCanceled, "interrupted")
	r.await(&r.err, "broke off")
	r.await(&r.err, "the sender gave up\n")

	whole := pattern(2 << 20)
	env.start(t, bytes.NewReader(whole), "send", "--to", "b", "--key", "k", "-").want(cli.ExitOK)
	r.want(cli.ExitOK)
	wantFile(t, filepath.Join(dir, "k"), whole)
	if got := files(t, dir); !slices.Equal(got, []string{"k"}) {
		t.Errorf("files: %q", got)
	}
}

// TestKilledSender holds the same for a sender that cannot say goodbye, to standard output: there the
// state cannot be taken back, so the receiver fails.
func TestKilledSender(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for QUIC's idle timeout")
	}
	env, _ := startDev(t)
	r := env.startReceive(t, "b", "--out", "-")
	s, pw := env.startPiped(t, "send", "--to", "b", "-")
	if _, err := pw.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	r.await(&r.out, "half")
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.want(cli.ExitFailed)
	if !strings.Contains(r.err.String(), "not whole") {
		t.Errorf("receiver: %s", &r.err)
	}
}

// TestNameIsTakenOver holds that of two receivers of one name the older one ends, and says why.
func TestNameIsTakenOver(t *testing.T) {
	env, _ := startDev(t)
	dir := t.TempDir()
	older := env.startReceive(t, "b", "--out", t.TempDir())
	newer := env.startReceive(t, "b", "--out", dir)
	older.want(cli.ExitFailed)
	if !strings.Contains(older.err.String(), "fnwire: receive: a newer instance has taken this name") {
		t.Errorf("older: %s", &older.err)
	}
	env.start(t, strings.NewReader("x"), "send", "--to", "b", "--key", "k", "-").want(cli.ExitOK)
	newer.want(cli.ExitOK)
	wantFile(t, filepath.Join(dir, "k"), []byte("x"))
}
