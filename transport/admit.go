package transport

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/transport/pieces"
	"github.com/fnwire/fnwire/transport/punch"
)

// forgetAfter is how long a peer without a link is kept: longer than it may take it for one that stands (idleTimeout).
const forgetAfter = 10 * time.Minute

// Peer is what a verified offer or answer says about its sender.
type Peer struct {
	ID         peer.ID
	Nonce      Nonce
	Candidates []netip.AddrPort
	NAT        punch.NAT // what it is behind, as far as it says
	Relay      string    // ID of its home relay; "" = none

	// Flight is what the offer or answer carries of a QUIC handshake. It must come from one that is newer than
	// all before of this peer; otherwise leave it out.
	Flight [][]byte
	// Attempt is this side's own, which went with the offer that the peer answers, or with one to a peer that
	// offers at the same time; nil if there is none. It is adopted or cancelled.
	Attempt *Attempt
	// Told are this side's candidates in the offer that the peer answers. If others are known by now, it is told of them
	// over the relay. nil: it answers none, and needs not be told.
	Told []netip.AddrPort
}

// Admit lets a peer in: its packets are accepted from now on, its candidates are probed unless class
// is RelayOnly, and if dialling is this side's part (see Dials) a link is dialled. With renew, a link
// that is up is replaced, since the peer has told that it has none.
func (e *Endpoint) Admit(p Peer, class Class, renew bool) error {
	r, err := e.admit(p, class)
	if err != nil {
		return err
	}
	if e.Dials(p.ID) {
		adopted := e.dial(r, class, renew, p.Attempt, false) != nil
		switch {
		case len(p.Flight) > 0 && e.Up(p.ID, class) == nil:
			// It is of the connection that is being dialled, also where that is not the attempt: if both sides offer, the peer's QUIC may answer
			// either in the same flight.
			e.hub.inject(r, class, p.Flight, r.relayAddr)
		case len(p.Flight) == 0 && adopted:
			p.Attempt.resend(r)
		}
	} else {
		// The answer vouches for whom QUIC's first packet is of, so it may be answered with data at once.
		src := virtualAddr(r.short, relayGeneration)
		src.Zone = vouched
		e.hub.inject(r, class, p.Flight, src)
	}
	e.begin(r, p, class)
	return nil
}

// AdmitCaller is Admit for the sender of an offer. The flight is for the answer; it is nil if there is none.
func (e *Endpoint) AdmitCaller(p Peer, class Class, renew bool) (*Flight, error) {
	r, err := e.admit(p, class)
	if err != nil {
		return nil, err
	}
	var f *Flight
	switch {
	case class == DirectOnly:
		if e.Dials(p.ID) {
			e.dial(r, class, renew, nil, false)
		}
	case e.Dials(p.ID):
		f = e.dial(r, class, renew, p.Attempt, r.leg() != nil)
	case len(p.Flight) > 0:
		f = newFlight(true, &r.flights[class], e.flightWait)
		e.hub.inject(r, class, p.Flight, r.relayAddr)
	}
	e.begin(r, p, class)
	return f, nil
}

func (e *Endpoint) admit(p Peer, class Class) (*remote, error) {
	if class >= classes {
		return nil, fmt.Errorf("transport: class %d is unknown", class)
	}
	if err := e.listen(class); err != nil {
		return nil, err
	}
	r, err := e.remote(p)
	if err != nil {
		return nil, err
	}
	if p.Relay != "" {
		r.relayID.Store(&p.Relay)
	}
	return r, nil
}

func (e *Endpoint) begin(r *remote, p Peer, class Class) {
	if p.Attempt != nil {
		p.Attempt.Cancel() // if it was of no use
	}
	e.hub.replay(r)
	if class == DirectOnly {
		r.direct.Store(e.hub.now()) // who does not dial has no traffic yet by which to tell that a path is wanted
	}
	if class != RelayOnly {
		r.post(punch.Start{Remote: p.Candidates, Told: p.Told, NAT: p.NAT, Outlooks: e.hub.outlooks.all()})
	}
}

