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

// After a freeze the machine learns at once when the peer is talked to, and what is said first is kept to be said again.
func TestTalkAfterFreeze(t *testing.T) {
	h, _, _, r, _ := testHub(t, 2, punch.RouteDirect)
	told := func() bool {
		select {
		case <-r.kick:
			return true
		default:
			return false
		}
	}
	keeps := func() bool {
		if err := h.sendPeer(r, Auto, 2, make([]byte, 30), 30); err != nil {
			t.Fatal(err)
		}
		t := &r.talks[Auto]
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.b) > 0
	}
	if r.dozing.Store(false); keeps() || told() {
		t.Error("a packet is kept, or told of, though nothing was frozen")
	}
	r.post(punch.Thawed{})
	if !told() {
		t.Error("the machine does not learn of the freeze")
	}
	if !keeps() || told() {
		t.Error("what is sent first is not kept, or QUIC's own packets are told of")
	}
	(&Link{peer: r, class: RelayOnly}).use()
	if told() || r.traffic().Used.After(h.epoch) {
		t.Error("what goes by the relay only is told of")
	}
	(&Link{peer: r, class: Auto}).use()
	if !told() || !r.traffic().Used.After(h.epoch) {
		t.Error("the machine does not learn that the peer is talked to")
	}
	if (&Link{peer: r, class: Auto}).use(); told() {
		t.Error("it learns of it twice")
	}
	r.post(punch.Thawed{})
	told()
	if r.relayHeard.Store(h.now()); told() {
		t.Error("told without a packet")
	}
	if r.talking() {
		t.Error("a talk without a stream")
	}
	if r.talks[Auto].owed.Store(1); !r.talking() || !r.traffic().Talking {
		t.Error("what the peer has to answer for certain is no talk")
	}
	r.wanted.Add(1)
	if used := r.traffic().Used; h.epoch.Add(time.Duration(h.now())).Sub(used) > time.Second {
		t.Errorf("who waits for a direct path has used it at %v", used)
	}
}
