//go:build unix

package udpx

import (
	"errors"
	"syscall"
)

func tooBig(err error) bool { return errors.Is(err, syscall.EMSGSIZE) }

func transient(err error) bool {
	var e syscall.Errno
	if !errors.As(err, &e) {
		return false
	}
	switch e {
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EADDRNOTAVAIL,
		syscall.ENOBUFS, syscall.ENOMEM, syscall.EAGAIN, syscall.EPERM, syscall.EACCES, syscall.ECONNREFUSED:
		return true
	}
	return false
}

// pending reports whether a read failed only because an ICMP error was waiting to be told.
func pending(err error) bool {
	var e syscall.Errno
	if !errors.As(err, &e) {
		return false
	}
	switch e {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EMSGSIZE,
		syscall.EPROTO, syscall.ENETDOWN, syscall.EHOSTDOWN:
		return true
	}
	return false
}
