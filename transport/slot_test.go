package transport

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/transport/punch"
)

// deadLeg is a relay that never answers.
type deadLeg struct{ fakeLeg }

func (*deadLeg) Ready() <-chan struct{} { return make(chan struct{}) }
func (*deadLeg) Usable() bool           { return false }

// openPair returns two endpoints on loopback; the first one dials.
func openPair(t *testing.T, legs ...Relay) (a, b *Endpoint) {
	t.Helper()
	key := job.NewKey()
	var es [2]*Endpoint
	for i := range es {
		id, err := ident.New()
		if err != nil {
			t.Fatal(err)
		}
		e, err := Open(Config{Identity: id, Key: key, Listen4: netip.MustParseAddrPort("127.0.0.1:0"), NoIPv6: true})
		if err != nil {
			t.Fatal(err)
		}
		e.flightWait = time.Second // the machine may be busy
		t.Cleanup(func() { _ = e.Close() })
		for _, l := range legs {
			e.AddRelay(l)
		}
		es[i] = e
	}
	if es[0].Dials(es[1].PeerID()) {
		return es[0], es[1]
	}
	return es[1], es[0]
}

func admitTo(t *testing.T, e, p *Endpoint, relay string) {
	t.Helper()
	peer := Peer{ID: p.PeerID(), Nonce: p.Nonce(), Candidates: p.Candidates(), Relay: relay}
	if err := e.Admit(peer, Auto, false); err != nil {
		t.Fatal(err)
	}
}

// A peer whose relay cannot be reached from here is dialled directly.
func TestDialBesideDeadRelay(t *testing.T) {
	a, b := openPair(t, &deadLeg{})
	admitTo(t, a, b, "r")
	admitTo(t, b, a, "r")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	l, err := a.Link(ctx, b.PeerID(), Auto)
	if err != nil {
		t.Fatal(err)
	}
	if p := l.Status().Path; p != "direct" {
		t.Errorf("path %s", p)
	}
}

// A link that has ended is dialled anew even while its remains are being freed.
func TestDialWhileLinkIsFreed(t *testing.T) {
	a, b := openPair(t)
	admitTo(t, a, b, "")
	admitTo(t, b, a, "")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	old, err := a.Link(ctx, b.PeerID(), Auto)
	if err != nil {
		t.Fatal(err)
	}
	old.mu.Lock() // so that follow cannot free its legs
	defer old.mu.Unlock()
	_ = old.Close()
	admitTo(t, a, b, "")
	l, err := a.Link(ctx, b.PeerID(), Auto)
	if err != nil || l == old {
		t.Fatalf("%v, the old one: %v", err, l == old)
	}
}

// Once a link has refused a stream, nobody is given that link again. (QUIC ends its streams first, and says later that it has ended.)
func TestRefusingLinkIsDown(t *testing.T) {
	a, b := openPair(t)
	admitTo(t, b, a, "")
	for range 20 {
		admitTo(t, a, b, "")
		l, err := a.Link(t.Context(), b.PeerID(), Auto)
		if err != nil {
			t.Fatal(err)
		}
		go l.Break()
		for err == nil {
			var s *Stream
			if s, err = l.OpenStream(t.Context()); err == nil {
				s.Reset(0)
			}
		}
		if !errors.Is(err, ErrLinkClosed) {
			t.Errorf("error %v", err)
		}
		if a.Up(b.PeerID(), Auto) == l {
			t.Fatal("still up")
		}
	}
}

// A peer that could not be dialled, or that nobody waits for any more, makes room for others.
func TestFailedPeerIsEvicted(t *testing.T) {
	a, b := openPair(t)
	admitTo(t, b, a, "")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Link(ctx, a.PeerID(), Auto); err == nil {
		t.Fatal("linked with nobody")
	}
	b.mu.Lock()
	evicted := b.evict()
	n := len(b.links)
	b.mu.Unlock()
	if !evicted || n != 0 {
		t.Errorf("evicted: %v, %d slots left", evicted, n)
	}
	if _, err := b.Link(t.Context(), a.PeerID(), Auto); err == nil {
		t.Error("link to a peer that is not admitted")
	}
}

// Generations may be skipped, so their parity says nothing about which leg is in use.
func TestLegInUseIsLeftAlone(t *testing.T) {
	h, _, _, r, _ := testHub(t, 0, punch.RouteRelay)
	l := &Link{e: &Endpoint{hub: h}, peer: r}
	used := l.shimFor(3)
	l.next = 1 - l.next // as upgrade does
	if l.shimFor(5) == used || l.legs[0].gen.Load() != 3 {
		t.Error("the leg in use was given away")
	}
}

// A deadline that is replaced just as it expires must not be closed twice.
func TestDeadlineReplacedAsItExpires(t *testing.T) {
	h, _, _, _, _ := testHub(t, 0, punch.RouteRelay)
	for i := range 3000 {
		p := newPort(h, Auto)
		_ = p.SetReadDeadline(time.Now().Add(time.Duration(i%30) * time.Microsecond))
		for end := time.Now().Add(15 * time.Microsecond); time.Now().Before(end); {
		}
		_ = p.SetReadDeadline(time.Now())
		if _, _, err := p.ReadFrom(nil); err == nil {
			t.Fatal("no error")
		}
	}
}
