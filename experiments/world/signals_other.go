//go:build !unix

package world

import "syscall"

// There are no such signals here, and no labs whose processes could be sent one.
const sigStop, sigCont = syscall.Signal(0), syscall.Signal(0)
