package flood_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/flood"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers each datagram with twice as much to some sources.
func echo(c *net.UDPConn, twice func(netip.AddrPort) bool) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		answer := buf[:n]
		if twice(from) {
			answer = buf[:2*n]
		}
		_, _ = c.WriteToUDPAddrPort(answer, from)
	}
}

// The loopback network is one that every host has.
func run(twice func(netip.AddrPort) bool, a flood.Args) (flood.Report, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return flood.Report{}, err
	}
	done := make(chan struct{})
	go func() { defer close(done); echo(c, twice) }()
	a.To = c.LocalAddr().(*net.UDPAddr).AddrPort()
	r, err := flood.Run(context.Background(), a)
	_ = c.Close()
	<-done
	return r, err
}

func args() flood.Args {
	return flood.Args{
		Network: netip.MustParsePrefix("127.18.0.0/16"), Addresses: 256, Rate: 2000, For: 300 * time.Millisecond,
		Frames: [][]byte{[]byte("one"), []byte("three")},
	}
}

func Example() {
	r, err := run(func(netip.AddrPort) bool { return false }, args())
	fmt.Println(r.Sent > 0, r.Received > 0, r.ReceivedBytes <= r.SentBytes, r.Exceeded, err)
	// Output: true true true 0 <nil>
}

// Addresses that got more than they sent are counted.
func TestExceeded(t *testing.T) {
	sources := make(map[netip.Addr]bool)
	r, err := run(func(from netip.AddrPort) bool {
		sources[from.Addr()] = true
		return from.Addr().As4()[2] == 7
	}, args())
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 128 {
		t.Errorf("%d sources", len(sources))
	}
	if r.Exceeded != 1 {
		t.Errorf("%d addresses exceeded, want 1: %+v", r.Exceeded, r)
	}
}

func TestBadArgs(t *testing.T) {
	for want, change := range map[string]func(*flood.Args){
		"network":         func(a *flood.Args) { a.Network = netip.MustParsePrefix("10.0.0.0/8") },
		"addresses":       func(a *flood.Args) { a.Addresses = 1 << 17 },
		"nothing to send": func(a *flood.Args) { a.Frames = nil },
	} {
		a := args()
		change(&a)
		if _, err := flood.Run(t.Context(), a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
