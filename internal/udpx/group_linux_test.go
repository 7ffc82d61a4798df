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

// Frames of one kind reach the last socket, from whatever source; others are spread by four of their bytes.
func TestSteer(t *testing.T) {
	for network, address := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
		t.Run(network, func(t *testing.T) {
			group, err := udpx.ListenGroup(network, netip.MustParseAddrPort(address), 3)
			if err != nil {
				t.Skipf("no %s: %v", network, err)
			}
			defer func() {
				for _, c := range group {
					_ = c.Close()
				}
			}()
			if !udpx.Steer(group, 0x21, 8) {
				t.Fatal("the kernel does not steer")
			}
			b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
			for source := range 16 {
				c := listen(t, network, address)
				for _, f := range []struct {
					frame string
					want  int
				}{
					{"!", 2},
					{"!1234567\x00\x00\x00\x00", 2},
					{" 1234567\x00\x00\x00\x00", 0},
					{" 1234567\x00\x00\x00\x01 and more", 1},
					{" short", 0},
				} {
					if err := c.Write([]byte(f.frame), 0, 0, group[0].LocalAddr()); err != nil {
						t.Fatal(err)
					}
					if err := group[f.want].SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
						t.Fatal(err)
					}
					if err := group[f.want].Read(&b); err != nil || string(b.Buf[:b.N]) != f.frame {
						t.Fatalf("source %d, %q: socket %d has %q, %v", source, f.frame, f.want, b.Buf[:b.N], err)
					}
				}
			}
		})
	}
}
