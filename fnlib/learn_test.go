package fnlib_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/natsim"
)

// loseUDP has what both functions send lost for a while, STUN alone or everything, and counts the STUN requests of a.
func (w *bubble) loseUDP(a *function, d time.Duration, stunOnly bool) (asked func() int) {
	until, stun, requests := time.Now().Add(d), false, 0
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = func(from, to netip.AddrPort, b []byte) {
		if stun = b[0] < 4; stun && from == a.socket.addr {
			requests++
		}
	}
	w.lose = func(from netip.AddrPort) bool {
		return from.Port() == a.socket.addr.Port() && time.Now().Before(until) && (stun || !stunOnly)
	}
	return func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return requests
	}
}

// talk calls b from a, and returns the path of the link then and some time later.
func talk(t *testing.T, a, b *fnlib.Node, d time.Duration) (first, later string) {
	l, err := b.Listen("x")
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Dial(t.Context(), "b:x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	first = c.Link().Path
	time.Sleep(d)
	return first, c.Link().Path
}

// Functions that could not learn their mapped addresses when they joined do so as soon as they can, and links that exist go direct.
func TestAddressIsLearntLater(t *testing.T) {
	bubbles := func(name string, f func(t *testing.T, w *bubble, a, b *function)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := bubbleWithoutRelay(t, rtt)
				a, b := w.functions(true, [2]*natsim.NAT{w.nat(1, portRestricted), w.nat(2, portRestricted)})
				f(t, w, a, b)
			})
		})
	}
	bubbles("no relay yet", func(t *testing.T, w *bubble, a, b *function) {
		m, _ := b.join()
		n, _ := a.join()
		time.Sleep(time.Second)
		w.addRelay("r1", relayMain, relaySTUN)
		time.Sleep(time.Second)
		if first, _ := talk(t, n, m, 0); first != "direct" {
			t.Errorf("path is %q", first)
		}
	})
	bubbles("UDP lost", func(t *testing.T, w *bubble, a, b *function) {
		w.addRelay("r1", relayMain, relaySTUN)
		w.loseUDP(a, 2100*time.Millisecond, false) // two joins
		m, _ := b.join()
		n, _ := a.join()
		time.Sleep(2 * time.Second)
		if first, _ := talk(t, n, m, 0); first != "direct" {
			t.Errorf("path is %q", first)
		}
	})
	bubbles("STUN lost", func(t *testing.T, w *bubble, a, b *function) {
		w.addRelay("r1", relayMain, relaySTUN)
		w.loseUDP(a, 10*time.Second, true)
		m, _ := b.join()
		n, _ := a.join()
		if first, later := talk(t, n, m, 20*time.Second); first != "relay" || later != "direct" {
			t.Errorf("path is %q, then %q", first, later)
		}
	})
	for name, c := range map[string]struct {
		stunOnly bool
		most     int // requests in an hour
	}{
		"no STUN": {true, 500}, // at each bind, as for a new token, and in pauses that double, to 5 min; each time five to each of two servers
		"no UDP":  {false, 8},  // of the join
	} {
		bubbles(name, func(t *testing.T, w *bubble, a, _ *function) {
			w.addRelay("r1", relayMain, relaySTUN)
			asked := w.loseUDP(a, 2*time.Hour, c.stunOnly)
			a.join()
			time.Sleep(time.Hour)
			if got := asked(); got > c.most {
				t.Errorf("%d requests in an hour", got)
			}
		})
	}
}
