package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Proc is a process inside a host of a lab. Its methods may be called from several goroutines.
type Proc struct {
	lab  *Lab
	cmd  *exec.Cmd
	stop func() bool // ends the watch on Start's context

	once sync.Once
	err  error // of Wait

	mu     sync.Mutex // guards reaped, and holds off reaping while a signal is being sent
	reaped bool
}

// procs is the processes of a lab that nobody has waited for yet.
type procs struct {
	mu      sync.Mutex // guards running
	running map[*Proc]struct{}
}

func (ps *procs) all() []*Proc {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	all := make([]*Proc, 0, len(ps.running))
	for p := range ps.running {
		all = append(all, p)
	}
	return all
}

func (ps *procs) remove(p *Proc) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.running, p)
}

// Start starts cmd inside the host: a real process, leader of its own process group (so that Ctrl-C at the terminal is
// left to the program that made the lab), killed with its children when ctx or the lab ends. Everything else of cmd is as in os/exec.
// Its process IDs as seen from inside are those of the lab's own PID namespace.
func (l *Lab) Start(ctx context.Context, host string, cmd *exec.Cmd) (*Proc, error) {
	info, err := l.host(host)
	if err != nil {
		return nil, err
	}
	return l.start(ctx, l.nodes[info.Name], host, cmd)
}

// start starts cmd in the namespaces of a node, which errors call name.
func (l *Lab) start(ctx context.Context, n *node, name string, cmd *exec.Cmd) (*Proc, error) {
	return l.startBy(ctx, name, cmd, func() error {
		return l.spawner.run(func() error {
			if err := netns.Set(n.ns); err != nil {
				return err
			}
			return cmd.Start()
		})
	})
}

// startBy has start start cmd in the namespaces that it is to live in.
func (l *Lab) startBy(ctx context.Context, name string, cmd *exec.Cmd, start func() error) (*Proc, error) {
	err := ctx.Err()
	if err != nil {
		return nil, err
	}
	if cmd.Dir == "" {
		if cmd.Dir, err = os.Getwd(); err != nil { // the spawner's is another
			return nil, fmt.Errorf("lab: start on %s: %w", name, err)
		}
	}
	attr := syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	// The end of the PID namespace takes care of it. Go would kill the child at once: it cannot see its parent from inside.
	attr.Pdeathsig = 0
	attr.Setpgid = !attr.Setsid
	cmd.SysProcAttr = &attr

	p := &Proc{lab: l, cmd: cmd}
	l.mu.RLock() // Close comes before all of this or after it
	defer l.mu.RUnlock()
	if l.closed {
		return nil, ErrClosed
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("lab: start on %s: %w", name, err)
	}
	l.procs.mu.Lock()
	l.procs.running[p] = struct{}{}
	l.procs.mu.Unlock()
	p.stop = context.AfterFunc(ctx, func() { _ = p.Signal(syscall.SIGKILL) })
	return p, nil
}

// Wait waits for the process to end, and for its output if cmd copies that, and returns the error of [exec.Cmd.Wait].
// It may be called more than once. Close waits for processes that nobody has waited for.
func (p *Proc) Wait() error {
	p.once.Do(func() {
		// Waiting and reaping are apart, so that Signal never meets a process ID that has been given to another.
		for unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
		p.mu.Lock()
		p.reaped = true
		p.mu.Unlock()
		p.err = p.cmd.Wait()
		p.stop()
		p.lab.procs.remove(p)
	})
	return p.err
}

// Signal sends s to the process and those of its children that stayed in its process group, as a terminal does.
// It returns [os.ErrProcessDone] after the end of the process.
func (p *Proc) Signal(s os.Signal) error {
	sig, ok := s.(syscall.Signal)
	if !ok {
		return fmt.Errorf("lab: signal %v: not a signal of this system", s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return os.ErrProcessDone
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, sig); err != nil {
		return fmt.Errorf("lab: signal: %w", err)
	}
	return nil
}

// Pid returns the process ID as the program that made the lab sees it.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// State tells how the process ended and what it used, once Wait has returned; before, it is nil.
func (p *Proc) State() *os.ProcessState { return p.cmd.ProcessState }
