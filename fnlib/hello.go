package fnlib

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/transport"
	"github.com/fnwire/fnwire/transport/punch"
)

const (
	answerTimeout = 5 * time.Second // until a caller's acknowledgement
	maxAnswers    = 64              // under way at once; a caller that got none repeats its offer
)

// member is what the node knows of an instance, from verified hellos.
type member struct {
	name  string
	epoch uint64
	seq   uint64 // of the newest hello
	// called is when the instance has called, by class, if its link is on its way yet.
	called [rendezvous.ClassRelay + 1]time.Time
}

// offer seals an offer to the holder of a name, with the first flight of the call's attempt if there is one.
func (n *Node) offer(ctx context.Context, k callKey, c *call) (rendezvous.Envelope, error) {
	h := rendezvous.Hello{Kind: rendezvous.KindOffer, ToName: k.name, Class: uint8(k.path)}
	if c.attempt != nil {
		h.Flight = c.attempt.Flight(ctx)
	}
	n.mu.Lock()
	c.told = n.ep.Candidates()
	if id, m := n.memberLocked(k.name); m != nil {
		h.Lost = rendezvous.Nonce(n.ep.LostLink(id, k.path))
	}
	n.mu.Unlock()
	return n.hello(h)
}

// hello seals h, which says to whom, with what is known of this node now.
func (n *Node) hello(h rendezvous.Hello) (rendezvous.Envelope, error) {
	h.Job, h.FromName, h.FromPeer, h.Nonce = n.key.ID(), n.cfg.Name, n.id.Peer.String(), rendezvous.Nonce(n.ep.Nonce())
	h.Relay, h.RelayAddr = n.relays.where()
	n.mu.Lock()
	n.seq++
	h.Seq, h.FromEpoch = n.seq, n.epoch
	n.mu.Unlock()
	path := Path(h.Class)
	if path != RelayOnly {
		for _, a := range n.ep.Candidates() {
			h.Candidates = append(h.Candidates, rendezvous.Candidate{Addr: a, Kind: "host"})
		}
		if nat := n.ep.NAT().Punch(); nat.Mapping != punch.MappingUnknown {
			h.NAT = &rendezvous.NAT{Mapping: uint8(nat.Mapping), Step: nat.Step, Public: nat.Public}
		}
	}
	env, err := rendezvous.Seal(n.key, h)
	if err != nil {
		return env, fmt.Errorf("fnlib: %w", err)
	}
	return env, nil
}

// hints is what the node has seen of hard NATs, for the others of the job.
func (n *Node) hints() rendezvous.Hints {
	own, _ := n.ep.Outlooks()
	return rendezvous.Hints(own)
}

// queueHello is called by the rendezvous client and must not block: what does not fit is dropped, and
// repeated by its sender.
func (n *Node) queueHello(e rendezvous.Envelope) {
	if e.Kind == rendezvous.KindSaid { // whose sender takes it as said, and does not repeat it
		n.takeHello(e)
		return
	}
	select {
	case n.hellos <- e:
	default:
		n.log.Warn("fnlib: too many offers at once, one dropped")
	}
}

var errSuperseded = errors.New("fnlib: of an instance that a newer one has fenced off")

