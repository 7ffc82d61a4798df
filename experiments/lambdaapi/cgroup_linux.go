package lambdaapi

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup freezes all processes of an instance by the freezer of a cgroup of version 2 (Linux, Documentation/admin-guide/cgroup-v2.rst): none
// can leave it, and none notices.
type Cgroup struct {
	dir string
	f   *os.File // of the directory
}

// ErrNoCgroup says that there is no cgroup of version 2 in which this process may make another.
var ErrNoCgroup = errors.New("lambdaapi: no cgroup2 to make groups in: mount one, or run as root, or do without")

// cgroupWithin is how long processes may take to stop; one may be in the kernel, waiting for a disk.
const cgroupWithin = 5 * time.Second

// NewCgroup makes a cgroup of that name below this process's own. The error matches ErrNoCgroup where that is not possible.
func NewCgroup(name string) (*Cgroup, error) {
	parent, err := ownCgroup()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("lambdaapi: cgroup: %w", err)
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	f, err := os.Open(dir)
	if err == nil {
		if _, err = os.Stat(filepath.Join(dir, "cgroup.freeze")); err == nil {
			return &Cgroup{dir, f}, nil
		}
		_ = f.Close()
	}
	return nil, errors.Join(fmt.Errorf("%w: %w", ErrNoCgroup, err), os.Remove(dir))
}

// ownCgroup is the directory of this process's cgroup.
func ownCgroup() (string, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	below := ""
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			below = strings.TrimSpace(path)
		}
	}
	for s := bufio.NewScanner(mounts); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		if at := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(at) > 4 {
			return filepath.Join(at[4], below), nil
		}
	}
	return "", errors.New("none is mounted")
}

// Attach has the process be born in the cgroup.
func (c *Cgroup) Attach(cmd *exec.Cmd) {
	attr := syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(c.f.Fd())
	cmd.SysProcAttr = &attr
}

// Freeze stops all processes.
func (c *Cgroup) Freeze() error { return c.set("cgroup.freeze", "1", "frozen 1") }

// Thaw lets them go on.
func (c *Cgroup) Thaw() error { return c.set("cgroup.freeze", "0", "frozen 0") }

// Close kills all processes and removes the cgroup. It may be called more than once.
func (c *Cgroup) Close() error {
	defer c.f.Close()
	if _, err := os.Stat(c.dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	err := c.set("cgroup.kill", "1", "populated 0")
	return errors.Join(err, os.Remove(c.dir))
}

// set writes to a file of the cgroup and waits until its events are as wanted.
func (c *Cgroup) set(file, value, event string) error {
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(value), 0); err != nil {
		return fmt.Errorf("lambdaapi: cgroup: %w", err)
	}
	events, err := os.Open(filepath.Join(c.dir, "cgroup.events"))
	if err != nil {
		return fmt.Errorf("lambdaapi: cgroup: %w", err)
	}
	defer events.Close()
	for end := time.Now().Add(cgroupWithin); ; {
		b := make([]byte, 256)
		n, err := events.ReadAt(b, 0)
		if n == 0 {
			return fmt.Errorf("lambdaapi: cgroup: %w", err)
		}
		if strings.Contains(string(b[:n]), event) {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("lambdaapi: cgroup %s: no %q within %v", c.dir, event, cgroupWithin)
		}
		// The kernel tells of each change of the file (POLLPRI).
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lambdaapi: cgroup: %w", err)
		}
	}
}
