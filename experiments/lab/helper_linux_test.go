package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/wan"
	"golang.org/x/sys/unix"
)

// The test binary plays other programs when this is set: none that a machine may lack are needed.
const envHelper = "LAB_TEST_HELPER"

func helpers() map[string]func() int {
	return map[string]func() int{
		"idle":      idle,
		"parent":    parent,
		"holder":    holder,
		"net":       showNet,
		"portmap":   mapPort,
		"entered":   entered,
		"forbidden": forbidden,
	}
}

// helper returns a command that runs the test binary as one of the helpers.
func helper(name string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envHelper+"="+name, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// idle ends by a signal only.
func idle() int {
	for {
		_ = unix.Pause()
	}
}

// parent starts an idle child in a session of its own, as daemons do, says so, and idles.
func parent() int {
	cmd := helper("idle")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	fmt.Println("ready")
	return idle()
}

// holding is what the holder tells.
type holding struct {
	Pid        int   // of the parent started in the lab
	Namespaces []int // file descriptors
}

// holder makes a lab with a parent in it, tells of it as JSON, and idles.
func holder() int {
	if err := lab.Enter(); err != nil {
		return fail(err)
	}
	l, err := lab.New(context.Background(), lab.Spec{Hosts: []lab.Host{{Name: "a", NAT: lab.Symmetric}, {Name: "b", Line: wan.Even(wan.Path{Delay: 1})}, {Name: "c", NAT: lab.Sequential}}})
	if err != nil {
		return fail(err)
	}
	h := holding{}
	if h.Pid, err = startParent(l, "a"); err != nil {
		return fail(err)
	}
	for _, ns := range l.Namespaces() {
		h.Namespaces = append(h.Namespaces, int(ns))
	}
	if err := json.NewEncoder(os.Stdout).Encode(h); err != nil {
		return fail(err)
	}
	return idle()
}

// startParent starts a parent on a host, waits until it has its child, and returns its process ID.
func startParent(l *lab.Lab, host string) (int, error) {
	cmd := helper("parent")
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd.Stdout = w
	p, err := l.Start(context.Background(), host, cmd)
	w.Close()
	if err != nil {
		return 0, err
	}
	if _, err := r.Read(make([]byte, 16)); err != nil {
		return 0, fmt.Errorf("parent is not ready: %w", err)
	}
	return p.Pid(), nil
}

// entered makes a lab in whatever way Enter finds, and ends with 7, or 9 after SIGTERM.
func entered() int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	if err := lab.Enter(); err != nil {
		fmt.Println(err)
		if errors.Is(err, lab.ErrUnavailable) {
			return 3
		}
		return 1
	}
	l, err := lab.New(context.Background(), lab.Spec{Hosts: []lab.Host{{Name: "a", NAT: lab.FullCone}, {Name: "b"}}})
	if err != nil {
		return fail(err)
	}
	cmd := helper("net")
	cmd.Stdout = os.Stdout
	p, err := l.Start(context.Background(), "a", cmd)
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(p.Wait(), l.Close()); err != nil {
		return fail(err)
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		<-signals
		return 9
	}
	return 7
}

// forbidden, started with all rights in a user namespace, forbids further ones, drops its rights and runs entered.
func forbidden() int {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		return fail(err)
	}
	err := lab.OnThread(func() error {
		const noRoot = 1 << 0 // SECBIT_NOROOT: user 0 gets no rights when it executes a program
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0); err != nil {
			return fmt.Errorf("set secure bits: %w", err)
		}
		cmd := helper("entered")
		cmd.Stdout = os.Stdout
		return cmd.Run()
	})
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return fail(err)
	}
	return 0
}
