package file

import (
	"errors"

	"golang.org/x/sys/windows"
)

// full tells whether there is no room for a file, or for one so large.
func full(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// syncDir has nothing to do: Windows has no such call.
func (s *Store) syncDir(string) error { return nil }
