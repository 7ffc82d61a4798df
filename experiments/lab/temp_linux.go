package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const tempDir = "/tmp"

// StartWithTemp is Start for a process whose /tmp is its own: empty at first, in memory, of so many bytes at most, and gone with the last
// process that sees it. Of what the machine has there it sees cmd.Dir alone, where it is.
func (l *Lab) StartWithTemp(ctx context.Context, host string, cmd *exec.Cmd, bytes int64) (*Proc, error) {
	info, err := l.host(host)
	if err != nil {
		return nil, err
	}
	n := l.nodes[info.Name]
	return l.startBy(ctx, host, cmd, func() error {
		return onThread(func() error {
			if err := l.spawner.enter(); err != nil {
				return err
			}
			if err := ownTemp(cmd.Dir, bytes); err != nil {
				return fmt.Errorf("make %s its own: %w", tempDir, err)
			}
			if err := netns.Set(n.ns); err != nil {
				return err
			}
			return cmd.Start()
		})
	})
}

// ownTemp gives the thread a mount namespace with a /tmp in which only keep is, if it was there.
func ownTemp(keep string, bytes int64) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	kept := -1
	if strings.HasPrefix(keep, tempDir+"/") {
		var err error
		if kept, err = unix.OpenTree(unix.AT_FDCWD, keep, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err != nil {
			return fmt.Errorf("open_tree %s: %w", keep, err)
		}
		defer unix.Close(kept)
	}
	if err := unix.Mount("tmpfs", tempDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=1777,size=%d", bytes)); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if kept < 0 {
		return nil
	}
	if err := os.MkdirAll(keep, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(kept, "", unix.AT_FDCWD, keep, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount %s: %w", keep, err)
	}
	return nil
}
