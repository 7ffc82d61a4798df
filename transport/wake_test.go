package transport

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/transport/punch"
)

// A link that was left on the relay and idle is tried directly again when something flows, and not for keep-alives.
func TestRelayedTrafficWakesPunching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, _, _, _ := testHub(t, 0, punch.RouteRelay)
		r := newRemote(h, "other", ident.Short{3}, punch.New(punch.Config{Key: [32]byte{1}, Controlling: true}))
		r.moved = func() {}
		id := "r"
		r.relayID.Store(&id)
		r.ctx, r.stop = t.Context(), func() {}
		done := make(chan struct{})
		go func() { defer close(done); r.run() }()
		send := func() {
			if err := h.sendPeer(r, Auto, relayGeneration, shortPacket(30), 30); err != nil {
				t.Error(err)
			}
		}
		probes := func() int {
			synctest.Wait()
			n := len(w.sent)
			w.sent = nil
			r.wake() // so that run sees it
			synctest.Wait()
			return n
		}
		there := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:9")}
		r.post(punch.SetLocal{})
		send()
		r.post(punch.Start{Remote: there})
		time.Sleep(5 * time.Second)
		if probes() == 0 {
			t.Fatal("no round at the start")
		}
		time.Sleep(5 * time.Minute)
		probes()

		for range 8 {
			time.Sleep(15 * time.Second)
			send() // a keep-alive
			send() // an acknowledgement
		}
		if n := probes(); n != 0 {
			t.Errorf("%d probes for keep-alives", n)
		}
		time.Sleep(time.Minute)
		for range flowing {
			send()
		}
		time.Sleep(time.Second)
		if probes() == 0 {
			t.Error("no probe though something flows")
		}
	})
}
