package udpx_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/udpx"
)

// TestGroupKeepsOthersOut: two relays on one port would each get half of the sources.
func TestGroupKeepsOthersOut(t *testing.T) {
	group, err := udpx.ListenGroup("udp4", netip.MustParseAddrPort("127.0.0.1:0"), 2)
	if err != nil {
		t.Fatal(err)
	}
	addr := group[0].LocalAddr()
	for _, n := range []int{1, 2} {
		other, err := udpx.ListenGroup("udp4", addr, n)
		if err == nil {
			t.Errorf("%d sockets of another group share the port", n)
		}
		for _, c := range other {
			_ = c.Close()
		}
	}
	// The group itself does share it: of many sources each socket gets some.
	for range 64 {
		if err := listen(t, "udp4", "127.0.0.1:0").Write([]byte("x"), 0, 0, addr); err != nil {
			t.Fatal(err)
		}
	}
	b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	for i, c := range group {
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := c.Read(&b); err != nil {
			t.Errorf("socket %d: %v", i, err)
		}
		_ = c.Close()
	}
}
