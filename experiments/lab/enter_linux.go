package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// envRole tells a copy of the program, started by this package, what it is to be.
const (
	envRole     = "FNWIRE_LAB_ROLE"
	roleEntered = "entered" // the same program in a user namespace of its own
	roleKeeper  = "keeper"  // the first process of a lab's PID namespace
	roleCarrier = "carrier" // carries the lines of a lab
)

// Enter makes sure that the program may make labs. Call it first thing in main, a command or TestMain: it may start the
// program again with the same arguments, so whatever comes before it happens again.
//
// With the rights of root it just returns. Otherwise it runs the program again in a new user namespace, where the
// present user is root and the network is loopback alone, passes signals on, and exits with that program's exit code: it returns only inside.
// The error wraps [ErrUnavailable] and says what is missing, and how to allow it.
func Enter() error {
	role := os.Getenv(envRole)
	switch role {
	case roleKeeper:
		keep()
	case roleCarrier:
		carry()
	}
	err := usable()
	if err == nil && role == roleEntered {
		err = loopbackUp() // for what the program does outside of labs
	}
	if err == nil {
		return os.Unsetenv(envRole)
	}
	if role == roleEntered {
		return fmt.Errorf("%w (inside a user namespace)%s", err, remedy())
	}
	return reenter()
}

// usable tells whether the process may make and set up network namespaces.
func usable() error {
	if role := os.Getenv(envRole); role == roleKeeper || role == roleCarrier {
		return errNoEnter // New, called by a program that does not call Enter
	}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		return loopbackUp()
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// reenter runs the program in a new user namespace, and does not return if that could be started.
func reenter() error {
	// The child is killed when the thread that started it ends: stay on it.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envRole+"="+roleEntered)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
		// Of its own, so that Ctrl-C reaches it once, through the loop below.
		Setpgid: true,
	}
	if err := runPassingSignals(cmd); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		os.Exit(128 + int(status.Signal()))
	}
	os.Exit(cmd.ProcessState.ExitCode())
	return nil
}

// runPassingSignals runs cmd; that it failed by itself is no error.
func runPassingSignals(cmd *exec.Cmd) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: not root, and start in a user namespace: %w%s", ErrUnavailable, err, remedy())
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s)
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("lab: wait for the program in its user namespace: %w", err)
	}
	return nil
}

// remedy names the settings that stand in the way, as far as the kernel shows them.
func remedy() string {
	var hints []string
	check := func(sysctl, bad, hint string) {
		b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(sysctl, ".", "/"))
		if err == nil && strings.TrimSpace(string(b)) == bad {
			hints = append(hints, fmt.Sprintf("%s is %s: as root, set it with: %s", sysctl, bad, hint))
		}
	}
	check("user.max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000")
	check("user.max_net_namespaces", "0", "sysctl -w user.max_net_namespaces=10000")
	check("kernel.unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1")
	check("kernel.apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
	if len(hints) == 0 {
		hints = append(hints, "run as root, or allow user namespaces (in a container: add the capability SYS_ADMIN, or a seccomp profile that permits unshare)")
	}
	return "; " + strings.Join(hints, "; ")
}

// keep is the life of a keeper, the first process of a lab's PID namespace: the kernel kills all others in there when it
// ends, and it ends with the process that made the lab. It gives its namespace a /proc of its own, if it may.
func keep() {
	// Signals for the terminal's process group are not meant for it; orphans are reaped by the kernel.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGCHLD)
	_ = os.Chdir("/")
	ready := []byte{keeperReady}
	if unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") == nil &&
		unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") == nil {
		ready[0] |= keeperProc
		if unix.Mount("tmpfs", Disk, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777") == nil {
			ready[0] |= keeperDisk
		}
	}
	maker := os.NewFile(3, "maker of the lab")
	if _, err := maker.Write(ready); err == nil {
		_, _ = io.Copy(io.Discard, maker)
	}
	os.Exit(0)
}
