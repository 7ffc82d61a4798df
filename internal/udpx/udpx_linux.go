package udpx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// HasECN says whether ECN marks are sent and reported.
const HasECN = true

// HasGSO says whether a batch usually costs one system call rather than one per packet.
const HasGSO = true

func listen(lc *net.ListenConfig, network string, addr netip.AddrPort) (*Conn, error) {
	pc, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("udpx: %w", err)
	}
	return wrap(pc.(*net.UDPConn)), nil
}

// ListenGroup opens n sockets that share one port (SO_REUSEPORT); the kernel keeps the packets of
// one source on one of them. Systems without that open one. The port is shared with nobody else: if
// another process has it, that is an error.
func ListenGroup(network string, addr netip.AddrPort, n int) ([]*Conn, error) {
	// The first socket is bound without the option, so that it cannot slip in beside another group.
	first, err := Listen(network, addr)
	if err != nil {
		return nil, err
	}
	group := []*Conn{first}
	addr = netip.AddrPortFrom(addr.Addr(), first.local.Port())
	raw, err := first.udp.SyscallConn()
	if err == nil && n > 1 {
		err = reusePort("", "", raw)
	}
	for err == nil && len(group) < n {
		var c *Conn
		if c, err = listen(&net.ListenConfig{Control: reusePort}, network, addr); err == nil {
			group = append(group, c)
		}
	}
	if err != nil {
		for _, c := range group {
			_ = c.Close()
		}
		return nil, err
	}
	return group, nil
}

func reusePort(_, _ string, raw syscall.RawConn) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}

// Steer has the kernel give the datagrams of a group whose first byte is kind to its last socket, and spread all others
// over the sockets before that by the four bytes at offset at; shorter ones go to the first. It reports whether it could:
// otherwise, as before, every socket gets the datagrams of some sources, of all kinds.
func Steer(group []*Conn, kind byte, at uint32) bool {
	last := uint32(len(group) - 1)
	if last < 1 {
		return false
	}
	// Classic BPF, for which no rights are needed. Its packet begins behind the UDP header, and a load beyond its end returns 0.
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(kind)},
		{Code: unix.BPF_RET | unix.BPF_K, K: last},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: last},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	raw, err := group[0].udp.SyscallConn()
	if err != nil {
		return false
	}
	fprog := &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, fprog)
	})
	return cerr == nil && err == nil
}

// setup asks for everything and lives with what it gets: an old kernel works, only slower.
func (c *Conn) setup() {
	raw, err := c.udp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fdp uintptr) {
		fd := int(fdp)
		try := func(level, opt, value int) bool { return unix.SetsockoptInt(fd, level, opt, value) == nil }
		// The forced form needs CAP_NET_ADMIN and exceeds net.core.*mem_max; the plain form is capped.
		if !try(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBufferBytes) {
			try(unix.SOL_SOCKET, unix.SO_RCVBUF, socketBufferBytes)
		}
		if !try(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, socketBufferBytes) {
			try(unix.SOL_SOCKET, unix.SO_SNDBUF, socketBufferBytes)
		}
		if c.v6 {
			try(unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
			try(unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
		}
		// On an IPv6 socket these govern the v4-mapped traffic.
		try(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		try(unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		try(unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		c.gso.Store(err == nil)
	})
}

// Batches has batches sent by one system call from now on, as at first where the kernel can, or each packet by its own.
func (c *Conn) Batches(on bool) { c.gso.Store(on) }

// Read waits for packets. ICMP errors of earlier sends are not its business and are skipped.
func (c *Conn) Read(b *Batch) error {
	var oob [controlBytes]byte
	for {
		n, oobn, _, from, err := c.udp.ReadMsgUDPAddrPort(b.Buf, oob[:])
		if err != nil {
			if pending(err) {
				continue
			}
			return err
		}
		if n == 0 {
			continue
		}
		b.N, b.Seg, b.ECN, b.From = n, n, 0, unmap(from)
		b.parseControl(oob[:oobn])
		return nil
	}
}

func (b *Batch) parseControl(oob []byte) {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return
		}
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(body) >= 2:
			// An int in the kernel; its low half is enough, and old kernels write two bytes.
			if seg := int(binary.NativeEndian.Uint16(body)); len(body) < 4 && seg > 0 {
				b.Seg = min(seg, b.N)
			} else if seg := int(int32(binary.NativeEndian.Uint32(body))); seg > 0 {
				b.Seg = min(seg, b.N)
			}
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS && len(body) >= 1:
			b.ECN = body[0] & 3
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && len(body) >= 4:
			b.ECN = byte(binary.NativeEndian.Uint32(body)) & 3
		}
		oob = rest
	}
}

