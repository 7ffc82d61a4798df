package file

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// full tells whether there is no room for a file, or for one so large.
func full(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// lock locks the directory against all others, or, if it is not exclusive, against those who lock it exclusively.
func (s *Store) lock(exclusive bool) (unlock func(), err error) {
	f, err := s.root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	var how uint32
	if exclusive {
		how = windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	if err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, new(windows.Overlapped)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// syncDir has nothing to do: Windows has no such call.
func (s *Store) syncDir(string) error { return nil }
