package transport_test

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnwire/fnwire/transport"
	"github.com/fnwire/fnwire/transport/punch"
)

// An idle link lasts, however long, as long as the peer does.
func TestIdleLink(t *testing.T) {
	inMesh(t, func(t *testing.T, lent *net.UDPConn) {
		m, gone := switchedMesh()
		client, server := meshPair(t, m, lent, true)
		classes := []transport.Class{transport.Auto, transport.RelayOnly}
		for _, class := range classes {
			meshLinks(t, client, server, class, "r")
		}
		time.Sleep(30 * time.Minute)
		for _, class := range classes {
			if client.Up(server.PeerID(), class) == nil || server.Up(client.PeerID(), class) == nil {
				t.Errorf("%v: the link is gone after half an hour", class)
			}
		}
		gone.Store(true)
		time.Sleep(4 * time.Minute)
		for _, class := range classes {
			if client.Up(server.PeerID(), class) != nil || server.Up(client.PeerID(), class) != nil {
				t.Errorf("%v: the link outlives the network by 4 minutes", class)
			}
		}
	})
}

// After a freeze nothing is sent to a peer that nobody talks to, for as long as a handler takes; later the link is looked after.
func TestThawIsQuiet(t *testing.T) {
	inMesh(t, func(t *testing.T, lent *net.UDPConn) {
		var last atomic.Pointer[time.Time] // packet
		var packets atomic.Int64
		m := newMesh(func(netip.AddrPort, netip.AddrPort) int {
			now := time.Now()
			last.Store(&now)
			packets.Add(1)
			return ethernet
		})
		client, server := meshPair(t, m, lent, false)
		lc, ls := meshLinks(t, client, server, transport.Auto, "")
		time.Sleep(5 * time.Minute)
		for time.Since(*last.Load()) < 24*time.Second { // until a keep-alive is due
			time.Sleep(time.Second)
		}
		before := packets.Load()
		client.Thaw()
		server.Thaw()
		time.Sleep(punch.ThawLeast - 10*time.Millisecond)
		if n := packets.Load() - before; n > 0 {
			t.Errorf("%d packets at once", n)
		}
		time.Sleep(punch.ThawMost + time.Second)
		if n := packets.Load() - before; n == 0 || n > 12 {
			t.Errorf("%d packets later, want some", n)
		}
		for range 600 { // functions that are thawed for less than a second each time
			time.Sleep(900 * time.Millisecond)
			client.Thaw()
			server.Thaw()
		}
		if lc.Err() != nil || ls.Err() != nil {
			t.Errorf("%v, %v", lc.Err(), ls.Err())
		}
	})
}

// What was said before a freeze and may be lost is said again right after it, if a stream is open.
func TestThawRepeats(t *testing.T) {
	inMesh(t, func(t *testing.T, lent *net.UDPConn) {
		m, out := switchedMesh()
		client, server := meshPair(t, m, lent, true)
		lc, ls := meshLinks(t, client, server, transport.RelayOnly, "r")
		s, err := lc.OpenStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		say := func() {
			if _, err := s.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		say()
		in, err := ls.AcceptStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		hear := func() time.Duration {
			began := time.Now()
			if _, err := in.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		hear()
		for i := range 5 {
			time.Sleep(10 * time.Second)
			out.Store(true)
			say()
			time.Sleep(4*time.Second + time.Duration(i)*200*time.Millisecond)
			out.Store(false)
			client.Thaw()
			if d := hear(); d > 100*time.Millisecond {
				t.Errorf("it comes %v after the thaw", d)
			}
		}
	})
}

// A talk lasts as long as a stream is open, at either end.
func TestTalking(t *testing.T) {
	inMesh(t, func(t *testing.T, lent *net.UDPConn) {
		m := newMesh(wide)
		client, server := meshPair(t, m, lent, true)
		for _, class := range []transport.Class{transport.RelayOnly, transport.Auto} {
			lc, ls := meshLinks(t, client, server, class, "r")
			want := func(what string, client, server bool) {
				t.Helper()
				if c, s := lc.Talking(), ls.Talking(); c != (client && class != transport.RelayOnly) || s != (server && class != transport.RelayOnly) {
					t.Errorf("%v: %s: talking %v, %v", class, what, c, s)
				}
			}
			want("no stream", false, false)
			s, err := lc.OpenStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			in, err := ls.AcceptStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want("a stream", true, true)
			if err := s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			want("half closed", true, true)
			for range 2 {
				_ = s.Close()
				s.Reset(1)
			}
			want("closed there", false, true)
			in.Reset(1)
			_ = in.Close()
			want("closed", false, false)
			if _, err := lc.OpenStream(t.Context()); err != nil {
				t.Fatal(err)
			}
			want("another", true, false)
			lc.Break()
			want("broken", false, false)
		}
	})
}

// switchedMesh is a mesh that loses all packets while off is set.
func switchedMesh() (m *mesh, off *atomic.Bool) {
	off = new(atomic.Bool)
	return newMesh(func(from, to netip.AddrPort) int {
		if off.Load() {
			return 0
		}
		return wide(from, to)
	}), off
}
