package udpx

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel refuses segments together with a disabled checksum (EINVAL), as broken interfaces do
// with EIO; the packets then go out singly, and GSO is not tried again.
func TestFallsBackToSingles(t *testing.T) {
	c, err := Listen("udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.udp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var oerr error
	if err := raw.Control(func(fd uintptr) {
		oerr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	}); err != nil || oerr != nil {
		t.Fatal(err, oerr)
	}
	if !c.gso.Load() {
		t.Fatal("GSO is off from the start")
	}
	if err := c.Write(make([]byte, 3000), 1000, 0, c.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if c.gso.Load() {
		t.Error("GSO is still on")
	}
	b := Batch{Buf: make([]byte, BufferBytes)}
	for got := 0; got < 3000; got += b.N {
		if err := c.Read(&b); err != nil {
			t.Fatal(err)
		}
	}
}

// Neither an unroutable destination nor an oversized packet is held against GSO.
func TestKeepsGSOAfterOtherErrors(t *testing.T) {
	c, err := Listen("udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Write(make([]byte, 3000), 1000, 0, netip.MustParseAddrPort("192.0.2.1:9")); err == nil {
		t.Error("sent from loopback to elsewhere")
	}
	if !c.gso.Load() {
		t.Error("GSO is off")
	}
}

func TestTransientErrnos(t *testing.T) {
	for _, e := range []unix.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENOBUFS, unix.EPERM, unix.ECONNREFUSED, unix.EAGAIN} {
		if err := classify(e); !IsTransient(err) || IsTooBig(err) {
			t.Errorf("%v: %v", e, err)
		}
	}
	if err := classify(unix.EMSGSIZE); !IsTooBig(err) || IsTransient(err) {
		t.Error(err)
	}
	if err := classify(unix.EBADF); IsTooBig(err) || IsTransient(err) {
		t.Error(err)
	}
}
