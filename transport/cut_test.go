package transport

import (
	"testing"
	"time"

	"github.com/fnwire/fnwire/transport/pieces"
	"github.com/fnwire/fnwire/transport/punch"
)

// Into a silence long packets go in pieces too, if the peer puts pieces together, and short ones as they are.
func TestCutIntoSilence(t *testing.T) {
	twoRelays(t, func(h *hub, r *remote, send func(string), home, _ *namedLeg, from func(*namedLeg)) {
		there := joining(r)
		long, short := string(shortPacket(1200)), string(shortPacket(100))
		r.measure(Auto, 0)
		silence := func() {
			send(long)
			time.Sleep(leastPatience)
			send(short)
			send(long)
		}
		silence()
		sent(t, "to a peer of which nothing is known", home, long, short, long)
		from(home)
		r.joins.Store(true)
		silence()
		got := home.take()
		if len(got) != 2+againAsked+3 || got[0] != "1:"+long || got[1] != "1:"+short || got[2+againAsked] != "1:"+long {
			t.Fatalf("sent %d packets", len(got))
		}
		var number uint16
		for _, question := range got[2 : 2+againAsked] {
			m, err := there.Open([]byte(question[2:]))
			if err != nil || len(question) != 2+len(long) {
				t.Errorf("a question of %d bytes, %v", len(question)-2, err)
			}
			number = m.Number
		}
		for i, piece := range got[2+againAsked+1:] {
			whole, err := there.Join(nil, []byte(piece[2:]))
			if err != nil || i == 1 && string(whole) != long {
				t.Errorf("piece %d: %d bytes, %v", i, len(whole), err)
			}
		}
		h.piece(h.tables.Load(), r, home, relayGeneration, there.Reply(nil, pieces.Message{Number: number}))
		from(home)
		send(long)
		sent(t, "when the question was answered", home, long)
	})
}

// joining gives a peer its end, and returns the other.
func joining(r *remote) *pieces.Codec {
	here, there := [32]byte{1}, [32]byte{2}
	r.pieces = pieces.New(here, there)
	return pieces.New(there, here)
}

// Questions are asked while long packets flow, in the size of those. Two that get no answer, while the peer is heard, mean that
// the way is too narrow, three that QUIC is to begin anew; an answer that it is not.
func TestMeasure(t *testing.T) {
	twoRelays(t, func(h *hub, r *remote, send func(string), home, _ *namedLeg, from func(*namedLeg)) {
		there := joining(r)
		long := string(shortPacket(1200))
		w := &r.talks[Auto].width
		// look returns the questions, and whether QUIC is to begin anew.
		look := func(flow, answer bool) (questions int, size int, narrow bool) {
			time.Sleep(mindEvery)
			if flow {
				send(long)
				send(long)
				from(home)
			}
			home.take()
			narrow = r.measure(Auto, 0)
			for _, q := range home.take() {
				m, err := there.Open([]byte(q[2:]))
				if err != nil {
					t.Fatal(err)
				}
				questions, size = questions+1, len(q)-2
				if answer {
					h.piece(h.tables.Load(), r, home, relayGeneration, there.Reply(nil, m))
				}
			}
			return questions, size, narrow
		}
		for i, c := range []struct {
			flow, answer    bool
			questions, size int
			narrow, cut     bool
		}{
			{questions: 0},
			{flow: true, questions: 0}, // of a path that was taken a moment ago
			{flow: true, questions: 1, size: pieces.HeaderBytes},
			{flow: true, questions: 1, size: pieces.HeaderBytes, answer: true},
			{flow: true, questions: 1, size: 1200, answer: true},
			{questions: 0},
			{flow: true, questions: 1, size: 1200},
			{flow: true, questions: againAsked, size: 1200},
			{flow: true, questions: againAsked, size: 1200, cut: true},
			{flow: true, questions: againAsked, size: 1200, narrow: true, answer: true},
			{questions: 0},
			{flow: true, questions: 1, size: 1200},
		} {
			n, size, narrow := look(c.flow, c.answer)
			if n != c.questions || size != c.size || narrow != c.narrow || w.cuts(relayGeneration) != c.cut {
				t.Errorf("look %d: %d questions of %d bytes, narrow %v, in pieces %v; want %+v", i, n, size, narrow, w.cuts(relayGeneration), c)
			}
		}
	})
}

// From farther away than the pause between two looks, an answer is waited for, and one that does not come is missed all the same.
func TestMeasureFarAway(t *testing.T) {
	twoRelays(t, func(h *hub, r *remote, send func(string), home, _ *namedLeg, from func(*namedLeg)) {
		const rtt, rto = 1500 * time.Millisecond, 1600 * time.Millisecond
		there := joining(r)
		r.joins.Store(true)
		long := string(shortPacket(1200))
		// talk sends long packets, is answered, and looks once a second.
		talk := func(seconds int, wide bool) (cut bool) {
			for range seconds {
				time.Sleep(mindEvery)
				send(long)
				send(long)
				from(home)
				home.take()
				r.measure(Auto, rto)
				for _, q := range home.take() {
					if m, err := there.Open([]byte(q[2:])); err == nil && wide {
						time.AfterFunc(rtt, func() { h.piece(h.tables.Load(), r, home, relayGeneration, there.Reply(nil, m)) })
					}
				}
				cut = cut || r.talks[Auto].width.cuts(relayGeneration)
			}
			return cut
		}
		if talk(60, true) {
			t.Error("in pieces on a path that is wide")
		}
		if !talk(10, false) {
			t.Error("not in pieces on one that is narrow")
		}
	})
}

func TestCuttingDoesNotAllocate(t *testing.T) {
	h, _, _, r, _ := testHub(t, 2, punch.RouteDirect)
	h.v4 = sink{h.v4}
	joining(r)
	r.joins.Store(true)
	r.talks[Auto].width.cut.Store(widthOf(2, 1200))
	b, to := make([]byte, 10*1200), virtualAddr(r.short, 2)
	if n := testing.AllocsPerRun(100, func() { _ = h.send(Auto, b, 1200, to) }); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
	if h.stats.cut.Load() == 0 {
		t.Error("nothing in pieces")
	}
}
