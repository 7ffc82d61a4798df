package lab_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// A host with a network sends from any address of it, and gets what is sent there.
func TestAddNetwork(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "many"}, lab.Host{Name: "one"}, lab.Host{Name: "hidden", NAT: lab.PortRestricted})
	if err := l.AddNetwork("many", netip.MustParsePrefix("198.18.0.0/16")); err != nil {
		t.Fatal(err)
	}
	open := func(host, addr string) (c *net.UDPConn) {
		t.Helper()
		if err := l.Do(host, func() (err error) {
			c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		return c
	}
	one := open("one", netip.AddrPortFrom(l.Addr("one"), 7).String())
	buf := make([]byte, 10)
	for _, addr := range []string{"198.18.1.2:9", "198.18.255.254:9"} {
		many := open("many", addr)
		if _, err := many.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(l.Addr("one"), 7)); err != nil {
			t.Fatal(err)
		}
		_, from, err := one.ReadFromUDPAddrPort(buf)
		if err != nil || from.String() != addr {
			t.Fatalf("from %v, %v", from, err)
		}
		if _, err := one.WriteToUDPAddrPort([]byte("and back"), from); err != nil {
			t.Fatal(err)
		}
		if _, _, err := many.ReadFromUDPAddrPort(buf); err != nil {
			t.Fatal(err)
		}
	}
	for host, network := range map[string]string{"hidden": "198.18.0.0/16", "one": "198.51.100.0/28", "many": "fd00::/64", "nobody": "198.18.0.0/16"} {
		if err := l.AddNetwork(host, netip.MustParsePrefix(network)); err == nil {
			t.Errorf("%s got %s", host, network)
		}
	}
}
