//go:build unix

package world

import "syscall"

const sigStop, sigCont = syscall.SIGSTOP, syscall.SIGCONT
