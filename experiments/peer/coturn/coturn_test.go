package coturn_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/coturn"
)

func Example() {
	args := coturn.Args(netip.MustParseAddrPort("192.0.2.1:3478"))
	fmt.Println(args[1], args[3], slices.Contains(args, "--no-tls"))
	// Output: --listening-ip=192.0.2.1 --listening-port=3478 true
}

func TestServe(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = c.Close()
	s, _, err := coturn.Serve(t.Context(), addr)
	if errors.Is(err, peer.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.Usage(t.Context())
	if err != nil || u.MaxRSSBytes == 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// What is missing is named, with the command that installs it.
func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, _, err := coturn.Serve(context.Background(), netip.MustParseAddrPort("127.0.0.1:1"))
	if !errors.Is(err, peer.ErrMissing) {
		t.Errorf("got %v", err)
	}
}
