//go:build !linux

package lambdaapi

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

const sigStop, sigCont, sigTerm = syscall.Signal(0x13), syscall.Signal(0x12), syscall.SIGTERM

// StartProcess needs Linux.
func StartProcess(*exec.Cmd) (Process, error) {
	return nil, errors.New("lambdaapi: functions run on Linux only")
}

var _ os.Signal = sigStop
