package fnlib

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/transport"
)

const (
	askTimeout  = 1500 * time.Millisecond
	doubtPause  = time.Second      // between two looks at all relays because of a path that failed
	rehomeEvery = 15 * time.Second // as often as an idle leg measures how near its relay is
	learnPause  = 5 * time.Minute  // the most between two times that STUN servers are asked which do not answer, though UDP passes
)

// disturbed notes that the process was frozen, or that addresses have changed.
func (n *Node) disturbed() {
	poke(n.disturbances)
	poke(n.remap) // what was mapped may be another router's
}

// doubted notes that a path has failed.
func (n *Node) doubted() { poke(n.doubts) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// runNetwork brings the node in line with a network that has changed, or may have: relays are asked whether they still know it,
// its mapped address is learnt anew, its name is renewed. It also takes a nearer relay for home, when there is one, and learns
// what the join had no time for.
func (n *Node) runNetwork() {
	rehome := time.NewTicker(rehomeEvery)
	defer rehome.Stop()
	answered := true  // by STUN, the last time
	var due time.Time // when to ask again, unless UDP comes up before
	pause := rehomeEvery
	for {
		select {
		case <-rehome.C:
			n.relays.look()
			switch {
			case answered && n.learnt():
				pause = rehomeEvery
			case n.relays.overUDP() && !time.Now().Before(due):
				answered = n.relearn()
				due, pause = time.Now().Add(pause), min(2*pause, learnPause)
			}
		case <-n.udpUp:
			if !answered || !n.learnt() {
				answered = n.relearn()
			}
		case <-n.disturbances:
			n.relays.check()
			n.client.Check()
			answered = n.relearn()
		case <-n.doubts:
			n.relays.check() // which tells if the NAT has another address now
			select {
			case <-time.After(doubtPause):
			case <-n.disturbances:
				n.disturbed() // first things first
			case <-n.ctx.Done():
				return
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// learnt tells whether STUN has shown where the node is. One answer has not, if there are more servers.
func (n *Node) learnt() bool {
	switch nat := n.ep.NAT(); nat.Mapping {
	case transport.MappingBlocked:
		return false
	case transport.MappingUnknown, "":
		return len(nat.Reflexive) >= len(n.relays.stunServers())
	}
	return true
}

// relearn asks the STUN servers again, for 3.1 s at most, which is how long a question is repeated, and reports whether one answers
// if there is any. What they answer goes to the peers.
func (n *Node) relearn() bool {
	servers := n.relays.stunServers()
	if len(servers) == 0 {
		return true
	}
	if _, err := n.ep.Discover(n.ctx, servers, stunSettle); err != nil && n.ctx.Err() == nil {
		n.log.Warn("fnlib: own address unknown, direct paths are unlikely", "error", err)
		if n.relays.overTLS() {
			n.ep.SetBlocked()
		}
		return false
	}
	return true
}

// gone asks about a linked peer that has been silent since a time. A process that is frozen is not gone, however long its lease has
// been over: it is unless its connection is, or it has no link, or another instance has its name.
func (n *Node) gone(ctx context.Context, id peer.ID, since time.Time) bool {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	linked, err := n.client.Ask(actx, id.String(), since)
	if err == nil {
		return !linked
	}
	if errors.Is(err, rendezvous.ErrGone) {
		return true
	}
	name := n.nameOf(id)
	if name == "" {
		return false
	}
	m, err := n.client.Lookup(ctx, name)
	return err == nil && m.Peer != id.String()
}

// linkedTo answers a peer that asks whether there is a link with it. It asks because it hears nothing.
func (n *Node) linkedTo(peerID string) bool {
	id, err := peer.Decode(peerID)
	if err != nil {
		return false
	}
	return n.linked(id)
}
