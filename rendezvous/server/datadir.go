package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fnwire/fnwire/internal/filelock"
)

// lockDir has a data directory for this server alone, until the file is closed or the process ends: of two on one directory, each
// removes and writes over what the other has stored.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err = filelock.TryExclusive(f); err == nil {
		return f, nil
	}
	_ = f.Close() // nothing was written
	if errors.Is(err, filelock.ErrLocked) {
		return nil, fmt.Errorf("another rendezvous uses %s: stop that one first, or give this one a directory of its own (--data)", dir)
	}
	return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
}
