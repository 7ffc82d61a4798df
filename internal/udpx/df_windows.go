package udpx

import "golang.org/x/sys/windows"

// From ws2ipdef.h; both families use the same number.
const ipDontFragment = 14

func dontFragment(fd uintptr, v6 bool) {
	if v6 {
		_ = windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IPV6, ipDontFragment, 1)
	}
	_ = windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_IP, ipDontFragment, 1)
}
