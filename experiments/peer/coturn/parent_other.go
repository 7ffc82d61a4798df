//go:build !linux

package coturn

import "syscall"

func dieWithParent() *syscall.SysProcAttr { return nil }
