package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/internal/cli"
)

// patience is how long a test waits for a process; it is the end of a failing test only.
const patience = 60 * time.Second

// beCommand makes the test's binary be fnwire, so that tests drive real processes.
const beCommand = "FNWIRE_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(beCommand) != "" {
		os.Exit(cli.Main(newRoot()))
	}
	os.Exit(labtest.Main(m))
}

// output collects what a process prints, and tells those who wait for something in it.
type output struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
	more chan struct{} // closed and replaced at each write
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// process is a fnwire that runs.
type process struct {
	t      *testing.T
	args   []string
	cmd    *exec.Cmd
	handle handle
	out    output
	err    output
	exited chan struct{}
}

// handle is what a test does with a process that runs, here or in a lab.
type handle interface {
	Wait() error
	Signal(os.Signal) error
	State() *os.ProcessState
}

// local is a process on this machine.
type local struct{ *exec.Cmd }

func (l local) Signal(s os.Signal) error { return l.Process.Signal(s) }
func (l local) State() *os.ProcessState  { return l.ProcessState }

// environment of a job.
type environment []string

// environ is the test's own without FNWIRE_*, and env.
func environ(env environment) []string {
	// The race detector would keep each process for a second after its end.
	list := []string{beCommand + "=1", "GORACE=atexit_sleep_ms=0 " + os.Getenv("GORACE")}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FNWIRE_") && !strings.HasPrefix(v, "GORACE=") {
			list = append(list, v)
		}
	}
	return append(list, env...)
}

// start runs fnwire. The test's end kills what still runs.
func (env environment) start(t *testing.T, stdin io.Reader, args ...string) *process {
	t.Helper()
	return env.startWith(t, args, func(cmd *exec.Cmd) { cmd.Stdin = stdin })
}

func (env environment) startWith(t *testing.T, args []string, change func(*exec.Cmd)) *process {
	t.Helper()
	return env.launch(t, args, func(cmd *exec.Cmd) (handle, error) {
		change(cmd)
		return local{cmd}, cmd.Start()
	})
}

// launch runs fnwire where start starts it.
func (env environment) launch(t *testing.T, args []string, start func(*exec.Cmd) (handle, error)) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, args: args, cmd: exec.Command(exe, args...), exited: make(chan struct{})}
	p.cmd.Env = environ(env)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	p.cmd.WaitDelay = time.Second
	if p.handle, err = start(p.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.handle.Wait() // State tells
	}()
	t.Cleanup(func() {
		_ = p.handle.Signal(os.Kill) // mostly it has ended
		<-p.exited
		if t.Failed() {
			t.Logf("fnwire %s: %v\nstdout: %.2000s\nstderr: %.4000s", strings.Join(args, " "), p.handle.State(), &p.out, &p.err)
		}
	})
	return p
}

// startPiped runs fnwire with a pipe as its standard input.
func (env environment) startPiped(t *testing.T, args ...string) (*process, *os.File) {
	t.Helper()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := env.startWith(t, args, func(cmd *exec.Cmd) { cmd.Stdin = pr })
	_ = pr.Close()                       // the process has its own
	t.Cleanup(func() { _ = pw.Close() }) // mostly the test has
	return p, pw
}

// run runs fnwire to its end.
func (env environment) run(t *testing.T, args ...string) *process {
	t.Helper()
	p := env.start(t, nil, args...)
	p.wait()
	return p
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("fnwire %s: still runs after %v", strings.Join(p.args, " "), patience)
	}
	if strings.Contains(p.err.String(), "DATA RACE") {
		p.t.Errorf("fnwire %s: data race", strings.Join(p.args, " "))
	}
	return p.handle.State().ExitCode()
}

// want fails the test unless the process ends with this code.
func (p *process) want(code int) *process {
	p.t.Helper()
	if got := p.wait(); got != code {
		p.t.Fatalf("fnwire %s: exit code %d, want %d", strings.Join(p.args, " "), got, code)
	}
	return p
}

// fails fails the test unless the process ends with this code and one line that holds all words.
func (p *process) fails(code int, words ...string) {
	p.t.Helper()
	p.want(code)
	text := p.err.String()
	if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "fnwire: ") {
		p.t.Errorf("fnwire %s: want one line on stderr, have %q", strings.Join(p.args, " "), text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			p.t.Errorf("fnwire %s: stderr does not tell %q: %s", strings.Join(p.args, " "), w, text)
		}
	}
	if p.out.String() != "" {
		p.t.Errorf("fnwire %s: failed and printed %q", strings.Join(p.args, " "), &p.out)
	}
}

