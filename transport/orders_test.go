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
			r.post(punch.Thawed{})
			r.post(punch.Start{Remote: there})
		}
		if n := len(r.orders.list); n != 4 {
			t.Errorf("%d orders wait, not the newest of each of 4 kinds", n)
		}
		if s, ok := r.orders.list[3].(punch.Start); !ok || len(s.Told) != 1 || len(s.Remote) != 1 {
			t.Errorf("the last order is %+v, not the newest Start with what the first says of the peer", r.orders.list[3])
		}
		go r.run()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(w.sent) == 0 {
			t.Error("no probe was sent: the Start is lost")
		}
	})
}

// After a freeze the machine learns at once when something is said to the peer; keep-alives and acknowledgements say nothing.
func TestSaidAfterFreeze(t *testing.T) {
	h, _, _, _, _ := testHub(t, 0, punch.RouteRelay)
	r := newRemote(h, "other", ident.Short{3}, punch.New(punch.Config{Key: [32]byte{1}}))
	told := func() bool {
		select {
		case <-r.kick:
			return true
		default:
			return false
		}
	}
	r.post(punch.Thawed{})
	if !told() {
		t.Error("the machine does not learn of the freeze")
	}
	for i, c := range []struct {
		bytes int
		told  bool
		said  int64
	}{{tiny, false, 0}, {tiny + 1, true, 2}, {1000, false, 3}, {1, false, 3}} {
		r.say(int64(i+1), c.bytes)
		if got := told(); got != c.told || r.said.Load() != c.said {
			t.Errorf("send %d, of %d bytes: told %v, and the last word is of %d; want %v, %d", i, c.bytes, got, r.said.Load(), c.told, c.said)
		}
	}
}
