//go:build unix

package file

import (
	"errors"
	"os"
	"syscall"
)

// full tells whether there is no room for a file, or for one so large.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// lock locks the directory against all others, or, if it is not exclusive, against those who lock it exclusively. A file system that
// knows no locks is never swept, so what puts there needs none.
func (s *Store) lock(exclusive bool) (unlock func(), err error) {
	f, err := s.root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(f.Fd()), how)
	}
	unlock = func() { _ = f.Close() }
	if err != nil && exclusive {
		unlock()
		return nil, err
	}
	return unlock, nil
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
