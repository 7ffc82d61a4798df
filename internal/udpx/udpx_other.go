//go:build !linux

package udpx

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// HasECN says whether ECN marks are sent and reported.
const HasECN = false

// Batches does nothing here: there are none.
func (*Conn) Batches(bool) {}

// HasGSO says whether a batch usually costs one system call rather than one per packet.
const HasGSO = false

func listen(lc *net.ListenConfig, network string, addr netip.AddrPort) (*Conn, error) {
	pc, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("udpx: %w", err)
	}
	return wrap(pc.(*net.UDPConn)), nil
}

// ListenGroup opens n sockets that share one port, or one where the system cannot share fairly,
// as here.
func ListenGroup(network string, addr netip.AddrPort, _ int) ([]*Conn, error) {
	c, err := Listen(network, addr)
	if err != nil {
		return nil, err
	}
	return []*Conn{c}, nil
}

// Steer reports that this system cannot give the datagrams of one kind to one socket of a group.
func Steer([]*Conn, byte, uint32) bool { return false }

func (c *Conn) setup() {
	// Systems differ in the most they grant and refuse what is more, so step down.
	for n := socketBufferBytes; n >= 256<<10 && c.udp.SetReadBuffer(n) != nil; n /= 2 {
		continue
	}
	for n := socketBufferBytes; n >= 256<<10 && c.udp.SetWriteBuffer(n) != nil; n /= 2 {
		continue
	}
	if raw, err := c.udp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { dontFragment(fd, c.v6) })
	}
}

// Read waits for one packet. ICMP errors of earlier sends are not its business and are skipped.
func (c *Conn) Read(b *Batch) error {
	for {
		n, from, err := c.udp.ReadFromUDPAddrPort(b.Buf)
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
		return nil
	}
}

// Write sends b as packets of seg bytes, the last may be shorter; seg of zero means one packet. It
// waits while the socket's buffer is full. After an error the packets behind it were not sent.
func (c *Conn) Write(b []byte, seg int, ecn byte, to netip.AddrPort) error {
	if seg <= 0 || seg >= len(b) {
		return classify(c.send(b, 0, ecn, to))
	}
	return classify(c.singles(b, seg, ecn, to))
}

func (c *Conn) send(b []byte, _ int, _ byte, to netip.AddrPort) error {
	if !c.v6 {
		to = unmap(to)
	}
	_, err := c.udp.WriteToUDPAddrPort(b, to)
	return err
}
