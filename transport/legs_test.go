package transport

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/transport/punch"
)

// namedLeg is a fakeLeg that may fail.
type namedLeg struct {
	fakeLeg
	id     string
	silent bool
}

func (l *namedLeg) ID() string   { return l.id }
func (l *namedLeg) Usable() bool { return !l.silent }
func (l *namedLeg) Addr() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, l.id[0]}), 3478)
}

// twoRelays runs f with a hub in virtual time, whose peer's home is relay h; o is another.
func twoRelays(t *testing.T, f func(h *hub, r *remote, send func(string), home, other *namedLeg, from func(*namedLeg))) {
	synctest.Test(t, func(t *testing.T) {
		h, _, _, r, _ := testHub(t, 0, punch.RouteRelay)
		home, other := &namedLeg{id: "h"}, &namedLeg{id: "o"}
		r.relayID.Store(&home.id)
		h.legs.Store(&map[string]Relay{"h": home, "o": other})
		h.update(func(t *tables) { t.legs = map[netip.AddrPort]Relay{home.Addr(): home, other.Addr(): other} })
		send := func(packet string) {
			t.Helper()
			if err := h.sendPeer(r, Auto, relayGeneration, []byte(packet), len(packet)); err != nil {
				t.Error(err)
			}
		}
		from := func(l *namedLeg) { // something of the peer comes by a relay
			b := append([]byte{0x20, 0, 2, 0, 0, 0, 0, 0, 0, 0}, shortPacket(20)...)
			h.dispatchRelayed(l, b, len(b))
		}
		f(h, r, send, home, other, from)
	})
}

func sent(t *testing.T, when string, l *namedLeg, want ...string) {
	t.Helper()
	got := l.take()
	if len(got) != len(want) {
		t.Errorf("%s: by %s %q, want %q", when, l.id, got, want)
		return
	}
	for i := range want {
		if got[i] != "1:"+want[i] {
			t.Errorf("%s: by %s %q, want %q", when, l.id, got, want)
		}
	}
}

// A peer whose home relay has lost it, while this side's leg to that relay is well, is reached by another.
func TestHomeThatLostThePeer(t *testing.T) {
	twoRelays(t, func(_ *hub, _ *remote, send func(string), home, other *namedLeg, from func(*namedLeg)) {
		send("1")
		from(home)
		send("2")
		time.Sleep(asideAfter / 2)
		send("3")
		sent(t, "at first", home, "1", "2", "3")
		sent(t, "at first", other)
		time.Sleep(asideAfter)
		send("4")
		sent(t, "after a silence", home, "4")
		sent(t, "after a silence", other, "4")
		from(other)
		send("5")
		sent(t, "when it came by the other", home)
		sent(t, "when it came by the other", other, "5")
		from(other)
		time.Sleep(shunFor)
		send("6")
		sent(t, "much later", home, "6")
		sent(t, "much later", other)
	})
}

// The last word of a conversation is never answered; that is no silence.
func TestTrailingAcknowledgement(t *testing.T) {
	twoRelays(t, func(h *hub, r *remote, send func(string), home, other *namedLeg, from func(*namedLeg)) {
		send("question")
		from(home)
		send("thanks")
		time.Sleep(quietFor + time.Second)
		send("another")
		sent(t, "after a pause", home, "question", "thanks", "another")
		sent(t, "after a pause", other)
		if _, d := r.talks[Auto].silent(h.now()); d != 0 {
			t.Errorf("counts as silent for %v", d)
		}
	})
}

// Whoever does not answer is silent for as long as that lasts, also when QUIC, after some attempts, asks again only after pauses longer than any of a conversation.
func TestSilenceLasts(t *testing.T) {
	twoRelays(t, func(h *hub, r *remote, send func(string), _, _ *namedLeg, from func(*namedLeg)) {
		send("thanks")
		wantSilent := func(want time.Duration) {
			t.Helper()
			if _, d := r.talks[Auto].silent(h.now()); d != want {
				t.Errorf("silent for %v, want %v", d, want)
			}
		}
		time.Sleep(time.Minute)
		wantSilent(0)
		send("question")
		time.Sleep(time.Second)
		send("again")
		time.Sleep(2 * quietFor)
		send("again")
		wantSilent(2*quietFor + time.Second)
		time.Sleep(quietFor)
		wantSilent(3*quietFor + time.Second)
		send("again")
		from(r.leg().(*namedLeg))
		wantSilent(0)
	})
}

// Hazard 6: what was sent last into a silence goes out again when there is another way, since QUIC's timers may be seconds away.
func TestLastPacketGoesAgain(t *testing.T) {
	twoRelays(t, func(h *hub, r *remote, send func(string), home, other *namedLeg, from func(*namedLeg)) {
		send("1")
		time.Sleep(recallAfter + time.Millisecond)
		send("2")
		sent(t, "at first", home, "1", "2")
		home.silent = true
		r.again()
		sent(t, "when the home is silent", home)
		sent(t, "when the home is silent", other, "2")
		from(other)
		r.again()
		sent(t, "when it was heard", other)

		time.Sleep(quietFor + time.Second)
		send("3")
		time.Sleep(recallAfter + time.Millisecond)
		send("4")
		other.take()
		r.publish(punch.State{Route: punch.RouteBoth, Path: peerAddr, Generation: relayGeneration + 1})
		r.again()
		sent(t, "when there is a direct path too", other, "4")
		_ = h
	})
}

// A relay that does not know the peer any more is left for a while.
func TestRelayDoesNotKnowPeer(t *testing.T) {
	twoRelays(t, func(h *hub, r *remote, send func(string), home, other *namedLeg, from func(*namedLeg)) {
		e := &Endpoint{hub: h}
		from(home)
		send("1")
		time.Sleep(recallAfter + time.Millisecond)
		send("2")
		home.take()
		e.RelayGone("o", r.short)
		e.RelayGone("h", ident.Short{9})
		sent(t, "as others are concerned", other)
		e.RelayGone("h", r.short)
		sent(t, "when the home says so", other, "2")
		send("3")
		sent(t, "when the home says so", other, "3")
		time.Sleep(goneFor)
		synctest.Wait()
		home.take() // again and again, since it is silent
		send("4")
		sent(t, "later", home, "4")
		other.take() // it has been silent
	})
}
