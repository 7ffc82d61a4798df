package lambdaapi

import (
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const sigStop, sigCont, sigTerm = syscall.SIGSTOP, syscall.SIGCONT, syscall.SIGTERM

// group is a process that leads its process group.
type group struct {
	cmd  *exec.Cmd
	once sync.Once
	err  error // of Wait

	mu     sync.Mutex // guards reaped, and holds off reaping while a signal is being sent
	reaped bool
}

// StartProcess starts cmd as the leader of a process group. What is left of that is killed when the leader has ended and is waited for.
func StartProcess(cmd *exec.Cmd) (Process, error) {
	attr := syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	attr.Setpgid = true
	cmd.SysProcAttr = &attr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &group{cmd: cmd}, nil
}

func (g *group) Wait() error {
	g.once.Do(func() {
		// Waiting and reaping are apart, so that no signal ever meets a process ID that has been given to another.
		for unix.Waitid(unix.P_PID, g.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
		_ = g.Signal(syscall.SIGKILL) // its children
		g.mu.Lock()
		g.reaped = true
		g.mu.Unlock()
		g.err = g.cmd.Wait()
	})
	return g.err
}

func (g *group) Signal(s os.Signal) error {
	sig, ok := s.(syscall.Signal)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reaped || !ok {
		return os.ErrProcessDone
	}
	return syscall.Kill(-g.cmd.Process.Pid, sig)
}
