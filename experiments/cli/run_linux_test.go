package cli_test

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/demo"
	"github.com/fnwire/fnwire/experiments/results"
)

func TestDemoAsTyped(t *testing.T) {
	everyUser(t, func(t *testing.T, u user) {
		tmp := u.newTemp()
		stdout, stderr, code := u.types("", "demo", "--json", "--sizes", "1KiB,100KiB")
		var res demo.Result
		if err := json.Unmarshal([]byte(stdout), &res); err != nil || code != 0 {
			t.Fatalf("exit code %d, %v\nstdout: %s\nstderr: %s", code, err, stdout, stderr)
		}
		if len(res.Rows) != 8 {
			t.Errorf("%d rows, want 8", len(res.Rows))
		}
		for _, r := range res.Rows {
			if !r.OK() {
				t.Errorf("%+v", r)
			}
		}
		leavesNoFiles(t, tmp)
		for _, args := range [][]string{{"demo", "x"}, {"demo", "--nat", "brick"}, {"demo", "--sizes", "big"}, {"demo", "--sizes", "1KiB,0"}, {"demo", "--sizes", "NaN"}, {"demo", "--no-such"}} {
			if _, stderr, code := u.types("", args...); code != 2 {
				t.Errorf("experiments %v: exit code %d, want 2: %s", args, code, stderr)
			}
		}
	})
}

// However the demonstration is stopped, it leaves no process and no file. Namespaces go with the processes: lab's tests show that.
func TestDemoStopped(t *testing.T) {
	everyUser(t, func(t *testing.T, u user) {
		u.types("", "demo", "--sizes", "1KiB") // ends the test here if labs are not possible
		for sig, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 130, syscall.SIGKILL: -1} {
			tmp := u.newTemp()
			cmd := u.command("demo", "--sizes", "1KiB,512MiB")
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stderr)
			for lines.Scan() && lines.Text() != "auto, 512 MiB" {
			}
			watched := watchAll(t, cmd.Process.Pid)
			if len(watched) < 4 {
				t.Errorf("%v: only %d processes while it runs", sig, len(watched))
			}
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			for lines.Scan() { // to the end
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != code {
				t.Errorf("%v: exit code %d, want %d", sig, got, code)
			}
			for pid, fd := range watched {
				if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n != 1 {
					t.Errorf("%v: process %d is left (%v)", sig, pid, err)
				}
				_ = unix.Close(fd)
			}
			leavesNoFiles(t, tmp)
		}
	})
}

// watchAll returns files that become readable when a process and its descendants end, by process ID.
func watchAll(t *testing.T, pid int) map[int]int {
	t.Helper()
	parents := make(map[int]int)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parents[child], _ = strconv.Atoi(f[1])
	}
	watched := make(map[int]int)
	for child := range parents {
		for p := child; p > 1; p = parents[p] {
			if p != pid {
				continue
			}
			if fd, err := unix.PidfdOpen(child, 0); err == nil {
				watched[child] = fd
			}
			break
		}
	}
	return watched
}

