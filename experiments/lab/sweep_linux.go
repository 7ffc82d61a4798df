package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxSweeps bounds how often Sweep looks: what it kills may have started others meanwhile.
const maxSweeps = 100

// Sweep kills all processes on a host, whoever has started them, also those that have left the process group of a [Proc].
func (l *Lab) Sweep(host string) error {
	own := ""
	err := l.Do(host, func() (err error) {
		own, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return err
	}
	for range maxSweeps {
		n, err := killIn(own)
		if err != nil {
			return fmt.Errorf("lab: sweep %s: %w", host, err)
		}
		if n == 0 {
			return nil
		}
	}
	return fmt.Errorf("lab: sweep %s: processes are started faster than they are killed", host)
}

// killIn kills the processes in a network namespace, which has the name that /proc shows, and returns how many there were.
func killIn(namespace string) (n int, err error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range all {
		// Who may not look at a process has not started it, and of one that has ended nothing is to be seen.
		if in, err := os.Readlink(dir + "/ns/net"); err != nil || in != namespace {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return n, err
		}
		if err := killOne(pid, dir, namespace); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// killOne kills a process by a handle, so that no other which got its number meanwhile is met.
func killOne(pid int, dir, namespace string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(fd)
	in, err := os.Readlink(dir + "/ns/net")
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		return err
	}
	if in != namespace {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill: %w", err)
	}
	// It is seen in the namespace until it has ended.
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("poll: %w", err)
	}
	return nil
}
