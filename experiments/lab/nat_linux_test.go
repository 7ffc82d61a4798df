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

// tcpPasses tells whether a host reaches another by TCP at a port of its public address; 0 is any.
func tcpPasses(t *testing.T, l *lab.Lab, from, to string, port uint16, within time.Duration) bool {
	t.Helper()
	var ln net.Listener
	err := l.Do(to, func() (err error) {
		ln, err = net.Listen("tcp4", fmt.Sprint("0.0.0.0:", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := netip.AddrPortFrom(l.PublicAddr(to), ln.Addr().(*net.TCPAddr).AddrPort().Port())
	return l.Do(from, func() error {
		c, err := net.DialTimeout("tcp4", at.String(), within)
		if err == nil {
			c.Close()
		}
		return err
	}) == nil
}

// A full cone lets others in only where the host has sent from; it is no port forwarding.
func TestFullConeNeedsMapping(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "x"}, lab.Host{Name: "y"}, lab.Host{Name: "h", NAT: lab.FullCone})
	x, y, h := listen(t, l, "x", 0), listen(t, l, "y", 0), listen(t, l, "h", 0)
	y.send(at(l, "h", h), "too early")
	h.send(at(l, "x", x), "open")
	x.send(x.want("open"), "answer")
	if before := h.until("answer"); len(before) > 0 {
		t.Errorf("received %q before there was a mapping", before)
	}
	y.send(at(l, "h", h), "now")
	if from := h.want("now"); from != at(l, "y", y) {
		t.Errorf("source is %v, want %v", from, at(l, "y", y))
	}
}

// A packet that nobody asked for must not occupy the mapping: a later punch would get another port.
func TestUnsolicitedPacketsStealNoMapping(t *testing.T) {
	for _, kind := range []lab.Kind{lab.FullCone, lab.PortRestricted} {
		t.Run(string(kind), func(t *testing.T) {
			l := labtest.New(t, lab.Host{Name: "x"}, lab.Host{Name: "h", NAT: kind})
			x, h := listen(t, l, "x", 0), listen(t, l, "h", 0)
			for range 3 {
				x.send(at(l, "h", h), "unsolicited")
			}
			h.send(at(l, "x", x), "hello")
			if from := x.want("hello"); from != at(l, "h", h) {
				t.Errorf("mapped to %v, want the port preserved: %v", from, at(l, "h", h))
			}
			x.send(at(l, "h", h), "hello back")
			h.until("hello back")
		})
	}
}

func TestHolePunching(t *testing.T) {
	kinds := []lab.Kind{
		lab.None, lab.FullCone, lab.PortRestricted, lab.Symmetric, "full-cone+remap", lab.AddressRestricted, "port-restricted+mtu=1280",
		lab.CGN, lab.Sequential,
	}
	hosts := []lab.Host{{Name: "stun"}}
	for i, k := range kinds {
		hosts = append(hosts, lab.Host{Name: fmt.Sprint("a", i), NAT: k}, lab.Host{Name: fmt.Sprint("b", i), NAT: k})
	}
	l := labtest.New(t, hosts...)
	for i, ka := range kinds {
		for j, kb := range kinds[i:] {
			way, err := lab.Expect(ka, kb, false)
			if err != nil {
				t.Fatal(err)
			}
			want := way == lab.WayPunch // nothing else is tried here
			t.Run(fmt.Sprintf("%s/%s", ka, kb), func(t *testing.T) {
				a, b := fmt.Sprint("a", i), fmt.Sprint("b", i+j)
				if got := punch(t, l, a, b); got != want {
					t.Errorf("punched: %v, want %v", got, want)
				}
			})
		}
	}
}

// punch has two hosts learn their mapped addresses and send to each other's for some rounds.
func punch(t *testing.T, l *lab.Lab, hostA, hostB string) bool {
	type end struct {
		sock
		peer netip.AddrPort
		got  bool
	}
	stun := listen(t, l, "stun", 0)
	a, b := &end{sock: listen(t, l, hostA, 0)}, &end{sock: listen(t, l, hostB, 0)}
	mapped := func(s sock) netip.AddrPort {
		s.send(at(l, "stun", stun), "who am I")
		return stun.want("who am I")
	}
	a.peer, b.peer = mapped(b.sock), mapped(a.sock)
	for range 10 {
		for _, e := range []*end{a, b} {
			e.send(e.peer, "punch")
		}
		for _, e := range []*end{a, b} {
			for _, from, ok := e.recv(moment / 5); ok; _, from, ok = e.recv(time.Millisecond) {
				e.got, e.peer = true, from
			}
		}
		if a.got && b.got {
			return true
		}
	}
	return false
}

func TestBlock(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "relay"}, lab.Host{Name: "a", NAT: lab.PortRestricted}, lab.Host{Name: "b", NAT: lab.PortRestricted})
	relay, a, b := listen(t, l, "relay", 0), listen(t, l, "a", 0), listen(t, l, "b", 0)
	pass := func(from sock, to sock, addr netip.AddrPort, within time.Duration) bool {
		from.send(addr, "ping")
		_, _, ok := to.recv(within)
		return ok
	}
	wait := map[bool]time.Duration{true: patience, false: moment}
	atA, atB := at(l, "a", a), at(l, "b", b)
	check := func(when string, wantAB, wantBA bool) {
		t.Helper()
		if got := pass(a, b, atB, wait[wantAB]); got != wantAB {
			t.Errorf("%s: a to b passes: %v, want %v", when, got, wantAB)
		}
		if got := pass(b, a, atA, wait[wantBA]); got != wantBA {
			t.Errorf("%s: b to a passes: %v, want %v", when, got, wantBA)
		}
		for name, s := range map[string]sock{"a": a, "b": b} {
			if !pass(s, relay, at(l, "relay", relay), patience) || !pass(relay, s, at(l, name, s), patience) {
				t.Errorf("%s: %s and the relay do not reach each other", when, name)
			}
		}
	}
	must := func(f func() error, err error) func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	}
	pass(a, b, atB, moment) // punch
	pass(b, a, atA, patience)
	check("at first", true, true)
	unblock := must(l.Block("a", "b"))
	check("blocked", false, false)
	oneWay := must(l.BlockOneWay("a", "b"))
	unblock()
	unblock()
	check("blocked one way", false, true)
	oneWay()
	check("unblocked", true, true)
	udp := must(l.BlockUDP("b", "a"))
	check("UDP blocked", false, false)
	udp()
	check("at last", true, true)

	udp = must(l.BlockUDP("a", "relay"))
	if pass(a, relay, at(l, "relay", relay), moment) || !tcpPasses(t, l, "a", "relay", 0, patience) {
		t.Error("with UDP blocked between a and relay, UDP passes or TCP does not")
	}
	udp()
	if _, err := l.Block("a", "nobody"); err == nil {
		t.Error("Block with an unknown host succeeds")
	}
	if _, err := l.Block("a", "a"); err == nil {
		t.Error("Block of a host from itself succeeds")
	}
}
