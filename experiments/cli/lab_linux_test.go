package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	expcli "github.com/fnwire/fnwire/experiments/cli"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/holder"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/wan"
)

// The test binary is the experiments command when this is set, or a small program to run in the lab.
const envRole = "EXPERIMENTS_CLI_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "command":
		if len(os.Args) == 2 && os.Args[1] == "print-addresses" {
			addrs, err := net.InterfaceAddrs()
			fmt.Println(addrs, err)
			return
		}
		if len(os.Args) == 4 && os.Args[1] == "invoke" {
			if err := invoke(os.Args[2], os.Args[3]); err != nil {
				panic(err)
			}
			return
		}
		os.Exit(expcli.Main())
	default:
		os.Exit(m.Run())
	}
}

// user is somebody at a shell: who, and with which directory for sockets.
type user struct {
	t   *testing.T
	uid int // other than the test's, if not 0
	run string
}

func (u user) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), envRole+"=command", "XDG_RUNTIME_DIR="+u.run, "GORACE=atexit_sleep_ms=0")
	if u.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.uid)}}
	}
	return cmd
}

// types runs "experiments ARGS" and returns its output and exit code.
func (u user) types(stdin string, args ...string) (stdout, stderr string, code int) {
	u.t.Helper()
	cmd := u.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		u.t.Fatalf("experiments %v: %v", args, err)
	}
	if strings.Contains(errs.String(), lab.ErrUnavailable.Error()) {
		labtest.Unavailable(u.t, fmt.Errorf("%w: %s", lab.ErrUnavailable, errs.String()))
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// everyUser runs f as the test's user and, if that is root, as one without rights.
func everyUser(t *testing.T, f func(t *testing.T, u user)) {
	uids := map[string]int{"self": 0}
	if b, err := os.ReadFile("/proc/self/uid_map"); err == nil && os.Getuid() == 0 && strings.Contains(string(b), "4294967295") {
		uids["nobody"] = 65534
	}
	for name, uid := range uids {
		t.Run(name, func(t *testing.T) {
			run, err := os.MkdirTemp("", "lab")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(run) })
			if uid != 0 {
				if err := os.Chown(run, uid, uid); err != nil {
					t.Fatal(err)
				}
			}
			u := user{t, uid, run}
			t.Cleanup(func() { u.types("", "lab", "down") })
			f(t, u)
			u.types("", "lab", "down")
			if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
				t.Errorf("after down %v are left (%v)", left, err)
			}
		})
	}
}

func TestLabAsTyped(t *testing.T) {
	everyUser(t, func(t *testing.T, u user) {
		up := []string{"lab", "up", "--public", "hub", "--nat", "A=port-restricted,B=Symmetric"}
		for _, step := range []struct {
			args         []string
			stdin        string
			code         int
			stdout       string // all of it, or if it starts with "..." a part
			stderrHas    string
			stderrHasNot string
		}{
			{args: []string{"lab", "status"}, code: 1, stderrHas: "no lab is up: raise one with: experiments lab up --nat"},
			{args: []string{"lab", "down"}, code: 1, stderrHas: "no lab is up"},
			{args: []string{"lab", "exec", "A", "true"}, code: 1, stderrHas: "no lab is up"},
			{args: []string{"lab", "up"}, code: 2, stderrHas: "no hosts"},
			{args: []string{"lab", "up", "--public", "x", "--profile", "moon"}, code: 2, stderrHas: "there are none, lan, aws-region"},
			{args: []string{"lab", "up", "--nat", "A"}, code: 2, stderrHas: "want NAME=KIND"},
			{args: []string{"lab", "up", "--nat", "A="}, code: 2, stderrHas: "want NAME=KIND"},
			{args: []string{"lab", "up", "--nat", "A=-"}, code: 2, stderrHas: "unknown NAT kind"},
			{args: []string{"lab", "up", "--nat", "A=@B"}, code: 2, stderrHas: "no such host before it"},
			{args: []string{"lab", "up", "--nat", "A=full-cone+brick"}, code: 2, stderrHas: "there are +remap"},
			{args: []string{"lab", "up", "--help"}, stdout: "...endpoint-independent mapping, address-dependent filtering"},
			{args: []string{"lab", "up", "--nat", "A=brick"}, code: 2, stderrHas: "full-cone, address-restricted, port-restricted, sequential, symmetric, cgn, ipv6-firewall, udp-blocked, https-only; options: +remap"},
			{args: []string{"lab", "up", "--name", "a/b", "--public", "x"}, code: 2, stderrHas: "--name"},
			{args: up, stdout: "HOST  NAT              ADDRESS       PUBLIC ADDRESS\n" +
				"hub   none             198.51.100.2  198.51.100.2\n" +
				"A     port-restricted  10.2.0.2      198.51.100.3\n" +
				"B     symmetric        10.3.0.2      198.51.100.4\n"},
			{args: up, code: 1, stderrHas: "up already: take it down with: experiments lab down"},
			{args: []string{"lab", "status"}, stdout: "...10.2.0.2"},
			{args: []string{"lab", "exec", "A", "--", "/proc/self/exe", "print-addresses"}, stdout: "...10.2.0.2/24"},
			{args: []string{"lab", "exec", "hub", "/proc/self/exe", "print-addresses"}, stdout: "...198.51.100.2/24"},
			{args: []string{"lab", "exec", "A", "--", "sh", "-c", "cat; pwd; echo oops >&2; exit 5"}, stdin: "typed\n", code: 5,
				stdout: "typed\n" + workDir(t) + "\n", stderrHas: "oops", stderrHasNot: "experiments:"},
			{args: []string{"lab", "exec", "B", "--", "sh", "-c", "kill -TERM $$"}, code: 128 + 15},
			{args: []string{"lab", "exec", "C", "--", "true"}, code: 1, stderrHas: `no host "C": there are hub, A, B`},
			{args: []string{"lab", "exec", "A", "--", "no-such-program"}, code: 127, stderrHas: "no-such-program"},
			{args: []string{"lab", "exec", "A"}, code: 2, stderrHas: "COMMAND"},
			{args: []string{"lab", "up", "--name", "blocked", "--nat", "A=no-udp,B=@A"}, stdout: "HOST  NAT          ADDRESS   PUBLIC ADDRESS\n" +
				"A     udp-blocked  10.1.0.2  198.51.100.2\n" +
				"B     udp-blocked  10.1.0.3  198.51.100.2\n"},
			{args: []string{"lab", "down", "--name", "blocked"}},
			{args: []string{"lab", "up", "--name", "second", "--public", "only"}, stdout: "...only"},
			{args: []string{"lab", "exec", "--name", "second", "only", "--", "/proc/self/exe", "print-addresses"}, stdout: "...198.51.100.2/24"},
			{args: []string{"lab", "down", "--name", "second"}},
			{args: []string{"lab", "status", "--name", "second"}, code: 1, stderrHas: "up --name second"},
			{args: []string{"lab", "status"}, stdout: "...10.3.0.2"},
			{args: []string{"lab", "down"}},
			{args: []string{"lab", "status"}, code: 1, stderrHas: "no lab is up"},
		} {
			stdout, stderr, code := u.types(step.stdin, step.args...)
			part, isPart := strings.CutPrefix(step.stdout, "...")
			if code != step.code || isPart && !strings.Contains(stdout, part) || !isPart && stdout != step.stdout ||
				!strings.Contains(stderr, step.stderrHas) || step.stderrHasNot != "" && strings.Contains(stderr, step.stderrHasNot) ||
				step.code == 0 && stderr != "" {
				t.Errorf("experiments %s\nended with %d, want %d\nstdout: %s\nstderr: %s", strings.Join(step.args, " "), code, step.code, stdout, stderr)
			}
		}
	})
}

