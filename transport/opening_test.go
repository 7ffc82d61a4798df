package transport

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What is said to a peer that has not bound yet is said again when a relay knows nothing of the peer, and again until something
// comes from it, by another relay too; but not for ever.
func TestOpening(t *testing.T) {
	twoRelays(t, func(h *hub, r *remote, send func(string), home, other *namedLeg, from func(*namedLeg)) {
		e := &Endpoint{hub: h}
		send("1")
		send("2")
		sent(t, "at first", home, "1", "2")
		e.RelayGone("h", r.short)
		e.RelayGone("h", r.short) // of the second packet
		for i := range reopenMost {
			time.Sleep(reopenFirst<<i - time.Nanosecond)
			synctest.Wait()
			sent(t, "before it is time", home)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			sent(t, "again", home, "1", "2")
			if i == 0 {
				sent(t, "while the home may come to know the peer", other)
			} else {
				sent(t, "when it does not soon", other, "1", "2")
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		sent(t, "in the end", home)
		e.RelayGone("h", r.short)
		send("3")
		sent(t, "when it does not", other, "3")
	})
	twoRelays(t, func(h *hub, r *remote, send func(string), home, _ *namedLeg, from func(*namedLeg)) {
		e := &Endpoint{hub: h}
		for range stashPackets + 1 {
			send("1")
		}
		home.take()
		e.RelayGone("h", r.short)
		time.Sleep(reopenFirst)
		synctest.Wait()
		sent(t, "again", home, slices.Repeat([]string{"1"}, stashPackets)...)
		e.RelayGone("h", r.short)
		from(home)
		time.Sleep(time.Second)
		synctest.Wait()
		sent(t, "when it has come", home)
		if r.opening.keep(relayGeneration, []byte("2"), 1); r.opening.packets != nil || r.reopen() {
			t.Error("packets are kept of a peer that has been heard")
		}
	})
	// Nobody answers.
	twoRelays(t, func(_ *hub, r *remote, send func(string), _, _ *namedLeg, _ func(*namedLeg)) {
		send("1")
		time.Sleep(stashFor)
		synctest.Wait()
		if r.opening.packets != nil || r.reopen() {
			t.Error("packets are kept for long")
		}
	})
}
