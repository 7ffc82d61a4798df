package lab_test

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// asUser makes cmd run without any rights, if the tests have some that they can give up.
func asUser(cmd *exec.Cmd) *exec.Cmd {
	const nobody = 65534
	if os.Getuid() == 0 && !inUserNamespace() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// inUserNamespace tells whether only one user is mapped.
func inUserNamespace() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && len(strings.Fields(string(b))) == 3 && strings.Fields(string(b))[2] == "1"
}

func TestEnterAsUser(t *testing.T) {
	labtest.New(t, lab.Host{Name: "possible"}).Close()
	cmd := asUser(helper("entered"))
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Fatalf("exit code %d (%v), want 7: %s", code, err, out)
	}
	if !strings.Contains(string(out), "10.1.0.2/24") {
		t.Errorf("a process in the lab tells %q, want its address", out)
	}
}

func TestEnterPassesSignals(t *testing.T) {
	labtest.New(t, lab.Host{Name: "possible"}).Close()
	cmd := asUser(helper("entered"))
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
	if _, err := io.ReadFull(stdout, make([]byte, 10)); err != nil { // it is inside
		t.Fatal(err)
	}
	if _, err := stdin.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d, want 9: that of the program that caught the signal", code)
	}
}

func TestEnterForbidden(t *testing.T) {
	labtest.New(t, lab.Host{Name: "possible"}).Close()
	cmd := helper("forbidden")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, _ := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Fatalf("exit code %d, want 3 for ErrUnavailable: %s", code, out)
	}
	if want := "sysctl -w user.max_user_namespaces"; !strings.Contains(string(out), want) {
		t.Errorf("error is %q, want it to tell the remedy %q", out, want)
	}
}
