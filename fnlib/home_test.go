package fnlib_test

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/natsim"
	relayframe "github.com/fnwire/fnwire/relay"
)

// A node whose home relay has become the farther one moves to the nearer one, says nothing for that but the pings of its legs, and
// stays there while the two waver. A caller reaches it by the new home.
func TestNodeMovesToNearerRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		main2, stun2 := netip.MustParseAddrPort("192.0.2.2:3478"), netip.MustParseAddrPort("192.0.2.2:3479")
		w.addRelay("r2", main2, stun2)
		var first, second atomic.Int64 // one way, to each relay
		first.Store(int64(20 * time.Millisecond))
		second.Store(int64(60 * time.Millisecond))
		w.mu.Lock()
		w.net.Delay = func(from, to netip.Addr) time.Duration {
			switch {
			case from == relayMain.Addr() || to == relayMain.Addr():
				return time.Duration(first.Load())
			case from == main2.Addr() || to == main2.Addr():
				return time.Duration(second.Load())
			}
			return rtt / 2
		}
		w.mu.Unlock()
		a, b := w.functions(true, [2]*natsim.NAT{})
		m, _ := b.join()
		homeOf := func() (id string) {
			for _, r := range m.Relays() {
				if r.Home {
					id = r.ID
				}
			}
			return id
		}
		frames := make(map[byte]int)
		w.mu.Lock()
		w.sent = func(from, to netip.AddrPort, p []byte) {
			if from == b.socket.addr && (to == relayMain || to == main2) {
				frames[p[0]]++
			}
		}
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		if got := homeOf(); got != "r1" {
			t.Fatalf("home is %q", got)
		}
		first.Store(int64(45 * time.Millisecond)) // nearer by less than a third: not worth it
		second.Store(int64(35 * time.Millisecond))
		time.Sleep(10 * time.Minute)
		if got := homeOf(); got != "r1" {
			t.Errorf("left for a relay that is hardly nearer: %q", got)
		}
		first.Store(int64(60 * time.Millisecond))
		second.Store(int64(20 * time.Millisecond))
		time.Sleep(10 * time.Minute)
		if got := homeOf(); got != "r2" {
			t.Errorf("home is %q, though another is nearer by two thirds", got)
		}
		first.Store(int64(35 * time.Millisecond))
		second.Store(int64(45 * time.Millisecond))
		time.Sleep(10 * time.Minute)
		if got := homeOf(); got != "r2" {
			t.Errorf("back for a relay that is hardly nearer: %q", got)
		}
		w.mu.Lock()
		for kind, n := range frames {
			switch kind {
			case relayframe.TypeBind, relayframe.TypeProve: // with new tokens
			case relayframe.TypePing:
				if most := 2 * 40 * 6; n > most { // in 40 minutes, a ping in 15 s, more or less a tenth, for each relay, and some after binds
					t.Errorf("%d pings, want at most %d", n, most)
				}
			default:
				t.Errorf("%d frames of type %#x", n, kind)
			}
		}
		data := 0
		w.sent = func(from, to netip.AddrPort, p []byte) {
			if from == a.socket.addr && to == main2 && p[0] == relayframe.TypeData {
				data++
			}
		}
		w.mu.Unlock()
		n, _ := a.join()
		if _, err := n.Ping(t.Context(), "b", fnlib.RelayOnly); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if data == 0 {
			t.Error("the caller does not use the new home")
		}
	})
}
