package lab_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// Forty hosts that all talk to one another: more neighbors than the kernel keeps of itself.
func TestManyNeighbors(t *testing.T) {
	const n, port = 40, 9
	hosts := make([]lab.Host, n)
	for i := range hosts {
		hosts[i].Name = fmt.Sprint("h", i)
	}
	l := labtest.New(t, hosts...)
	conns := make([]*net.UDPConn, n)
	for i, h := range hosts {
		if err := l.Do(h.Name, func() (err error) {
			conns[i], err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conns[i].Close() })
	}
	for i, c := range conns {
		for j, h := range hosts {
			if i == j {
				continue
			}
			if _, err := c.WriteToUDPAddrPort([]byte{byte(i)}, netip.AddrPortFrom(l.Addr(h.Name), port)); err != nil {
				t.Errorf("from %s to %s: %v", hosts[i].Name, h.Name, err)
			}
		}
	}
	for j, c := range conns {
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		from := make(map[byte]bool)
		for len(from) < n-1 {
			b := make([]byte, 1)
			if _, err := c.Read(b); err != nil {
				t.Fatalf("%s has heard %d of %d others: %v", hosts[j].Name, len(from), n-1, err)
			}
			from[b[0]] = true
		}
	}
}
