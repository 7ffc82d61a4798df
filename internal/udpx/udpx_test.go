package udpx_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/udpx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t testing.TB, network, addr string) *udpx.Conn {
	t.Helper()
	c, err := udpx.Listen(network, netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	return c
}

var families = []struct{ name, network, addr string }{
	{"IPv4", "udp4", "127.0.0.1:0"},
	{"IPv6", "udp6", "[::1]:0"},
}

// collect reads until it has as many bytes, and returns the packets apart.
func collect(t testing.TB, c *udpx.Conn, total int, ecn byte, from netip.AddrPort) (packets [][]byte, reads int) {
	t.Helper()
	b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	for got := 0; got < total; reads++ {
		if err := c.Read(&b); err != nil {
			t.Fatalf("after %d of %d bytes: %v", got, total, err)
		}
		if b.From != from {
			t.Fatalf("from %v, want %v", b.From, from)
		}
		if udpx.HasECN && b.ECN != ecn {
			t.Fatalf("ECN %d, want %d", b.ECN, ecn)
		}
		for p := b.Buf[:b.N]; len(p) > 0; {
			n := min(b.Seg, len(p))
			packets = append(packets, bytes.Clone(p[:n]))
			p = p[n:]
		}
		got += b.N
	}
	return packets, reads
}

func TestBatches(t *testing.T) {
	tests := []struct {
		total, seg int
		ecn        byte
	}{
		{1, 0, 0}, {1200, 1200, 1}, {1200, 5000, 2}, {2400, 1200, 2}, {2401, 1200, 3}, {1350*64 - 7, 1350, 2},
		{1350 * 100, 1350, 1}, {60000, 60000, 0}, {130000, 60000, 0}, {300 * 20, 20, 2},
	}
	for _, f := range families {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/%d/%d", f.name, tt.total, tt.seg), func(t *testing.T) {
				a, b := listen(t, f.network, f.addr), listen(t, f.network, f.addr)
				data := make([]byte, tt.total)
				for i := range data {
					data[i] = byte(i / 3)
				}
				if err := a.Write(data, tt.seg, tt.ecn, b.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				packets, reads := collect(t, b, len(data), tt.ecn, a.LocalAddr())
				if got := bytes.Join(packets, nil); !bytes.Equal(got, data) {
					t.Fatal("bytes differ")
				}
				seg := tt.seg
				if seg == 0 {
					seg = len(data)
				}
				if want := (len(data) + seg - 1) / seg; len(packets) != want {
					t.Fatalf("%d packets in %d reads, want %d", len(packets), reads, want)
				}
				if udpx.HasGSO && seg == 1350 && reads > 4 {
					t.Errorf("%d packets took %d reads", len(packets), reads)
				}
			})
		}
	}
}

// A socket for both families tells an IPv4 peer by its IPv4 address and marks ECN for both.
func TestDualStack(t *testing.T) {
	d := listen(t, "udp", "[::]:0")
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			c := listen(t, f.network, f.addr)
			to := netip.AddrPortFrom(c.LocalAddr().Addr(), d.LocalAddr().Port())
			data := make([]byte, 3000)
			if err := c.Write(data, 1000, 2, to); err != nil {
				t.Fatal(err)
			}
			collect(t, d, len(data), 2, c.LocalAddr())
			for _, dst := range []netip.AddrPort{
				c.LocalAddr(),
				netip.AddrPortFrom(netip.AddrFrom16(c.LocalAddr().Addr().As16()), c.LocalAddr().Port()),
			} {
				if err := d.Write(data, 1000, 1, dst); err != nil {
					t.Fatal(err)
				}
				collect(t, c, len(data), 1, to)
			}
		})
	}
}

// A mapped destination works on an IPv4 socket too.
func TestMappedDestination(t *testing.T) {
	a, b := listen(t, "udp4", "127.0.0.1:0"), listen(t, "udp4", "127.0.0.1:0")
	to := netip.AddrPortFrom(netip.AddrFrom16(b.LocalAddr().Addr().As16()), b.LocalAddr().Port())
	if err := a.Write([]byte("x"), 0, 0, to); err != nil {
		t.Fatal(err)
	}
	collect(t, b, 1, 0, a.LocalAddr())
}

func TestTooBig(t *testing.T) {
	a := listen(t, "udp4", "127.0.0.1:0")
	if err := a.Write(make([]byte, 65508), 0, 0, a.LocalAddr()); !udpx.IsTooBig(err) || udpx.IsTransient(err) {
		t.Fatalf("got %v", err)
	}
}

func TestRefusedIsNotAReadError(t *testing.T) {
	a, gone, b := listen(t, "udp4", "127.0.0.1:0"), listen(t, "udp4", "127.0.0.1:0"), listen(t, "udp4", "127.0.0.1:0")
	to := gone.LocalAddr()
	_ = gone.Close()
	for range 3 {
		if err := a.Write([]byte("x"), 0, 0, to); err != nil && !udpx.IsTransient(err) {
			t.Fatal(err)
		}
	}
	if err := b.Write([]byte("y"), 0, 0, a.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	collect(t, a, 1, 0, b.LocalAddr())
}

func TestDeadlineAndClose(t *testing.T) {
	a := listen(t, "udp4", "127.0.0.1:0")
	b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	_ = a.SetReadDeadline(time.Now().Add(-time.Second))
	if err := a.Read(&b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	_ = a.SetReadDeadline(time.Time{})
	done := make(chan error)
	go func() { done <- a.Read(&b) }()
	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("got %v", err)
	}
}

func TestListenGroupSharesPort(t *testing.T) {
	g, err := udpx.ListenGroup("udp4", netip.MustParseAddrPort("127.0.0.1:0"), 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range g {
		if c.LocalAddr() != g[0].LocalAddr() {
			t.Errorf("%v and %v", c.LocalAddr(), g[0].LocalAddr())
		}
		_ = c.Close()
	}
}

func TestNoAllocations(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			a, b := listen(t, f.network, f.addr), listen(t, f.network, f.addr)
			data := make([]byte, 1350*20)
			batch := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
			n := testing.AllocsPerRun(200, func() {
				if err := a.Write(data, 1350, 2, b.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				for got := 0; got < len(data); got += batch.N {
					if err := b.Read(&batch); err != nil {
						t.Fatal(err)
					}
				}
			})
			if n != 0 {
				t.Errorf("%v allocations per batch", n)
			}
		})
	}
}

func Example() {
	a, err := udpx.Listen("udp4", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	_ = a.Write([]byte("onetwo3"), 3, 0, a.LocalAddr())
	b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	for got := 0; got < 7; got += b.N {
		if err := a.Read(&b); err != nil {
			fmt.Println(err)
			return
		}
		for p := b.Buf[:b.N]; len(p) > 0; p = p[min(b.Seg, len(p)):] {
			fmt.Println(string(p[:min(b.Seg, len(p))]))
		}
	}
	// Output:
	// one
	// two
	// 3
}

// One goroutine writes and reads in turn, so nothing is lost and the cost of both calls shows.
func BenchmarkBatch(b *testing.B) {
	for _, packets := range []int{1, 10, 46} {
		b.Run(fmt.Sprintf("packets=%d", packets), func(b *testing.B) {
			x, y := listen(b, "udp4", "127.0.0.1:0"), listen(b, "udp4", "127.0.0.1:0")
			_ = y.SetReadDeadline(time.Time{})
			data := make([]byte, 1350*packets)
			batch := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := x.Write(data, 1350, 0, y.LocalAddr()); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < len(data); got += batch.N {
					if err := y.Read(&batch); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N*packets)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}