func TestRunAsTyped(t *testing.T) {
	everyUser(t, func(t *testing.T, u user) {
		out := filepath.Join(u.newTemp(), "out")
		tmp := u.newTemp()
		args := []string{"run", "skew", "--out", out, "--quick", "--seed", "7", "--reps", "1", "--set", "skews=0s,100ms", "--set", "bytes=10KiB", "--set", "cases=receiver"}
		stdout, stderr, code := u.types("", append(args, "--json")...)
		if code != 0 || strings.Count(stdout, "\n") != 2 {
			t.Fatalf("exit code %d, want 2 lines\nstdout: %s\nstderr: %s", code, stdout, stderr)
		}
		for line := range strings.Lines(stdout) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"experiment", "case", "path", "bytes", "seconds", "ok", "settings", "commit", "program", "machine", "seed"} {
				if _, ok := fields[name]; !ok {
					t.Errorf("a measurement lacks %q: %s", name, line)
				}
			}
		}
		// The same again measures nothing, and shows what is there.
		stdout, stderr, code = u.types("", args...)
		if code != 0 || !strings.Contains(stdout, "receiver 100ms later") || !strings.Contains(stdout, "1 of 1") || !strings.Contains(stderr, "2 of 2 measurements were made before") {
			t.Errorf("again: exit code %d\nstdout: %s\nstderr: %s", code, stdout, stderr)
		}
		records, err := results.Load(out)
		if err != nil || len(records) != 2 || !records[0].OK || records[0].Seed != 7 || !records[0].Quick {
			t.Errorf("%+v, %v", records, err)
		}
		if stdout, stderr, code = u.types("", "report", out); code != 0 || stdout != filepath.Join(out, "report.html")+"\n" {
			t.Errorf("report: exit code %d\nstdout: %s\nstderr: %s", code, stdout, stderr)
		}
		if stdout, stderr, code = u.types("", "report", "--json", out); code != 0 || !strings.Contains(stdout, `"markdown"`) || !strings.Contains(stdout, "report.md") {
			t.Errorf("report --json: exit code %d\nstdout: %s\nstderr: %s", code, stdout, stderr)
		}
		leavesNoFiles(t, tmp)
		if stdout, _, _ := u.types("", "__complete", "run", ""); !strings.Contains(stdout, "all\n") || !strings.Contains(stdout, "skew\n") {
			t.Errorf("completed to %s", stdout)
		}
		for _, c := range []struct {
			args []string
			code int
			has  string
		}{
			{[]string{"report", "--readme", filepath.Join(out, "report.md"), out}, 1, "results: begin"},
			{[]string{"run"}, 2, "arg"},
			{[]string{"run", "skew"}, 2, "--out"},
			{[]string{"run", "no-such", "--out", out}, 2, "flap"},
			{[]string{"run", "skew", "--out", out, "--set", "x"}, 2, "NAME=VALUE"},
			{[]string{"run", "skew", "--out", out, "--set", "x=1"}, 2, "skews"},
			{[]string{"run", "skew", "--out", out, "--set", "flap.cycles=1"}, 2, "flap.cycles"},
			{[]string{"run", "all"}, 2, "--out"},
			{[]string{"run", "all", "--out", out, "--set", "x=1"}, 2, "skews"},
			{[]string{"run", "all", "--out", out, "--set", "flap.skews=1s"}, 2, "cycles"},
			{[]string{"run", "skew", "--out", out, "--reps", "-1"}, 2, "reps"},
			{[]string{"report", tmp}, 1, "results.jsonl"},
			{[]string{"worker", "baker"}, 2, "baker"},
		} {
			if _, stderr, code := u.types("", c.args...); code != c.code || !strings.Contains(stderr, c.has) {
				t.Errorf("experiments %v: exit code %d, want %d and %q: %s", c.args, code, c.code, c.has, stderr)
			}
		}
	})
}

// TestRunPrintsToNowhere: a measurement is stored before it is printed.
func TestRunPrintsToNowhere(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	u := user{t, 0, t.TempDir()}
	out := filepath.Join(u.newTemp(), "out")
	args := []string{"run", "skew", "--out", out, "--quick", "--reps", "1", "--set", "skews=0s", "--set", "bytes=1KiB", "--set", "cases=receiver"}
	u.types("", append(args, "--seed", "2")...) // ends the test here if labs are not possible
	cmd := u.command(append(args, "--json")...)
	cmd.Stdout = full
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 {
		t.Error(err)
	}
	if records, err := results.Load(out); err != nil || len(records) != 2 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

// newTemp makes a directory that belongs to the user the one for temporary files, until the end of the test.
func (u user) newTemp() string {
	u.t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(u.run), "experiments")
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { os.RemoveAll(dir) })
	if u.uid != 0 {
		if err := os.Chown(dir, u.uid, u.uid); err != nil {
			u.t.Fatal(err)
		}
	}
	u.t.Setenv("TMPDIR", dir)
	return dir
}

func leavesNoFiles(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
}
