//go:build unix

package results

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// lockWithin is how long a run that was killed may take to end.
const lockWithin = 2 * time.Second

// lock has f for this process alone, until it is closed or the process ends. Where there are no locks, it does nothing.
func lock(f *os.File) error {
	for began := time.Now(); errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK); time.Sleep(lockWithin / 40) {
		if time.Since(began) > lockWithin {
			return errBusy
		}
	}
	return nil
}
