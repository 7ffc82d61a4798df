package transport

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"
)

// errTooBig is what quic-go takes for "a smaller packet might pass".
var errTooBig error = syscall.EMSGSIZE

// segmentSize returns the segment size of a UDP_SEGMENT control message (udp(7)), or 0.
func segmentSize(oob []byte) int {
	for len(oob) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(data) >= 2 {
			return int(binary.NativeEndian.Uint16(data))
		}
		oob = rest
	}
	return 0
}
