package lab_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/wan"
)

// meet has all hosts send to all twice, the first time to punch: the second time everybody must be heard.
func meet(t *testing.T, l *lab.Lab, socks []sock) {
	t.Helper()
	hosts := l.Hosts()
	for _, msg := range []string{"punch", "hello"} {
		for i, s := range socks {
			for j := range socks {
				if i != j {
					s.send(netip.AddrPortFrom(hosts[j].PublicAddr, socks[j].port()), msg)
				}
			}
		}
	}
	var g errgroup.Group
	for i, s := range socks {
		g.Go(func() error {
			heard := map[netip.AddrPort]bool{}
			for len(heard) < len(socks)-1 {
				msg, from, ok := s.recv(patience)
				if !ok {
					return fmt.Errorf("%s hears %d of %d others", hosts[i].Name, len(heard), len(socks)-1)
				}
				if msg == "hello" {
					heard[from] = true
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func knowNobody(t *testing.T, l *lab.Lab) {
	t.Helper()
	learned, err := l.Learned()
	if err != nil || len(learned) > 0 {
		t.Errorf("learned %d neighbours: %q, %v", len(learned), learned, err)
	}
}

// Hosts that all talk to all take nothing from the 1,024 neighbours that the kernel learns for all labs of the machine.
func TestManyTalkToAll(t *testing.T) {
	hosts := make([]lab.Host, 64)
	for i := range hosts {
		hosts[i] = lab.Host{Name: fmt.Sprint("h", i), NAT: lab.PortRestricted}
	}
	l := labtest.New(t, hosts...)
	var socks []sock
	for _, h := range hosts {
		socks = append(socks, listen(t, l, h.Name, 4000))
	}
	meet(t, l, socks)
	knowNobody(t, l)
}

// Nor do hosts of other kinds, over IPv6, by lines, or when addresses change.
func TestKindsKnowNobody(t *testing.T) {
	line := wan.Even(wan.Path{Delay: time.Millisecond})
	l := labtest.New(t, lab.Host{Name: "open"}, lab.Host{Name: "far", Line: line}, lab.Host{Name: "nat", NAT: lab.PortRestricted, Line: line},
		lab.Host{Name: "narrow", NAT: "port-restricted+mtu=1280"}, lab.Host{Name: "ours", NAT: lab.AddressRestricted}, lab.Host{Name: "shares", With: "ours"},
		lab.Host{Name: "cgn", NAT: lab.CGN}, lab.Host{Name: "flat", With: "cgn"},
		lab.Host{Name: "a6", NAT: lab.IPv6Firewall}, lab.Host{Name: "b6", NAT: lab.IPv6Firewall})
	open := listen(t, l, "open", 4000)
	all := func() {
		t.Helper()
		for _, h := range l.Hosts()[1:] {
			s := listen(t, l, h.Name, 0)
			s.send(at(l, "open", open), "ping")
			open.send(open.want("ping"), "pong")
			s.want("pong")
		}
		knowNobody(t, l)
	}
	all()
	open.send(netip.MustParseAddrPort("127.0.0.1:4000"), "myself")
	open.want("myself")

	ours, shares := listen(t, l, "ours", 4000), listen(t, l, "shares", 4000)
	ours.send(netip.AddrPortFrom(l.Addr("shares"), 4000), "inside")
	shares.send(shares.want("inside"), "inside")
	ours.want("inside")
	a, b := listen6(t, l, "a6"), listen6(t, l, "b6")
	for _, msg := range []string{"punch", "hello"} {
		a.send(netip.AddrPortFrom(l.Addr6("b6"), b.port()), msg)
		b.send(netip.AddrPortFrom(l.Addr6("a6"), a.port()), msg)
	}
	a.until("hello")
	b.until("hello")
	knowNobody(t, l)

	if _, err := l.ChangePublicAddr("nat"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ChangeAddr("narrow"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Narrow("narrow", "nat", 1000); err != nil {
		t.Fatal(err)
	}
	listen(t, l, "narrow", 0).send(netip.AddrPortFrom(l.PublicAddr("nat"), 4000), "to a port that is closed")
	all()
}

// What is for somebody who has never sent goes to nobody else.
func TestSilentHost(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "a"}, lab.Host{Name: "silent"}, lab.Host{Name: "other"},
		lab.Host{Name: "b", NAT: lab.FullCone}, lab.Host{Name: "mute", With: "b"}, lab.Host{Name: "third", With: "b"})
	for _, h := range [][3]string{{"a", "silent", "other"}, {"b", "mute", "third"}} {
		from, to := listen(t, l, h[0], 0), listen(t, l, h[1], 4000)
		from.send(netip.AddrPortFrom(l.Addr(h[1]), 4000), "hello")
		to.want("hello")
		err := l.Do(h[2], func() error {
			link, err := netlink.LinkByName("eth0")
			if err == nil && link.Attrs().Statistics.RxPackets > 0 {
				t.Errorf("%s gets what is for %s", h[2], h[1])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// listen6 opens a UDP socket on the IPv6 address of a host.
func listen6(t *testing.T, l *lab.Lab, host string) sock {
	t.Helper()
	var c *net.UDPConn
	err := l.Do(host, func() (err error) {
		c, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.Addr6(host), 0)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return sock{c, t}
}

func BenchmarkNew(b *testing.B) {
	for _, n := range []int{2, 64, lab.MaxHosts} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			hosts := make([]lab.Host, n)
			for i := range hosts {
				hosts[i] = lab.Host{Name: fmt.Sprint("h", i), NAT: lab.PortRestricted}
			}
			for b.Loop() {
				l, err := lab.New(b.Context(), lab.Spec{Hosts: hosts})
				if err != nil {
					labtest.Unavailable(b, err)
				}
				b.StopTimer()
				_ = l.Close()
				b.StartTimer()
			}
		})
	}
}
