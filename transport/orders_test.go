package transport

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/transport/punch"
)

// More probes than are queued come at once, as after a freeze: what the endpoint tells a state machine is not lost among them,
// and what it tells again and again does not pile up.
func TestFullQueueLosesNoOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, _, _, _ := testHub(t, 0, punch.RouteRelay)
		r := newRemote(h, "other", ident.Short{3}, punch.New(punch.Config{Key: [32]byte{1}, Controlling: true}))
		r.moved = func() {}
		r.ctx, r.stop = t.Context(), func() {}
		for range 2 * punchQueueSize {
			r.receivePunch(netip.MustParseAddrPort("192.0.2.9:9"), 0, []byte{0x10})
		}
		if n := h.stats.dropped.Load(); n != punchQueueSize {
			t.Errorf("%d probes were dropped, not the %d too many", n, punchQueueSize)
		}
		there := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:9")}
		r.post(punch.Start{Told: there})
		for range 1000 {
			r.post(punch.SetLocal{})
			r.post(punch.Disturbed{Reason: "test"})
			r.post(punch.Start{Remote: there})
		}
		if n := len(r.orders.list); n != 3 {
			t.Errorf("%d orders wait, not the newest of each of 3 kinds", n)
		}
		if s, ok := r.orders.list[2].(punch.Start); !ok || len(s.Told) != 1 || len(s.Remote) != 1 {
			t.Errorf("the last order is %+v, not the newest Start with what the first says of the peer", r.orders.list[2])
		}
		go r.run()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(w.sent) == 0 {
			t.Error("no probe was sent: the Start is lost")
		}
	})
}
