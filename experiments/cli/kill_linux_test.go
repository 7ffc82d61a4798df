package cli_test

import (
	"bufio"
	"cmp"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/results"
)

// TestRunAllKilled: wherever the harness is killed, or interrupted as it is at first, no process, namespace, mount, cgroup or temporary file of its own is
// left, and what was measured is there: the next run goes on after it. FNWIRE_KILLS is how often, else 3 times, and FNWIRE_KILLED
// which experiment, else all.
func TestRunAllKilled(t *testing.T) {
	kills, within := 3, 5*time.Second // as are 15 of one experiment
	if s := os.Getenv("FNWIRE_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		if kills = n; os.Getenv("FNWIRE_KILLED") == "" {
			within = time.Minute // so that 15 or 20 go through most experiments
		}
	}
	u := user{t, 0, t.TempDir()}
	out, tmp := filepath.Join(u.newTemp(), "out"), u.newTemp()
	args := []string{"run", cmp.Or(os.Getenv("FNWIRE_KILLED"), "all"), "--quick", "--out", out}
	u.types("", "run", "skew", "--quick", "--out", t.TempDir(), "--reps", "1", "--set", "skews=0s", "--set", "cases=receiver") // ends the test here if labs are not possible
	rng := rand.New(rand.NewPCG(1, 2))
	had := 0
	for i := range kills {
		at := time.Duration(rng.Int64N(int64(within)))
		before := machine(t)
		sig := unix.SIGKILL
		if i == 0 {
			sig = unix.SIGINT
		}
		said := killed(t, u, args, at, sig)
		for _, what := range added(t, before) {
			t.Errorf("kill %d after %v, at %q: %s is left", i, at, said, what)
		}
		leavesNoFiles(t, tmp)
		w, err := results.Open(out) // which cuts off a line that is not whole, and no other
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		made := make(map[string]bool)
		for _, r := range w.Before() {
			if made[r.Key()] {
				t.Errorf("kill %d: %s, %s, repetition %d was made again", i, r.Experiment, r.Case, r.Rep)
			}
			made[r.Key()] = r.OK
		}
		if len(w.Before()) < had {
			t.Errorf("kill %d: %d measurements of %d are left", i, len(w.Before()), had)
		}
		had = len(w.Before())
		t.Logf("kill %d after %v, at %q: %d measurements", i, at, said, had)
	}
}

// killed runs the harness, kills it so long after its first word, and waits for all of its processes to end and all of their namespaces to
// vanish. It returns what the harness said last.
func killed(t *testing.T, u user, args []string, at time.Duration, sig unix.Signal) (said string) {
	t.Helper()
	cmd := u.command(args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	var timer *time.Timer
	var watched map[int]int
	spaces := make(map[string]*os.File) // held open, since the number of one that has gone is given to another, which may be of another test
	defer func() {
		for _, f := range spaces {
			_ = f.Close()
		}
	}()
	stopped := make(chan struct{})
	var all []string
	for lines.Scan() {
		said = lines.Text()
		if all = append(all, said); timer == nil {
			timer = time.AfterFunc(at, func() {
				defer close(stopped)
				_ = cmd.Process.Signal(unix.SIGSTOP) // so that it starts nothing while its processes are listed
				watched = watchAll(t, cmd.Process.Pid)
				for pid := range watched {
					for ns, path := range namespaces(strconv.Itoa(pid)) {
						if spaces[ns] != nil {
							continue
						}
						if f, err := os.Open(path); err == nil {
							spaces[ns] = f
						}
					}
				}
				_ = cmd.Process.Signal(sig)
				_ = cmd.Process.Signal(unix.SIGCONT)
			})
		}
	}
	if timer == nil {
		t.Fatalf("experiments %v said nothing: %v", args, cmd.Wait())
	}
	<-stopped
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); sig == unix.SIGINT && code != 130 {
		t.Errorf("interrupted: exit code %d, want 130: %s", code, strings.Join(all[max(0, len(all)-100):], "\n"))
	}
	for pid, fd := range watched {
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n != 1 {
			t.Errorf("process %d is left (%v)", pid, err)
		}
		_ = unix.Close(fd)
	}
	for ns := range namespaces("self") {
		if f := spaces[ns]; f != nil {
			_ = f.Close()
			delete(spaces, ns)
		}
	}
	left := "" // of which one is gone when its last process has been reaped
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if left = inUse(spaces); left == "" {
			return said
		}
	}
	t.Errorf("%s", left)
	return said
}

// namespaces are those of a process, and where they are.
func namespaces(pid string) map[string]string {
	all := make(map[string]string)
	links, _ := filepath.Glob("/proc/" + pid + "/ns/*") // the pattern is good
	for _, path := range links {
		if ns, err := os.Readlink(path); err == nil {
			all[ns] = path
		}
	}
	return all
}

// inUse names a process that is in one of the namespaces; empty is none.
func inUse(spaces map[string]*os.File) string {
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, dir := range procs {
		for ns := range namespaces(filepath.Base(dir)) {
			if spaces[ns] != nil {
				return fmt.Sprintf("process %s is left in %s", filepath.Base(dir), ns)
			}
		}
	}
	return ""
}

// added is what the machine has that it had not before, once others have had the time to take theirs away.
func added(t *testing.T, before map[string]bool) (all []string) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		all = all[:0]
		for what := range machine(t) {
			if !before[what] {
				all = append(all, what)
			}
		}
		if len(all) == 0 {
			break
		}
	}
	return all
}

// machine lists mounts and cgroups that could be of this program, and the network interfaces.
func machine(t *testing.T) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		all["mount "+strings.TrimSpace(line)] = true
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all["cgroup "+path] = true
		}
		return nil // what vanishes meanwhile does not matter
	})
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		all["interface "+l.Name()] = true
	}
	return all
}
