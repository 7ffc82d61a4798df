package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/internal/cli"
)

// startPut runs put and returns when it has printed the ref.
func (env environment) startPut(t *testing.T, args ...string) (p *process, ref string) {
	t.Helper()
	p = env.start(t, nil, append([]string{"put"}, args...)...)
	p.await(&p.out, "\n")
	line, _, _ := strings.Cut(p.out.String(), "\n")
	if strings.HasPrefix(line, "{") {
		var r putReport
		if err := json.Unmarshal([]byte(line), &r); err != nil || !r.OK {
			t.Fatalf("%s: %v", line, err)
		}
		line = string(r.Ref)
	}
	if !strings.HasPrefix(line, "fnwire:") || len(line) > 512 {
		t.Fatalf("no ref: %q", line)
	}
	return p, line
}

// TestPutGet holds that a state is got, to a file and to standard output, as often as it may, and that put ends then.
func TestPutGet(t *testing.T) {
	env, _ := startDev(t)
	for _, n := range []int{0, 1, 20<<20 + 1} {
		state := pattern(n)
		file := filepath.Join(t.TempDir(), "copy")
		p, ref := env.startPut(t, "--name", "holder", "--reads", "2", "--json", write(t, "state.bin", state))
		g := env.run(t, "get", "--json", ref, file).want(cli.ExitOK)
		wantFile(t, file, state)
		var got getReport
		g.decode(&g.out, &got)
		if !got.OK || got.Bytes != int64(n) || got.Digest != digest(state) || got.From["holder"] != int64(n) || len(got.From) != 1 || got.Path == "" || got.File != file {
			t.Errorf("got %+v", got)
		}
		g = env.run(t, "get", "--path", "relay", ref).want(cli.ExitOK)
		if g.out.String() != string(state) || !strings.Contains(g.err.String(), digest(state)) || !strings.Contains(g.err.String(), "relay") {
			t.Errorf("%d bytes on standard output; %q", len(g.out.String()), &g.err)
		}
		p.want(cli.ExitOK)
		if !strings.Contains(p.out.String(), `"ended":"read"`) {
			t.Errorf("put ended with %q", &p.out)
		}
		env.run(t, "get", ref, file).fails(cli.ExitFailed, "not there", "put")
	}
}

// TestPutEnds holds what put says when it ends otherwise: in time, interrupted with a store and without.
func TestPutEnds(t *testing.T) {
	env, _ := startDev(t)
	state := pattern(3 << 20)
	file := write(t, "state.bin", state)
	p, ref := env.startPut(t, "--ttl", "1s", file)
	p.want(cli.ExitOK)
	if !strings.Contains(p.err.String(), "time is over") {
		t.Errorf("%q", &p.err)
	}
	env.run(t, "get", ref).fails(cli.ExitFailed, "expired", "--ttl")

	p, ref = env.startPut(t, file)
	p.interrupt()
	p.want(cli.ExitCanceled)
	env.run(t, "get", ref).fails(cli.ExitFailed, "not there", "--store")
	p = env.run(t, "put", "--timeout", "1s", file).want(cli.ExitFailed)
	if !strings.Contains(p.err.String(), "no store") {
		t.Errorf("%q", &p.err)
	}

	stored, dir := withStore(t, env)
	p, ref = stored.startPut(t, "--json", file)
	p.interrupt()
	p.want(cli.ExitOK)
	if !strings.Contains(p.out.String(), `"ended":"stored"`) || !strings.Contains(p.out.String(), dir) {
		t.Errorf("%q", &p.out)
	}
	g := stored.run(t, "get", "--json", ref, filepath.Join(t.TempDir(), "copy")).want(cli.ExitOK)
	var got getReport
	if g.decode(&g.out, &got); got.Path != "store" || got.Digest != digest(state) {
		t.Errorf("%+v", got)
	}
	p, ref = stored.startPut(t, "--store-only", file)
	p.want(cli.ExitOK)
	if g := stored.run(t, "get", ref).want(cli.ExitOK); g.out.String() != string(state) {
		t.Errorf("%d bytes", len(g.out.String()))
	}
}

// TestHold holds that who has got a state serves others, when the first holder is gone.
func TestHold(t *testing.T) {
	env, _ := startDev(t)
	state := pattern(5 << 20)
	first, ref := env.startPut(t, write(t, "state.bin", state))
	second := env.start(t, nil, "get", "--hold", "--json", "--name", "second", ref, filepath.Join(t.TempDir(), "copy"))
	second.await(&second.out, `"ref"`)
	d := json.NewDecoder(strings.NewReader(second.out.String()))
	var got getReport
	var held putReport
	if err := d.Decode(&got); err != nil || got.Digest != digest(state) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := d.Decode(&held); err != nil || string(held.Ref) == ref {
		t.Fatalf("%+v, %v", held, err)
	}
	first.interrupt()
	first.want(cli.ExitCanceled)
	if g := env.run(t, "get", string(held.Ref)).want(cli.ExitOK); g.out.String() != string(state) || !strings.Contains(g.err.String(), "second") {
		t.Errorf("%d bytes, %s", len(g.out.String()), &g.err)
	}
	second.interrupt()
	second.want(cli.ExitCanceled)
}

// TestPutPipe puts standard input, and gets it with nothing in between.
func TestPutPipe(t *testing.T) {
	env, _ := startDev(t)
	state := pattern(1 << 20)
	p := env.start(t, bytes.NewReader(state), "put", "--reads", "1", "-")
	p.await(&p.out, "\n")
	if g := env.run(t, "get", p.out.String(), "-").want(cli.ExitOK); g.out.String() != string(state) {
		t.Errorf("%d bytes", len(g.out.String()))
	}
	p.want(cli.ExitOK)
}

// TestPutErrors holds that a wrong call is told from what failed.
func TestPutErrors(t *testing.T) {
	env, _ := startDev(t)
	file := write(t, "x", []byte("x"))
	env.run(t, "put", "--ttl", "0s", file).fails(cli.ExitUsage, "--ttl")
	env.run(t, "put", "--reads", "-1", file).fails(cli.ExitUsage, "--reads")
	env.run(t, "put", "--store-only", file).fails(cli.ExitUsage, "--store", "FNWIRE_STORE")
	env.run(t, "put", file+".gone").fails(cli.ExitFailed, "no such file")
	env.run(t, "get").fails(cli.ExitUsage, "arg")
	env.run(t, "get", "fnwire:x", t.TempDir()).fails(cli.ExitUsage, "directory")
	env.run(t, "get", "--path", "store", "fnwire:x").fails(cli.ExitUsage, "--path")
	out := filepath.Join(t.TempDir(), "copy")
	env.run(t, "get", "fnwire:x", out).fails(cli.ExitFailed, "not a ref of this job", "FNWIRE_JOB_KEY")
	_, ref := env.startPut(t, file)
	other, _ := startDev(t)
	other.run(t, "get", ref, out).fails(cli.ExitFailed, "not a ref of this job")
	if left := files(t, filepath.Dir(out)); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}
