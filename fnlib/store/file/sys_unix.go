//go:build unix

package file

import (
	"errors"
	"syscall"
)

// full tells whether there is no room for a file, or for one so large.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// syncDir has the disk know the names in a directory.
func (s *Store) syncDir(name string) error {
	f, err := s.root.Open(name)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // this file system syncs no directories
	}
	return errors.Join(err, f.Close())
}
