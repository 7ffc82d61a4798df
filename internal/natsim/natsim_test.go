package natsim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var (
	start  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	inner  = netip.MustParseAddrPort("10.0.0.2:4000")
	public = netip.MustParseAddr("198.51.100.1")
	x1     = netip.MustParseAddrPort("203.0.113.1:1")
	x2     = netip.MustParseAddrPort("203.0.113.1:2")
	y1     = netip.MustParseAddrPort("203.0.113.9:1")
)

func rng() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }

// TestMapping follows RFC 4787, 4.1: which far endpoints share a mapped port.
func TestMapping(t *testing.T) {
	for _, tt := range []struct {
		kind                    Kind
		samePort, sameOtherHost bool
	}{
		{Kind{Mapping: EndpointIndependent}, true, true},
		{Kind{Mapping: AddressDependent}, true, false},
		{Kind{Mapping: AddressPortDependent}, false, false},
		{Kind{Mapping: AddressPortDependent, Preserve: true}, true, true},
	} {
		n := NewNAT(tt.kind, public, rng())
		out := func(far netip.AddrPort) netip.AddrPort {
			a, ok := n.Outbound(start, inner, far)
			if !ok || a.Addr() != public {
				t.Fatalf("%v: %v, %v", tt.kind, a, ok)
			}
			return a
		}
		m := out(x1)
		if m != out(x1) || (m == out(x2)) != tt.samePort || (m == out(y1)) != tt.sameOtherHost {
			t.Errorf("%v: %v, %v, %v", tt.kind, m, out(x2), out(y1))
		}
		if tt.kind.Preserve != (m.Port() == inner.Port()) {
			t.Errorf("%v: port %d", tt.kind, m.Port())
		}
	}
}

// TestFiltering follows RFC 4787, 5: who may answer.
func TestFiltering(t *testing.T) {
	for _, tt := range []struct {
		filtering         Behaviour
		itself, port, any bool
	}{
		{EndpointIndependent, true, true, true},
		{AddressDependent, true, true, false},
		{AddressPortDependent, true, false, false},
	} {
		n := NewNAT(Kind{Filtering: tt.filtering}, public, rng())
		m, _ := n.Outbound(start, inner, x1)
		for from, want := range map[netip.AddrPort]bool{x1: tt.itself, x2: tt.port, y1: tt.any} {
			got, ok := n.Inbound(start, from, m.Port())
			if ok != want || ok && got != inner {
				t.Errorf("%v from %v: %v, %v", tt.filtering, from, got, ok)
			}
		}
		if _, ok := n.Inbound(start, x1, m.Port()+1); ok {
			t.Errorf("%v: unmapped port", tt.filtering)
		}
	}
}

// TestStep: new mappings, whoever makes them, take ports in order, skip those in use, and wrap.
func TestStep(t *testing.T) {
	for _, step := range []int{1, 2, 5, -1, -3} {
		n := NewNAT(Kind{Mapping: AddressPortDependent, Step: step}, public, rng())
		a, _ := n.Outbound(start, inner, x1)
		b, _ := n.Outbound(start, netip.MustParseAddrPort("10.0.0.3:1"), x1)
		again, _ := n.Outbound(start, inner, x1)
		c, _ := n.Outbound(start, inner, x2)
		if again != a || int(b.Port())-int(a.Port()) != step || int(c.Port())-int(b.Port()) != step {
			t.Errorf("step %d: %v, %v, %v, then %v", step, a, b, c, again)
		}
	}
	n := NewNAT(Kind{Mapping: AddressPortDependent, Step: 1}, public, rng())
	n.last = 65534
	got := []uint16{}
	for i := range 3 {
		a, _ := n.Outbound(start, inner, netip.AddrPortFrom(y1.Addr(), uint16(i+1)))
		got = append(got, a.Port())
	}
	n.last = 65533
	a, _ := n.Outbound(start, inner, netip.AddrPortFrom(y1.Addr(), 9))
	if got = append(got, a.Port()); fmt.Sprint(got) != "[65535 1024 1025 65534]" {
		t.Error(got)
	}
	n.last = 65533
	if a, _ := n.Outbound(start, inner, netip.AddrPortFrom(y1.Addr(), 10)); a.Port() != 1026 {
		t.Errorf("took %d, which is in use", a.Port())
	}
}

// TestPerMapping: a symmetric NAT of the strict sort lets a peer in by the mapping made for it only.
func TestPerMapping(t *testing.T) {
	for _, strict := range []bool{false, true} {
		n := NewNAT(Kind{Mapping: AddressPortDependent, Filtering: AddressPortDependent, PerMapping: strict}, public, rng())
		forX, _ := n.Outbound(start, inner, x1)
		forY, _ := n.Outbound(start, inner, y1)
		if _, ok := n.Inbound(start, y1, forY.Port()); !ok {
			t.Error("its own mapping")
		}
		if _, ok := n.Inbound(start, y1, forX.Port()); ok == strict {
			t.Errorf("strict %v: another's mapping %v", strict, ok)
		}
	}
}

func TestNoPortLeft(t *testing.T) {
	n := NewNAT(Kind{Mapping: AddressPortDependent, Step: 1, Timeout: time.Minute}, public, rng())
	for i := range portCount {
		if _, ok := n.Outbound(start, inner, netip.AddrPortFrom(y1.Addr(), uint16(i))); !ok {
			t.Fatalf("full after %d", i)
		}
	}
	if n.Mappings(start) != portCount {
		t.Error(n.Mappings(start))
	}
	if _, ok := n.Outbound(start, inner, x1); ok {
		t.Error("more mappings than ports")
	}
	later := start.Add(time.Minute)
	if _, ok := n.Outbound(later, inner, x1); !ok || n.Mappings(later) != 1 {
		t.Errorf("%d mappings after the time-out", n.Mappings(later))
	}
}

