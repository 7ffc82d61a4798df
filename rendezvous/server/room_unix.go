//go:build linux || darwin

package server

import "golang.org/x/sys/unix"

// diskFree returns how many bytes may still be written where a directory is.
func diskFree(dir string) (bytes int64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true //nolint:unconvert // on macOS it is no int64
}