// await waits until an output holds text.
func (p *process) await(o *output, text string) {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		o.mu.Lock()
		found := strings.Contains(o.text.String(), text)
		if o.more == nil {
			o.more = make(chan struct{})
		}
		more := o.more
		o.mu.Unlock()
		if found {
			return
		}
		select {
		case <-more:
		case <-p.exited:
			if !strings.Contains(o.String(), text) {
				p.t.Fatalf("fnwire %s: ended without %q", strings.Join(p.args, " "), text)
			}
			return
		case <-timeout:
			p.t.Fatalf("fnwire %s: no %q after %v", strings.Join(p.args, " "), text, patience)
		}
	}
}

// interrupt is Ctrl-C.
func (p *process) interrupt() {
	p.t.Helper()
	if err := p.handle.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// decode reads the one JSON object that the process printed.
func (p *process) decode(o *output, into any) {
	p.t.Helper()
	d := json.NewDecoder(strings.NewReader(o.String()))
	if err := d.Decode(into); err != nil {
		p.t.Fatalf("fnwire %s: %v in %q", strings.Join(p.args, " "), err, o)
	}
	if d.More() {
		p.t.Errorf("fnwire %s: more than one object: %q", strings.Join(p.args, " "), o)
	}
}

// startDev runs a rendezvous and a relay until the test ends, where they must end well.
func startDev(t *testing.T, args ...string) (environment, devReport) {
	t.Helper()
	p := environment{}.start(t, nil, append([]string{"dev", "--listen", "127.0.0.1:0", "--json"}, args...)...)
	p.await(&p.out, "\n")
	t.Cleanup(func() {
		p.interrupt()
		p.want(cli.ExitOK)
	})
	var r devReport
	p.decode(&p.out, &r)
	return environment{"FNWIRE_URL=" + r.URL, "FNWIRE_JOB=" + r.Job, "FNWIRE_JOB_KEY=" + r.JobKey}, r
}

// startReceive runs a receiver and returns when it has joined.
func (env environment) startReceive(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := env.start(t, nil, append([]string{"receive", "--verbose", "--name", name}, args...)...)
	p.await(&p.err, "fnwire: joined as "+name)
	return p
}

func TestHelpVersionCompletion(t *testing.T) {
	none := environment{}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "fnwire dev"},
		{[]string{"--help"}, "FNWIRE_JOB_KEY"},
		{[]string{"--version"}, "fnwire version"},
		{[]string{"completion", "bash"}, "complete"},
		{[]string{"completion", "zsh"}, "#compdef fnwire"},
		{[]string{"completion", "fish"}, "complete -c fnwire"},
		{[]string{"completion", "powershell"}, "Register-ArgumentCompleter"},
		{[]string{"__complete", "send", "--path", "d"}, "direct"},
		{[]string{"__complete", "net"}, "netcheck"},
	} {
		p := none.run(t, tt.args...).want(cli.ExitOK)
		if !strings.Contains(p.out.String(), tt.want) {
			t.Errorf("%q does not print %q", tt.args, tt.want)
		}
	}
	// No command has a secret of the environment in its help.
	const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="
	for _, c := range newRoot().Commands() {
		p := environment{"FNWIRE_JOB_KEY=" + secret}.run(t, c.Name(), "--help").want(cli.ExitOK)
		if strings.Contains(p.out.String(), secret) {
			t.Errorf("%s --help prints the job key", c.Name())
		}
	}
}

func TestCompletionOfNames(t *testing.T) {
	env, _ := startDev(t)
	r := env.startReceive(t, "worker-7", "--count", "0", "--out", t.TempDir())
	for _, args := range [][]string{{"ping", ""}, {"send", "--to", ""}} {
		p := env.run(t, append([]string{"__complete"}, args...)...).want(cli.ExitOK)
		if !strings.Contains(p.out.String(), "worker-7\n") {
			t.Errorf("%q: %q", args, &p.out)
		}
	}
	r.interrupt()
	r.want(cli.ExitOK)
}

// testContext ends before the test is given up.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
