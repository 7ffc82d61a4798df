// Package udpx is fnwire's UDP socket: many packets per system call where the system has that, and
// errors sorted into those that pass and those that last. It knows nothing of what the packets mean
// and keeps no queue: what does not fit into the kernel's buffers is dropped there.
//
// Linux: one recvmsg returns up to 64 KiB of packets of one source (UDP_GRO), one sendmsg takes as
// many for one destination (UDP_SEGMENT, "GSO"), and ECN marks travel both ways. Elsewhere each
// packet costs a call and [HasECN] is false; the API is the same.
//
// Packets are never fragmented by this host (the "don't fragment" bit is set): one too big for the
// route fails with [ErrTooBig] or is lost, and whoever sends finds the size that fits.
package udpx

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// BufferBytes is the size for Batch.Buf: no read returns more.
	BufferBytes = 64 << 10
	// MaxSegments is the most packets that one system call sends; Write splits what has more.
	MaxSegments = 64
	// MaxBytes is the most bytes that one system call sends.
	MaxBytes = 65507

	socketBufferBytes = 7 << 20
)

var (
	// ErrTransient marks a send that failed for now: no route, a full queue, a packet filter, an
	// ICMP error of an earlier packet. The packet is lost; the socket is as good as before.
	ErrTransient = errors.New("udpx: packet not sent, the network may come back")
	// ErrTooBig marks a packet that is bigger than the interface or the route takes.
	ErrTooBig = errors.New("udpx: packet too big for the route")
)

// IsTransient reports whether err is worth no more than a lost packet.
func IsTransient(err error) bool { return errors.Is(err, ErrTransient) }

// IsTooBig reports whether err says that the packet exceeds the path's MTU as this host knows it.
func IsTooBig(err error) bool { return errors.Is(err, ErrTooBig) }

// Batch is what one Read returns: N bytes of Buf are packets of Seg bytes each, the last may be
// shorter, all from one source with the same ECN mark.
type Batch struct {
	Buf  []byte // set by the caller, BufferBytes long; shorter buffers lose packets
	N    int
	Seg  int // never zero unless N is
	From netip.AddrPort
	ECN  byte // two bits as in RFC 3168; zero where HasECN is false
}

// Socket is a UDP socket, or an in-memory network that stands in for one. Read is called by one
// goroutine, Write by any number. Close ends a blocked Read with net.ErrClosed.
type Socket interface {
	Read(b *Batch) error
	Write(b []byte, seg int, ecn byte, to netip.AddrPort) error
	LocalAddr() netip.AddrPort
	Close() error
}

// Conn is a Socket of the operating system.
type Conn struct {
	udp   *net.UDPConn
	local netip.AddrPort
	v6    bool        // AF_INET6
	gso   atomic.Bool // cleared for good when the system refuses segmentation
}

var _ Socket = (*Conn)(nil)

// Listen opens a socket. The network is "udp4", "udp6" (IPv6 only) or "udp" (both, on a wildcard
// IPv6 address). Neither reads nor writes allocate memory.
func Listen(network string, addr netip.AddrPort) (*Conn, error) {
	return listen(&net.ListenConfig{}, network, addr)
}

func wrap(udp *net.UDPConn) *Conn {
	a := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	c := &Conn{udp: udp, local: unmap(a), v6: a.Addr().Is6()}
	c.setup()
	return c
}

// LocalAddr returns the address that the socket is bound to, which may be a wildcard.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// SetReadDeadline bounds a Read, which then fails with os.ErrDeadlineExceeded.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.udp.SetReadDeadline(t) }

// Close releases the socket. Only the first call does anything.
func (c *Conn) Close() error {
	if err := c.udp.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// sendError carries the cause and one of the two sentinels.
type sendError struct{ kind, cause error }

func (e *sendError) Error() string   { return e.kind.Error() + ": " + e.cause.Error() }
func (e *sendError) Unwrap() []error { return []error{e.kind, e.cause} }

// classify gives a send error its sentinel.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case tooBig(err):
		return &sendError{ErrTooBig, err}
	case transient(err):
		return &sendError{ErrTransient, err}
	default:
		return err
	}
}

// singles sends each packet by its own system call.
func (c *Conn) singles(b []byte, seg int, ecn byte, to netip.AddrPort) error {
	for len(b) > 0 {
		n := min(seg, len(b))
		if err := c.send(b[:n], 0, ecn, to); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
