// Package filelock locks open files among processes, and among several openings in one: flock on Unix, LockFileEx on Windows. A lock
// ends when its file is closed or its process ends, however that comes. It never touches what a file holds.
package filelock

import (
	"errors"
	"os"
)

// ErrLocked is returned by TryExclusive if another opening of the file has it locked.
var ErrLocked = errors.New("locked by another")

// Shared waits until nobody has f locked exclusively, and locks it against those who want that.
func Shared(f *os.File) error { return lock(f, false, true) }

// Exclusive waits until nobody has f locked, and locks it against all. f must be open for writing.
func Exclusive(f *os.File) error { return lock(f, true, true) }

// TryExclusive is Exclusive without the wait. ErrLocked: another has it locked.
func TryExclusive(f *os.File) error { return lock(f, true, false) }
