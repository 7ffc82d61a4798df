package world

import (
	"os/exec"
	"syscall"
)

// ownMounts gives the process a mount namespace of its own.
func ownMounts(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNS
}