func TestTimeout(t *testing.T) {
	n := NewNAT(Kind{Timeout: 10 * time.Second}, public, rng())
	first, _ := n.Outbound(start, inner, x1)
	if again, _ := n.Outbound(start.Add(9*time.Second), inner, x1); again != first {
		t.Error("mapping changed before its time")
	}
	if _, ok := n.Inbound(start.Add(18*time.Second), x1, first.Port()); !ok {
		t.Error("mapping ended before its time")
	}
	if _, ok := n.Inbound(start.Add(19*time.Second), x1, first.Port()); ok {
		t.Error("mapping outlived its time")
	}
}

func TestTwoHostsShareNoPort(t *testing.T) {
	n := NewNAT(Kind{Preserve: true}, public, rng())
	a, _ := n.Outbound(start, inner, x1)
	b, _ := n.Outbound(start, netip.MustParseAddrPort("10.0.0.3:4000"), x1)
	if a == b || a.Port() != 4000 {
		t.Errorf("%v and %v", a, b)
	}
}

func TestNetwork(t *testing.T) {
	net := New(1, start, 30*time.Millisecond)
	net.LANDelay = time.Millisecond
	nat := net.AddNAT(Kind{Filtering: AddressPortDependent, Hairpin: true}, public)
	server, client := net.AddHost(x1, nil), net.AddHost(inner, nat)
	neighbour := net.AddHost(netip.MustParseAddrPort("10.0.0.3:5000"), nat)
	stranger := net.AddHost(y1, nil)
	var log []string
	for name, h := range map[string]*Host{"server": server, "client": client, "neighbour": neighbour} {
		h.Receive = func(now time.Time, from netip.AddrPort, data []byte) {
			log = append(log, fmt.Sprintf("%v %s from %v: %s", now.Sub(start), name, from, data))
			if h == server {
				h.Send(from, []byte("answer"))
			}
		}
	}
	mapped, _ := client.MappedFor(x1)
	client.Send(x1, []byte("ask"))
	stranger.Send(mapped, []byte("filtered"))
	client.Send(neighbour.Addr(), []byte("inside"))
	net.Run(time.Second)
	want := fmt.Sprint([]string{
		"1ms neighbour from 10.0.0.2:4000: inside",
		fmt.Sprintf("30ms server from %v: ask", mapped),
		"61ms client from 203.0.113.1:1: answer",
	})
	if got := fmt.Sprint(log); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !net.Now().Equal(start.Add(time.Second)) {
		t.Errorf("now %v", net.Now())
	}

	// A hairpin needs both to have sent to the other's mapped address.
	log = nil
	other, _ := neighbour.MappedFor(x1)
	client.Send(other, []byte("first"))
	neighbour.Send(mapped, []byte("hairpin"))
	net.Run(time.Second)
	if got := fmt.Sprint(log); got != fmt.Sprintf("[1.001s client from %v: hairpin]", other) {
		t.Error(got)
	}

	// A host that moved is not where it was.
	log = nil
	client.Move(netip.MustParseAddrPort("203.0.113.77:7"), nil)
	server.Send(mapped, []byte("gone"))
	client.Send(x1, []byte("moved"))
	net.Run(50 * time.Millisecond)
	if got := fmt.Sprint(log); got != "[2.03s server from 203.0.113.77:7: moved]" {
		t.Error(got)
	}
}

func TestLossAndMTU(t *testing.T) {
	net := New(1, start, time.Millisecond)
	a, b := net.AddHost(x1, nil), net.AddHost(y1, nil)
	got := 0
	b.Receive = func(time.Time, netip.AddrPort, []byte) { got++ }
	net.Loss = func(_, _ netip.Addr) float64 { return 0.25 }
	for range 10000 {
		a.Send(y1, []byte("x"))
	}
	net.Run(time.Second)
	if got < 7300 || got > 7700 {
		t.Errorf("%d of 10000 arrived at 25 %% loss", got)
	}
	net.Loss = func(_, _ netip.Addr) float64 { return 0 }
	net.MTU, got = 3, 0
	a.Send(y1, []byte("four"))
	a.Send(y1, []byte("ok"))
	net.Run(time.Second)
	if got != 1 {
		t.Errorf("%d arrived", got)
	}
}

// A host behind a port-restricted NAT asks a server and has its answer after two delays.
func Example() {
	net := New(1, start, 20*time.Millisecond)
	nat := net.AddNAT(Kind{Filtering: AddressPortDependent, Preserve: true}, public)
	client, server := net.AddHost(inner, nat), net.AddHost(x1, nil)
	server.Receive = func(now time.Time, from netip.AddrPort, data []byte) {
		fmt.Println(now.Sub(start), "server:", string(data), "from", from)
		server.Send(from, []byte("pong"))
	}
	client.Receive = func(now time.Time, from netip.AddrPort, data []byte) {
		fmt.Println(now.Sub(start), "client:", string(data), "from", from)
	}
	client.Send(x1, []byte("ping"))
	net.Run(time.Second)
	// Output:
	// 20ms server: ping from 198.51.100.1:4000
	// 40ms client: pong from 203.0.113.1:1
}
