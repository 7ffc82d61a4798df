package worker

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountTemp puts a file system of its own, in memory, over the directory for temporary files. The process must have a
// mount namespace that nobody else sees.
func mountTemp() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", os.TempDir(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	return nil
}
