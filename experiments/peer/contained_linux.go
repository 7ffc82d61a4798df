package peer

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
)

// contained runs a command and returns what it said. When this process ends, however it ends, so do the command and all that it has started,
// if this process may make a PID namespace; as one that has called lab.Enter may.
func contained(cmd *exec.Cmd) ([]byte, error) {
	runtime.LockOSThread() // the kernel looks to the thread
	defer runtime.UnlockOSThread()
	again := *cmd
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	said, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		again.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return again.CombinedOutput()
	}
	return said, err
}
