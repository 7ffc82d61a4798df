package udpx

import "syscall"

// SyscallConn lets quic-go ask what the socket can do (segmentation offload).
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.udp.SyscallConn() }
