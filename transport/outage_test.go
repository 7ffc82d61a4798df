package transport_test

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/transport"
)

// What was said while all ways to the peer were gone arrives soon after they are back, however far apart QUIC's attempts are by then.
func TestWordAfterOutage(t *testing.T) {
	const soon = 3 * time.Second // the last packet is repeated each second, and what was lost before follows
	lent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer lent.Close()
	for _, class := range []transport.Class{transport.Auto, transport.RelayOnly} {
		for _, outage := range []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute} {
			t.Run(fmt.Sprint(class, outage), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if d := wordAfter(t, lent, class, outage); d > soon {
						t.Errorf("it came %v after", d)
					}
				})
			})
		}
	}
}

// wordAfter returns how long after an outage the word arrives that was said at its beginning.
func wordAfter(t *testing.T, lent *net.UDPConn, class transport.Class, outage time.Duration) time.Duration {
	var out atomic.Pointer[netip.AddrPort] // cut off
	m := newMesh(func(from, to netip.AddrPort) int {
		if a := out.Load(); a != nil && (from == *a || to == *a) {
			return 0
		}
		return ethernet
	})
	client, server := meshPair(t, m, lent, true)
	for _, p := range [][2]*transport.Endpoint{{client, server}, {server, client}} {
		if err := p[0].Admit(describe(p[1], "r"), class, false); err != nil {
			t.Fatal(err)
		}
	}
	far, err := server.Link(t.Context(), client.PeerID(), class)
	if err != nil {
		t.Fatal(err)
	}
	near, err := client.Link(t.Context(), server.PeerID(), class)
	if err != nil {
		t.Fatal(err)
	}
	s, err := near.OpenStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say := func(word string) {
		t.Helper()
		if _, err := s.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
	}
	say("x")
	in, err := far.AcceptStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hear := func() {
		t.Helper()
		if _, err := in.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	hear()
	time.Sleep(5 * time.Second)
	out.Store(&server.Candidates()[0])
	time.Sleep(time.Second)
	say("y")
	time.Sleep(outage)
	out.Store(nil)
	back := time.Now()
	hear()
	return time.Since(back)
}
