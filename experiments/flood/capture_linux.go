package flood

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Tap sees the IPv4 packets that reach the network namespace that it was opened in, as who watches a line does.
type Tap struct{ f *os.File }

// OpenTap needs the right to open packet sockets, which who made the namespace has.
func OpenTap() (*Tap, error) {
	proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return nil, fmt.Errorf("flood: packet socket: %w", err)
	}
	return &Tap{os.NewFile(uintptr(fd), "tap")}, nil
}

// Capture returns the payloads of the first n different UDP datagrams to a port that begin with a byte.
func (t *Tap) Capture(ctx context.Context, n int, port uint16, first byte) ([][]byte, error) {
	defer context.AfterFunc(ctx, func() { _ = t.f.SetReadDeadline(time.Unix(1, 0)) })()
	var out [][]byte
	seen := make(map[string]bool)
	buf := make([]byte, 64<<10)
	for len(out) < n {
		k, err := t.f.Read(buf)
		if err != nil {
			return out, errors.Join(fmt.Errorf("flood: %d of %d captured: %w", len(out), n, err), ctx.Err())
		}
		p := payload(buf[:k], port)
		if len(p) > 0 && p[0] == first && !seen[string(p)] {
			seen[string(p)] = true
			out = append(out, append([]byte(nil), p...))
		}
	}
	return out, nil
}

// payload returns what a whole IPv4 packet carries to a UDP port.
func payload(b []byte, port uint16) []byte {
	const udpHeader = 8
	if len(b) < 20 || b[0]>>4 != 4 || b[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return nil
	}
	head := int(b[0]&15) * 4
	if len(b) < head+udpHeader || binary.BigEndian.Uint16(b[head+2:]) != port {
		return nil
	}
	return b[head+udpHeader:]
}

// Close closes the tap.
func (t *Tap) Close() error { return t.f.Close() }
