package lab_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"golang.org/x/sys/unix"
)

// twoNATs returns sockets of two hosts behind NATs with a hole punched between them.
func twoNATs(t testing.TB, kind lab.Kind) (a, b sock, atA, atB netip.AddrPort) {
	l := labtest.New(t, lab.Host{Name: "a", NAT: kind}, lab.Host{Name: "b", NAT: kind})
	a, b = listen(t, l, "a", 4000), listen(t, l, "b", 5000)
	atA, atB = at(l, "a", a), at(l, "b", b)
	a.send(atB, "punch")
	b.send(atA, "hello")
	a.want("hello")
	a.send(atB, "hello")
	b.until("hello")
	return a, b, atA, atB
}

func (s sock) control(fn func(fd int) error) {
	s.t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil || inner != nil {
		s.t.Fatal(err, inner)
	}
}

func segmentSize(n int) []byte {
	oob := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(oob[8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(oob[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(oob[16:], uint16(n))
	return oob
}

// A batch of packets sent with one call crosses both NATs as one, and is read as one with the size of its segments.
func TestUDPOffloadThroughTwoNATs(t *testing.T) {
	const seg, count = 1400, 40
	a, b, _, atB := twoNATs(t, lab.PortRestricted)
	b.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	batch := make([]byte, seg*count-100)
	for i := range batch {
		batch[i] = byte(i / seg)
	}
	if _, _, err := a.WriteMsgUDPAddrPort(batch, segmentSize(seg), atB); err != nil {
		t.Fatalf("send with UDP_SEGMENT: %v", err)
	}
	buf, oob := make([]byte, 1<<16), make([]byte, 64)
	if err := b.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, oobn, _, _, err := b.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	if n != len(batch) || string(buf[:n]) != string(batch) {
		t.Errorf("read %d bytes, want the %d sent", n, len(batch))
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 || msgs[0].Header.Type != unix.UDP_GRO || binary.NativeEndian.Uint32(msgs[0].Data) != seg {
		t.Errorf("control message %v (%v), want UDP_GRO with %d", msgs, err, seg)
	}

	// Without UDP_GRO the same batch arrives as single packets, so that plain programs work too.
	b.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 0) })
	if _, _, err := a.WriteMsgUDPAddrPort(batch, segmentSize(seg), atB); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		msg, _, ok := b.recv(patience)
		if want := batch[i*seg : min((i+1)*seg, len(batch))]; !ok || msg != string(want) {
			t.Fatalf("packet %d: %d bytes, want %d", i, len(msg), len(want))
		}
	}
}

// The path takes packets of 1500 bytes and no more.
func TestMTU(t *testing.T) {
	a, b, _, atB := twoNATs(t, lab.PortRestricted)
	a.control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	})
	a.send(atB, string(make([]byte, 1472)))
	b.want(string(make([]byte, 1472)))
	if _, err := a.WriteToUDPAddrPort(make([]byte, 1473), atB); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("sending a packet of 1501 bytes: %v, want EMSGSIZE", err)
	}
}

// The sender keeps its CPU busy; what the receiver read is what counts.
func BenchmarkUDPThroughTwoNATs(b *testing.B) {
	for _, kind := range []lab.Kind{lab.PortRestricted, lab.AddressRestricted} { // the kernel's, and one of ours
		b.Run(string(kind), func(b *testing.B) { benchmarkUDP(b, kind) })
	}
}

func benchmarkUDP(b *testing.B, kind lab.Kind) {
	from, to, _, addr := twoNATs(b, kind)
	const seg, count = 1400, 45
	pump(b, from, to, addr, make([]byte, seg*count), segmentSize(seg))
}

// pump sends what is in batch over and over, and reads what comes.
func pump(b *testing.B, from, to sock, addr netip.AddrPort, batch, oob []byte) {
	to.control(func(fd int) error {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if _, _, err := from.WriteMsgUDPAddrPort(batch, oob, addr); err != nil {
					return
				}
				runtime.Gosched()
			}
		}
	}()
	buf := make([]byte, 1<<16)
	if err := to.SetReadDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(batch)))
	b.ResetTimer()
	for range b.N {
		for got := 0; got < len(batch); {
			n, _, err := to.ReadFromUDPAddrPort(buf)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
	b.StopTimer()
	close(stop)
	<-stopped
}
