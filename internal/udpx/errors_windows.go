package udpx

import (
	"errors"

	"golang.org/x/sys/windows"
)

func tooBig(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }

func transient(err error) bool {
	return oneOf(err, windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAENETDOWN, windows.WSAEHOSTDOWN,
		windows.WSAEADDRNOTAVAIL, windows.WSAENOBUFS, windows.WSAEWOULDBLOCK, windows.WSAEACCES,
		windows.WSAECONNREFUSED, windows.WSAECONNRESET, windows.WSAENETRESET)
}

// pending reports whether a read failed only because an ICMP error was waiting to be told, or because
// one datagram was longer than the buffer.
func pending(err error) bool {
	return oneOf(err, windows.WSAECONNREFUSED, windows.WSAECONNRESET, windows.WSAENETRESET,
		windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAEMSGSIZE)
}

func oneOf(err error, list ...windows.Errno) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
