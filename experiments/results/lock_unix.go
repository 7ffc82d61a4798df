//go:build unix

package results

import (
	"errors"
	"os"
	"syscall"
)

// lock has f for this process alone, until it is closed or the process ends. Where there are no locks, it does nothing.
func lock(f *os.File) error {
	if errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		return errBusy
	}
	return nil
}