func workDir(t *testing.T) string {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return wd
}

func (u user) up() holder.Info {
	u.t.Helper()
	stdout, stderr, code := u.types("", "lab", "up", "--nat", "A=full-cone", "--json")
	var info holder.Info
	if err := json.Unmarshal([]byte(stdout), &info); err != nil || code != 0 {
		u.t.Fatalf("up --json: exit code %d, %q, %q: %v", code, stdout, stderr, err)
	}
	return info
}

// A signal to "lab exec" goes to the program in the lab, and the end of "lab exec" is the end of the program.
func TestExecSignals(t *testing.T) {
	everyUser(t, func(t *testing.T, u user) {
		u.up()
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			cmd := u.command("lab", "exec", "A", "--", "sh", "-c", "trap 'echo caught; exit 9' INT TERM; echo ready; while :; do sleep 0.02; done")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(stdout) // ends when the program in the lab has
			_ = cmd.Wait()
			code := cmd.ProcessState.ExitCode()
			if sig != syscall.SIGKILL && (code != 9 || string(rest) != "caught\n") {
				t.Errorf("%v: exit code %d and %q (%v), want 9 and that it was caught", sig, code, rest, err)
			}
		}
	})
}

// A lab whose holder is killed is down, and its socket is in nobody's way.
func TestHolderKilled(t *testing.T) {
	everyUser(t, func(t *testing.T, u user) {
		info := u.up()
		cmd := u.command("lab", "exec", "A", "--", "cat")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(stdin, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(info.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(stdout); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("exec ended with %d, want 1", code)
		}
		if _, stderr, code := u.types("", "lab", "status"); code != 1 || !strings.Contains(stderr, "no lab is up") {
			t.Errorf("status: %d, %q", code, stderr)
		}
		u.up()
	})
}

func TestForeground(t *testing.T) {
	everyUser(t, func(t *testing.T, u user) {
		cmd := u.command("lab", "up", "--foreground", "--json", "--nat", "A=none")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var info holder.Info
		if err := json.NewDecoder(stdout).Decode(&info); err != nil {
			_ = cmd.Wait()
			if strings.Contains(stderr.String(), lab.ErrUnavailable.Error()) {
				labtest.Unavailable(t, fmt.Errorf("%w: %s", lab.ErrUnavailable, stderr.String()))
			}
			t.Fatalf("up --foreground --json tells nothing: %v, %s", err, stderr.String())
		}
		if out, _, code := u.types("", "lab", "exec", "A", "--", "echo", "in"); code != 0 || out != "in\n" {
			t.Errorf("exec: %d, %q", code, out)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("after Ctrl-C: %v, %q", err, stderr.String())
		}
		if left, _ := filepath.Glob(u.run + "/*"); len(left) > 0 {
			t.Errorf("%v are left", left)
		}
	})
}

// The lines of a profile are those of hosts behind NATs, in turn.
func TestLabProfile(t *testing.T) {
	u := user{t: t, run: t.TempDir()}
	out, stderr, code := u.types("", "lab", "up", "--json", "--public", "hub", "--nat", "A=full-cone,B=@A,C=cgn", "--profile", "cross-az")
	if code != 0 {
		t.Fatal(stderr)
	}
	defer u.types("", "lab", "down")
	var info holder.Info
	if err := json.Unmarshal([]byte(out), &info); err != nil || len(info.Hosts) != 4 {
		t.Fatalf("%v: %s", err, out)
	}
	p, err := wan.FindProfile("cross-az")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []wan.Line{p.Public, p.Function(0), {}, p.Function(1)} {
		if h := info.Hosts[i]; h.Line != want {
			t.Errorf("%s has the line %+v, want %+v", h.Name, h.Line, want)
		}
	}
}
