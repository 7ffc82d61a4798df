package server_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v2"

	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay/server"
)

// stunRequest is made by pion, with a SOFTWARE attribute of 4 + n bytes, or none for n < 0.
func stunRequest(t testing.TB, n int, fingerprint bool) []byte {
	t.Helper()
	set := []stun.Setter{stun.TransactionID, stun.BindingRequest}
	if n >= 0 {
		set = append(set, stun.NewSoftware(strings.Repeat("f", n)))
	}
	if fingerprint {
		set = append(set, stun.Fingerprint)
	}
	m, err := stun.Build(set...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// The responder is measured against pion/stun: both families, both ports, with and without FINGERPRINT.
func TestSTUN(t *testing.T) {
	for _, tt := range []struct{ name, network, relay, client string }{
		{"IPv4", "udp4", "127.0.0.1:0", "127.0.0.1:0"},
		{"IPv6", "udp6", "[::1]:0", "[::1]:0"},
		{"IPv4 at a wildcard", "udp4", "[::]:0", "127.0.0.1:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, server.Limits{})
			w.stop()
			w.cfg.Listen = netip.MustParseAddrPort(tt.relay)
			w.startRelay()
			c, err := udpx.Listen(tt.network, netip.MustParseAddrPort(tt.client))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			addrs := w.srv.STUNAddrs()
			if len(addrs) != 2 || addrs[0].Port() == addrs[1].Port() {
				t.Fatalf("addresses %v", addrs)
			}
			for _, to := range addrs {
				to = netip.AddrPortFrom(c.LocalAddr().Addr(), to.Port())
				for _, fingerprint := range []bool{false, true} {
					ask(t, c, to, fingerprint)
				}
			}
		})
	}
}

func ask(t *testing.T, c *udpx.Conn, to netip.AddrPort, fingerprint bool) {
	t.Helper()
	request := stunRequest(t, 20, fingerprint)
	if err := c.Write(request, 0, 0, to); err != nil {
		t.Fatal(err)
	}
	r := raw{Conn: c, w: &world{t: t}}
	answer := r.receive()
	if len(answer) > len(request) {
		t.Errorf("%d bytes for %d", len(answer), len(request))
	}
	m := &stun.Message{Raw: answer}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	var x stun.XORMappedAddress
	if err := x.GetFrom(m); err != nil {
		t.Fatal(err)
	}
	want := net.UDPAddrFromAddrPort(c.LocalAddr())
	if m.Type != stun.BindingSuccess || string(m.TransactionID[:]) != string(request[8:20]) || !x.IP.Equal(want.IP) || x.Port != want.Port {
		t.Errorf("got %v %v, want %v", m.Type, x, want)
	}
	if err := stun.Fingerprint.Check(m); (err == nil) != fingerprint {
		t.Errorf("fingerprint: %v", err)
	}
}

// The answer comes from the other port when asked for, to who asked, and is no longer.
func TestSTUNOtherPort(t *testing.T) {
	w := newWorld(t, server.Limits{})
	r := w.raw()
	addrs := w.srv.STUNAddrs()
	for i, to := range addrs {
		m, err := stun.Build(stun.TransactionID, stun.BindingRequest,
			stun.RawAttribute{Type: stun.AttrChangeRequest, Value: []byte{0, 0, 0, 2}}, stun.NewSoftware("fnwire"))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Write(m.Raw, 0, 0, to); err != nil {
			t.Fatal(err)
		}
		b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
		if err := errors.Join(r.SetReadDeadline(time.Now().Add(5*time.Second)), r.Read(&b)); err != nil {
			t.Fatal(err)
		}
		if b.From.Port() != addrs[1-i].Port() || b.N > len(m.Raw) || string(b.Buf[8:20]) != string(m.Raw[8:20]) {
			t.Errorf("asked %v: %d bytes from %v", to, b.N, b.From)
		}
	}
}

// Requests that are too short for their answer, that demand what is not known, or are no requests.
func TestSTUNSilence(t *testing.T) {
	w := newWorld(t, server.Limits{})
	r := w.raw()
	r.send(stunRequest(t, -1, false))
	r.send(stunRequest(t, 4, false))
	r.send(stunRequest(t, -1, true))
	bad := stunRequest(t, 20, true)
	bad[len(bad)-1] ^= 1
	r.send(bad)
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername("somebody of some length"))
	if err != nil {
		t.Fatal(err)
	}
	r.send(m.Raw)
	m, err = stun.Build(stun.TransactionID, stun.BindingSuccess, stun.NewSoftware("somebody of some length"))
	if err != nil {
		t.Fatal(err)
	}
	r.send(m.Raw)
	r.silence()
	if n := w.srv.Stats().STUN; n != 0 {
		t.Errorf("%d answered", n)
	}
}