// Write sends b as packets of seg bytes, the last may be shorter; seg of zero means one packet. It
// waits while the socket's buffer is full. After an error the packets behind it were not sent.
func (c *Conn) Write(b []byte, seg int, ecn byte, to netip.AddrPort) error {
	if seg <= 0 || seg >= len(b) {
		return classify(c.send(b, 0, ecn, to))
	}
	if !c.gso.Load() {
		return classify(c.singles(b, seg, ecn, to))
	}
	most := min(MaxSegments, MaxBytes/seg) * seg
	if most == 0 {
		return classify(c.singles(b, seg, ecn, to))
	}
	for len(b) > 0 {
		n := min(most, len(b))
		if err := c.segmented(b[:n], seg, ecn, to); err != nil {
			return classify(err)
		}
		b = b[n:]
	}
	return nil
}

// segmented sends one batch by GSO, or packet by packet if that is refused.
func (c *Conn) segmented(b []byte, seg int, ecn byte, to netip.AddrPort) error {
	if len(b) <= seg {
		return c.send(b, 0, ecn, to)
	}
	err := c.send(b, seg, ecn, to)
	if !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	// EIO: the interface cannot. EINVAL: the kernel cannot, or (before 6.14) a packet exceeds the
	// MTU, or no such destination; then the packets one by one fail as well and GSO is not to blame.
	if err := c.singles(b, seg, ecn, to); err != nil {
		return err
	}
	c.gso.Store(false)
	return nil
}

const (
	controlBytes = 128
	headerBytes  = unix.SizeofCmsghdr
	// Both messages have at most four bytes of body, which CMSG_ALIGN rounds up to a word.
	messageBytes = headerBytes + headerBytes - 8
)

// send makes one system call; seg of zero means that b is one packet.
func (c *Conn) send(b []byte, seg int, ecn byte, to netip.AddrPort) error {
	var oob [controlBytes]byte
	n := 0
	if seg > 0 {
		header(oob[:], 2, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		binary.NativeEndian.PutUint16(oob[headerBytes:], uint16(seg))
		n = messageBytes
	}
	if ecn != 0 {
		level, kind := unix.IPPROTO_IP, unix.IP_TOS
		if c.v6 && !to.Addr().Unmap().Is4() {
			level, kind = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
		}
		header(oob[n:], 4, level, kind)
		binary.NativeEndian.PutUint32(oob[n+headerBytes:], uint32(ecn&3))
		n += messageBytes
	}
	if !c.v6 {
		to = unmap(to)
	}
	_, _, err := c.udp.WriteMsgUDPAddrPort(b, oob[:n], to)
	return err
}

// header writes a cmsghdr, whose first field is as wide as a word.
func header(b []byte, body, level, kind int) {
	if headerBytes == 16 {
		binary.NativeEndian.PutUint64(b, uint64(headerBytes+body))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(headerBytes+body))
	}
	binary.NativeEndian.PutUint32(b[headerBytes-8:], uint32(level))
	binary.NativeEndian.PutUint32(b[headerBytes-4:], uint32(kind))
}