// Dials reports whether this side is the QUIC client of its links with a peer. It is the one with
// the lower peer ID, whoever asked for the link: so two instances that call each other at the same
// moment end up with one link, without a tie to break.
func (e *Endpoint) Dials(id peer.ID) bool { return e.cfg.Identity.Peer < id }

// remote returns the peer's record, made if it is new.
func (e *Endpoint) remote(p Peer) (*remote, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	if r := e.peers[p.ID]; r != nil {
		if r.nonce != p.Nonce {
			// An instance has one nonce for life. Another one is no news of it, and would not open its probes.
			return nil, fmt.Errorf("transport: %s has another nonce than before", p.ID)
		}
		r.admitted = e.hub.now()
		return r, nil
	}
	if len(e.peers) >= MaxPeers && !e.evict() {
		return nil, ErrTooMany
	}
	pub, err := ident.PublicKey(p.ID)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	key := e.probeKey(p.Nonce)
	short := ident.ShortOf(e.cfg.Key.ID(), pub)
	m := punch.New(punch.Config{Key: key, Controlling: e.Dials(p.ID), NoRelay: true, Begun: e.hub.epoch}) // until run sees one
	m.Step(time.Now(), e.setLocal())
	r := newRemote(e.hub, p.ID, short, m)
	r.moved, r.nonce, r.tag, r.admitted = e.look, p.Nonce, punch.TagOf(key), e.hub.now()
	r.pieces = pieces.New(e.cfg.Key.MAC("packet piece", e.nonce[:], p.Nonce[:]), e.cfg.Key.MAC("packet piece", p.Nonce[:], e.nonce[:]))
	e.peers[p.ID] = r
	e.hub.update(func(t *tables) {
		t.peers[short] = r
		t.tags[r.tag] = r
	})
	r.ctx, r.stop = context.WithCancel(e.ctx)
	e.wg.Go(r.run)
	return r, nil
}

// evict forgets the peer without a link that has been idle longest. It runs under e.mu.
func (e *Endpoint) evict() bool {
	var victim *remote
	for _, r := range e.peers {
		if (victim == nil || r.idleSince() < victim.idleSince()) && !e.busy(r.id) {
			victim = r
		}
	}
	if victim == nil {
		return false
	}
	e.forget(victim)
	return true
}

// forgetIdle forgets peers that have been idle for long, and have no link.
func (e *Endpoint) forgetIdle() {
	e.mu.Lock()
	defer e.mu.Unlock()
	var idle []*remote
	for _, r := range e.peers {
		if r.since(r.idleSince()) > forgetAfter && !e.busy(r.id) {
			idle = append(idle, r)
		}
	}
	if len(idle) > 0 {
		e.forget(idle...)
	}
}

// idleSince is when something was sent to the peer, or it was admitted, in hub.now units: who was admitted a moment ago may be dialling.
// It runs under Endpoint.mu.
func (p *remote) idleSince() int64 { return max(p.used.Load(), p.admitted) }

// busy reports whether there is a link with a peer, or will be. It runs under e.mu.
func (e *Endpoint) busy(id peer.ID) bool {
	for class := range classes {
		if s := e.links[linkKey{id, class}]; s != nil && (s.link != nil || s.dialing || s.waiting > 0) {
			return true
		}
	}
	return false
}

// forget ends what there is of peers without links. It runs under e.mu.
func (e *Endpoint) forget(peers ...*remote) {
	for _, r := range peers {
		r.stop()
		r.endTalks()
		delete(e.peers, r.id)
		for class := range classes {
			delete(e.links, linkKey{r.id, class}) // at most the error of the last attempt
		}
	}
	e.hub.update(func(t *tables) {
		for _, r := range peers {
			delete(t.peers, r.short)
			delete(t.tags, r.tag)
			if path := r.route.Load().path; t.paths[path] == r {
				delete(t.paths, path)
			}
		}
	})
}

// probeKey authenticates punch probes between this instance and one peer. Both sides get the same key.
func (e *Endpoint) probeKey(theirs Nonce) [32]byte {
	a, b := e.nonce, theirs
	if slices.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	return e.cfg.Key.MAC("punch probe", a[:], b[:])
}
