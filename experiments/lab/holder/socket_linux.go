package holder

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrInUse is wrapped by the error of [Listen] when a holder with that socket is running.
var ErrInUse = errors.New("a lab of that name is up already")

// Socket returns the path of the socket of the lab with the given name: one per user and name, under XDG_RUNTIME_DIR, or
// else under the directory for temporary files. It touches nothing.
func Socket(name string) (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("fnwire-%d", outsideUID()))
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		dir = filepath.Join(run, "fnwire")
	}
	path := filepath.Join(dir, "lab-"+name+".sock")
	if limit := len(unix.RawSockaddrUnix{}.Path) - 1; len(path) > limit {
		return "", fmt.Errorf("lab: socket path %s has more than %d characters: choose a shorter name, or set XDG_RUNTIME_DIR to a shorter path", path, limit)
	}
	return path, nil
}

// outsideUID is the user's ID; inside the user namespace that lab.Enter makes, what it was outside.
func outsideUID() int {
	var inside, outside, count int
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return os.Getuid()
	}
	if n, _ := fmt.Sscan(string(b), &inside, &outside, &count); n != 3 || count != 1 || inside != os.Getuid() {
		return os.Getuid()
	}
	return outside
}

// checkDir returns an error unless the directory of a socket is this user's alone: in a shared place, anybody could have
// made it, to have files passed to them. The error wraps [os.ErrNotExist] if there is none.
func checkDir(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("lab: directory for sockets: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("lab: %s must be a directory that belongs to this user, with mode 0700: remove it, or set XDG_RUNTIME_DIR", dir)
	}
	return nil
}

// Listen opens the socket for a holder, and makes its directory, replacing one that a holder left behind when it was killed.
// The error wraps [ErrInUse] if there is a running one.
func Listen(path string) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("lab: directory for sockets: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	if conn, err := net.DialUnix("unix", nil, addr); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("lab: %w", ErrInUse)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lab: remove stale socket: %w", err)
	}
	ln, err := net.ListenUnix("unix", addr)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return ln, nil
}

// lock keeps other holders that start at the same time from taking each other's socket for a stale one.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("lab: lock %s: %w", dir, err)
	}
	return func() { _ = d.Close() }, nil
}

// Cleanup removes the directory of a socket that has been closed, unless another holder has one there. Serve calls it.
func Cleanup(path string) {
	_ = os.Remove(filepath.Dir(path)) // fails if it is not empty
}
