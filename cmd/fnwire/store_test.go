package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
)

// withStore is env with a directory as the store of its functions.
func withStore(t *testing.T, env environment) (environment, string) {
	t.Helper()
	dir := t.TempDir()
	return append(env[:len(env):len(env)], "FNWIRE_STORE=file://"+filepath.ToSlash(dir)), dir
}

// TestStored holds that what waits for nobody is stored whatever ends the wait, and that its receiver finds it.
func TestStored(t *testing.T) {
	env, _ := startDev(t)
	env, dir := withStore(t, env)
	state := pattern(3 << 20)
	file, out := write(t, "state.bin", state), t.TempDir()
	stop := func(args ...string) *process {
		p := env.start(t, nil, append([]string{"send", "--verbose", "--name", "a", "--to", "b", "--json"}, args...)...)
		p.await(&p.err, "fnlib: joined")
		return p
	}
	for what, send := range map[string]func() *process{
		"--path store": func() *process { return stop("--path", "store", file) },
		"deadline":     func() *process { return stop("--timeout", "1s", file) },
		"nobody comes": func() *process { return stop(file) },
		"interrupt": func() *process {
			p := stop(file)
			p.await(&p.err, "fnlib: sending") // before, there is nothing to store
			p.interrupt()
			return p
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := send()
			s.want(cli.ExitOK)
			var sent sendReport
			s.decode(&s.out, &sent)
			if !sent.OK || !strings.Contains(sent.Stored, dir) || sent.Path != viaStore || sent.Reason == "" ||
				sent.Bytes != int64(len(state)) || sent.Digest != digest(state) {
				t.Errorf("sent %+v", sent)
			}
			r := env.startReceive(t, "b", "--json", "--overwrite", "--out", out).want(cli.ExitOK)
			var got receiveReport
			r.decode(&r.out, &got)
			if !got.OK || got.From != "a" || got.Key != "state.bin" || got.Path != viaStore || got.Digest != sent.Digest {
				t.Errorf("received %+v", got)
			}
			wantFile(t, filepath.Join(out, "state.bin"), state)
			if left := files(t, dir); !slices.Equal(left, []string{"+lock"}) { // which is that of the driver
				t.Errorf("left in the store: %q", left)
			}
		})
	}
}

// What receive cannot take of the store stays there, for one that can, and is not tried again and again.
func TestStoredStays(t *testing.T) {
	env, _ := startDev(t)
	env, dir := withStore(t, env)
	state := pattern(3 << 20)
	file := write(t, "state.bin", state)
	env.run(t, "send", "--name", "a", "--to", "b", "--path", "store", file).want(cli.ExitOK)
	stays := func(why string) {
		t.Helper()
		if left := files(t, dir); len(left) != 2 { // the driver's lock is one
			t.Fatalf("%s: left in the store: %q", why, left)
		}
	}
	refuses := func(args ...string) {
		t.Helper()
		r := env.startReceive(t, "b", args...)
		r.await(&r.err, "in the store: ")
		env.start(t, strings.NewReader("x"), "send", "--name", "a", "--to", "b", "--key", "k", "-").want(cli.ExitOK)
		if r.want(cli.ExitOK); strings.Count(r.err.String(), "in the store: ") != 1 {
			t.Errorf("%q: %s", args, &r.err)
		}
		stays(strings.Join(args, " "))
	}
	refuses("--key", "k", "--out", t.TempDir())
	refuses("--out", filepath.Dir(file))
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r := env.startWith(t, []string{"receive", "--name", "b", "--out", "-"}, func(cmd *exec.Cmd) { cmd.Stdout = pw })
	_, _ = pw.Close(), pr.Close() // nobody reads
	r.want(cli.ExitFailed)
	stays("broken pipe")

	out := t.TempDir()
	env.startReceive(t, "b", "--out", out).want(cli.ExitOK)
	wantFile(t, filepath.Join(out, "state.bin"), state)
}

// TestStoredAtRendezvous holds that the rendezvous of fnwire dev keeps states, also if flags say which it is and not the environment.
func TestStoredAtRendezvous(t *testing.T) {
	_, dev := startDev(t)
	none := environment{}
	state := pattern(3 << 20)
	file, out := write(t, "state.bin", state), t.TempDir()
	flags := []string{"--url", dev.URL, "--job-key", dev.JobKey, "--store", "nats:", "--json"}
	s := none.start(t, nil, append([]string{"send", "--name", "a", "--to", "b", "--path", "store", file}, flags...)...).want(cli.ExitOK)
	var sent sendReport
	s.decode(&s.out, &sent)
	if !sent.OK || sent.Stored != dev.URL+"/fnwire" {
		t.Errorf("sent %+v", sent)
	}
	none.start(t, nil, append([]string{"receive", "--name", "b", "--out", out}, flags...)...).want(cli.ExitOK)
	wantFile(t, filepath.Join(out, "state.bin"), state)
	none.run(t, append([]string{"send", "--name", "a", "--to", "b", file}, append(flags[:3:3], job.NewKey().Encode(), "--store", "nats:")...)...).
		fails(cli.ExitFailed, "--store", "--data")
}

// TestStoreErrors holds that a store that does not open, or is none, is told before anything is read or taken.
func TestStoreErrors(t *testing.T) {
	env, _ := startDev(t)
	file := write(t, "x", []byte("x"))
	env.run(t, "send", "--to", "b", "--path", "store", file).fails(cli.ExitUsage, "--store", "FNWIRE_STORE")
	env.run(t, "send", "--to", "b", "--store", "gopher://h/x", file).fails(cli.ExitFailed, "--store", "file:///")
	env.run(t, "send", "--to", "b", "--timeout", "2s", "--store", "nats://127.0.0.1:1/b", file).fails(cli.ExitFailed, "is the URL of --store")
	env.run(t, "receive", "--name", "b", "--store", "file://"+file, "--out", t.TempDir()).fails(cli.ExitFailed, "--store")
	// A pipe that was read in part is not what can be stored any more.
	s, pw := env.startPiped(t, "send", "--to", "b", "--store", "file://"+filepath.ToSlash(t.TempDir()), "--timeout", "1s", "-")
	r := env.startReceive(t, "b", "--out", filepath.Join(t.TempDir(), "out"))
	if _, err := pw.Write(bytes.Repeat(pattern(1<<20), 2)); err != nil {
		t.Fatal(err)
	}
	s.fails(cli.ExitFailed, "b")
	r.interrupt()
}
