package transport

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/ident"
)

func meet(p *Endpoint, flight [][]byte, a *Attempt) Peer {
	return Peer{ID: p.PeerID(), Nonce: p.Nonce(), Flight: flight, Attempt: a}
}

// lossyLeg is a relay that loses everything.
type lossyLeg struct{ fakeLeg }

func (*lossyLeg) Send(ident.Short, uint32, []byte, int) error { return nil }

// TestHandshakeInHellos: offer and answer are enough for the caller to have a link, with no network at all. The
// callee has one when it has heard the caller once more.
func TestHandshakeInHellos(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, b := openPair(t) // a dials
	t.Run("client calls", func(t *testing.T) {
		attempt, err := a.Attempt(RelayOnly)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := b.AdmitCaller(meet(a, attempt.Flight(ctx), nil), RelayOnly, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Admit(meet(b, answer.Wait(ctx), attempt), RelayOnly, false); err != nil {
			t.Fatal(err)
		}
		l, err := a.Link(ctx, b.PeerID(), RelayOnly)
		if err != nil {
			t.Fatal(err)
		}
		if l.Peer() != b.PeerID() {
			t.Errorf("link with %s", l.Peer())
		}
		if b.Up(a.PeerID(), RelayOnly) != nil {
			t.Error("the callee has a link with an instance that has not proven its identity")
		}
		id := l.ID()
		if lost := a.LostLink(b.PeerID(), RelayOnly); id == (LinkID{}) || lost != (LinkID{}) {
			t.Errorf("link %x is up, and %x is lost", id, lost)
		}
		_ = l.Close()
		if lost := a.LostLink(b.PeerID(), RelayOnly); lost != id {
			t.Errorf("link %x has ended, and %x is lost", id, lost)
		}
	})
	t.Run("server calls", func(t *testing.T) {
		offer, err := b.Attempt(Auto)
		if err != nil {
			t.Fatal(err)
		}
		a.AddRelay(&lossyLeg{})
		peer := meet(b, offer.Flight(ctx), nil)
		peer.Relay = "r"
		answer, err := a.AdmitCaller(peer, Auto, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Admit(meet(a, answer.Wait(ctx), offer), Auto, false); err != nil {
			t.Fatal(err)
		}
		l, err := b.Link(ctx, a.PeerID(), Auto)
		if err != nil {
			t.Fatal(err)
		}
		if (l.ID() != LinkID{}) {
			t.Error("the handshake is done before its end")
		}
	})
}

// TestBothCall: of two that call each other the one that dials has begun when its own offer leaves, and what its peer's QUIC says to what it
// dials comes in the answer to that offer. With no network but offers and answers, a link needs all they carry.
func TestBothCall(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, b := openPair(t) // a dials
	a.AddRelay(&lossyLeg{})
	first, err := b.Attempt(RelayOnly)
	if err != nil {
		t.Fatal(err)
	}
	offer := meet(b, first.Flight(ctx), nil)
	offer.Relay = "r"
	answer, err := a.AdmitCaller(offer, RelayOnly, false)
	if err != nil {
		t.Fatal(err)
	}
	own, err := a.Attempt(RelayOnly)
	if err != nil {
		t.Fatal(err)
	}
	_ = own.Flight(ctx) // gets to b behind the answer
	r, err := b.admit(meet(a, nil, nil), RelayOnly)
	if err != nil {
		t.Fatal(err)
	}
	said := newFlight(true, &r.flights[RelayOnly], time.Minute)
	if err := b.Admit(meet(a, answer.Wait(ctx), first), RelayOnly, false); err != nil {
		t.Fatal(err)
	}
	if err := a.Admit(meet(b, said.Wait(ctx), own), RelayOnly, false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Link(ctx, b.PeerID(), RelayOnly); err != nil {
		t.Fatal(err)
	}
	if own.to.Load() != nil {
		t.Error("it has dialled twice")
	}
}

// TestAttemptPins: a member of the job that answers under an identity which it cannot prove gets no link.
func TestAttemptPins(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, b := openPair(t)
	attempt, err := a.Attempt(Auto)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.AdmitCaller(meet(a, attempt.Flight(ctx), nil), Auto, false)
	if err != nil {
		t.Fatal(err)
	}
	liar := meet(b, answer.Wait(ctx), attempt)
	if len(liar.Flight) == 0 {
		t.Fatal("no flight in the answer")
	}
	for liar.ID = otherID(t); !a.Dials(liar.ID); liar.ID = otherID(t) {
	}
	if err := a.Admit(liar, Auto, false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Link(ctx, liar.ID, Auto); err == nil || ctx.Err() != nil {
		t.Errorf("link: %v", err)
	}
}

func otherID(t *testing.T) peer.ID {
	t.Helper()
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	return id.Peer
}

// TestOnlyAnswersVouch: a first packet that came by the relay makes no link before the handshake is done.
func TestOnlyAnswersVouch(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	a, b := openPair(t)
	attempt, err := a.Attempt(Auto)
	if err != nil {
		t.Fatal(err)
	}
	first := attempt.Flight(ctx)
	if err := b.Admit(meet(a, nil, nil), Auto, false); err != nil {
		t.Fatal(err)
	}
	r := b.peers[a.PeerID()]
	f := newFlight(true, &r.flights[Auto], time.Minute)
	buf := getBuffer(b.hub.small)
	n := copy(buf.b, first[0])
	c := cutter{hub: b.hub, t: b.hub.tables.Load(), buf: buf, data: buf.b[:n]}
	c.fromRelay(r, 0, buf.b[:n], buf.b[:n])
	c.flush()
	buf.release()
	if len(f.Wait(ctx)) == 0 {
		t.Fatal("QUIC did not answer")
	}
	if b.Up(a.PeerID(), Auto) != nil {
		t.Error("a link with who has proven nothing")
	}
	if isVouched(r.relayAddr) || isVouched(virtualAddr(r.short, 0)) {
		t.Error("addresses of the network vouch")
	}
}

// TestAttemptExpires: nobody answers.
func TestAttemptExpires(t *testing.T) {
	a, b := openPair(t)
	attempt, err := a.Attempt(Auto)
	if err != nil {
		t.Fatal(err)
	}
	<-attempt.done
	if attempt.err == nil {
		t.Error("connected to nobody")
	}
	if len(attempt.Flight(t.Context())) > 0 {
		t.Error("a flight of an attempt that has ended")
	}
	if err := a.Admit(meet(b, nil, attempt), Auto, false); err != nil {
		t.Fatal(err)
	}
	if attempt.to.Load() != nil {
		t.Error("adopted when it had ended")
	}
	if _, err := a.Attempt(DirectOnly); !errors.Is(err, ErrNoDirect) {
		t.Errorf("directly: %v", err)
	}
	for range 100 {
		if len(a.hub.tables.Load().attempts) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("its address stays")
}

func TestFlightIsBounded(t *testing.T) {
	f := newFlight(true, nil, time.Minute)
	for range 10 {
		if !f.add(bytes.Repeat([]byte{0xc0}, 1280), 0) {
			t.Error("a packet of the handshake was refused")
		}
	}
	if f.add([]byte{0x40}, 0) {
		t.Error("a packet of another stage was taken")
	}
	if got := f.Wait(t.Context()); len(got) != MaxFlight/1280 {
		t.Errorf("%d packets", len(got))
	}
	if f.add([]byte{0xc0}, 0) {
		t.Error("a packet was taken when the flight had left")
	}
}

// TestLateFlight: QUIC writes its first packet when the offer has left without it.
func TestLateFlight(t *testing.T) {
	packet := bytes.Repeat([]byte{0xc0}, 1200)
	f := newFlight(false, nil, time.Minute)
	if len(f.take()) > 0 {
		t.Error("a packet from nowhere")
	}
	if !f.add(packet, 0) || len(f.take()) != 1 {
		t.Error("it is not kept for resend")
	}
	if f.add(packet, 0) {
		t.Error("a repetition was taken")
	}
	var at atomic.Pointer[Flight]
	f = newFlight(true, &at, time.Minute)
	f.take()
	if f.add(packet, 0) {
		t.Error("kept, and nobody sends it")
	}
}

// TestEndsShort: datagrams as in RFC 9000, 12.2.
func TestEndsShort(t *testing.T) {
	initial := []byte{0xc0, 0, 0, 0, 1, 2, 9, 9, 1, 8, 0, 0x40, 3, 1, 2, 3} // no token, 3 bytes
	handshake := []byte{0xe0, 0, 0, 0, 1, 0, 0, 2, 1, 2}
	short := []byte{0x40, 1, 2, 3}
	for name, c := range map[string]struct {
		b    []byte
		want bool
	}{
		"nothing":           {nil, false},
		"short":             {short, true},
		"initial":           {initial, false},
		"initial handshake": {append(bytes.Clone(initial), handshake...), false},
		"all three":         {append(append(bytes.Clone(initial), handshake...), short...), true},
		"cut off":           {initial[:9], false},
		"too long":          {initial[:len(initial)-1], false},
		"retry":             {append([]byte{0xf0}, initial[1:]...), false},
	} {
		if got := endsShort(c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzEndsShort(f *testing.F) {
	for _, b := range hostile.Of(
		[]byte{0xc0, 0, 0, 0, 1, 2, 9, 9, 1, 8, 0, 0x40, 3, 1, 2, 3},
		[]byte{0xe0, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, ok := longLen(append([]byte{0x80}, b...))
		if ok && (n <= 0 || n > len(b)+1) {
			t.Fatalf("%d of %d bytes", n, len(b)+1)
		}
		if endsShort(b) && len(b) == 0 {
			t.Fatal("nothing ends short")
		}
	})
}