func (n *Node) runHellos() {
	for {
		select {
		case e := <-n.hellos:
			n.takeHello(e)
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) takeHello(e rendezvous.Envelope) {
	err := n.handleHello(e)
	if errors.Is(err, errSuperseded) { // it was parked while its sender departed
		n.log.Debug("fnlib: envelope refused", "kind", e.Kind, "from", e.FromName, "error", err)
	} else if err != nil {
		n.log.Warn("fnlib: envelope refused", "kind", e.Kind, "from", e.FromName, "error", err)
	}
}

// handleHello verifies an offer or answer and admits its sender. Everything after this trusts it.
func (n *Node) handleHello(e rendezvous.Envelope) error {
	h, err := rendezvous.Open(n.key, e, rendezvous.Self{Name: n.cfg.Name, Peer: n.id.Peer})
	if err != nil {
		return err
	}
	if h.Kind == rendezvous.KindStored {
		n.noticed(h.Stored)
		return nil
	}
	if h.Kind == rendezvous.KindSaid {
		return n.hearWord(h)
	}
	id, err := peer.Decode(h.FromPeer)
	if err != nil {
		return err
	}
	if h.Kind == rendezvous.KindEarly {
		h.Seq = 0 // what overtakes it, or it overtakes, is no older
		if _, err := n.learn(id, h); err != nil {
			return err
		}
		return n.takeEarly(id, h, e)
	}
	fresh, err := n.learn(id, h)
	if err != nil {
		return err
	}
	p := transport.Peer{ID: id, Nonce: transport.Nonce(h.Nonce), Relay: h.Relay}
	for _, c := range h.Candidates {
		p.Candidates = append(p.Candidates, c.Addr)
	}
	if nat := h.NAT; nat != nil {
		p.NAT = punch.NAT{Mapping: punch.Mapping(nat.Mapping), Step: nat.Step, Public: nat.Public}
	}
	n.ep.SetOutlooks(punch.Outlooks(n.client.Hints()))
	path := Path(h.Class)
	if fresh {
		p.Flight = h.Flight
	}
	if h.Joining {
		p.Relay, _ = n.relays.where() // it will bind there as well
	}
	n.mu.Lock()
	if c := n.calls[callKey{h.FromName, path}]; c != nil {
		p.Attempt = c.attempt
		if h.Kind == rendezvous.KindAnswer {
			p.Told = c.told
		}
	}
	n.mu.Unlock()
	if h.Kind == rendezvous.KindAnswer { // two may overtake each other
		if err := n.ep.Admit(p, path, false); err != nil {
			return err
		}
		n.answered(h, id)
		return nil
	}
	// A link that the caller does not know of has come up since it called, and stays.
	up := n.ep.Up(id, path)
	lost := fresh && up != nil && h.Lost != rendezvous.Nonce{} && transport.LinkID(h.Lost) == up.ID()
	flight, err := n.ep.AdmitCaller(p, path, lost)
	if err != nil {
		return err
	}
	n.answered(h, id) // who calls us needs not be called
	if err := n.reply(h, flight); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.members[id]; m != nil && fresh {
		m.called[path] = time.Now()
	}
	return nil
}

// reply answers an offer. Nobody waits for its acknowledgement: a caller that is frozen gives none, and
// must not hold up those behind it.
func (n *Node) reply(to rendezvous.Hello, flight *transport.Flight) error {
	select {
	case n.answers <- struct{}{}:
	default:
		return errors.New("too many answers under way")
	}
	n.wg.Go(func() {
		defer func() { <-n.answers }()
		ctx, cancel := context.WithTimeout(n.ctx, answerTimeout)
		defer cancel()
		env, err := n.hello(rendezvous.Hello{
			Kind: rendezvous.KindAnswer, ToName: to.FromName, ToPeer: to.FromPeer, InReplyTo: to.Seq, Class: to.Class,
			Flight: flight.Wait(ctx),
		})
		if err == nil {
			err = n.client.Answer(ctx, to.FromPeer, env)
		}
		if err != nil && n.ctx.Err() == nil {
			n.log.Debug("fnlib: answer not taken", "to", to.FromName, "error", err)
		}
	})
	return nil
}

// learn records who the sender is. fresh is false if a newer hello of it was seen: then it says
// nothing about whether the sender has a link. A fenced-off instance is refused.
func (n *Node) learn(id peer.ID, h rendezvous.Hello) (fresh bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p, m := range n.members {
		if m.name == h.FromName && p != id {
			if m.epoch > h.FromEpoch {
				return false, fmt.Errorf("%w: %q: epoch %d, now %d", errSuperseded, h.FromName, h.FromEpoch, m.epoch)
			}
			if m.epoch < h.FromEpoch && !n.linked(p) {
				delete(n.members, p)
			}
		}
	}
	m := n.members[id]
	if m == nil {
		if len(n.members) >= maxMembers && !n.forget() {
			return false, errors.New("too many peers")
		}
		n.members[id] = &member{name: h.FromName, epoch: h.FromEpoch, seq: h.Seq}
		return true, nil
	}
	m.epoch = max(m.epoch, h.FromEpoch)
	if h.Seq <= m.seq {
		return false, nil
	}
	m.seq = h.Seq
	return true, nil
}

// linked reports whether there is a link of any class to a peer.
func (n *Node) linked(id peer.ID) bool {
	for _, c := range []Path{Auto, DirectOnly, RelayOnly} {
		if n.ep.Up(id, c) != nil {
			return true
		}
	}
	return false
}

// forget makes room for a member. It runs under n.mu.
func (n *Node) forget() bool {
	for id := range n.members {
		if !n.linked(id) {
			delete(n.members, id)
			return true
		}
	}
	return false
}

// answered tells a waiting call that an instance of its name was admitted.
func (n *Node) answered(h rendezvous.Hello, id peer.ID) {
	n.mu.Lock()
	c := n.calls[callKey{h.FromName, Path(h.Class)}]
	n.mu.Unlock()
	if c == nil {
		return
	}
	select {
	case c.answer <- id:
	default:
	}
}

// nameOf returns the name that an admitted peer has proven to hold.
func (n *Node) nameOf(id peer.ID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.members[id]; m != nil {
		return m.name
	}
	return ""
}
