package fnlib

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/rendezvous"
)

// JoinOver is Join as a given instance, over networks in memory.
func JoinOver(ctx context.Context, cfg Config, id ident.Identity, s udpx.Socket, nats rendezvous.InProcess) (*Node, error) {
	return join(ctx, cfg, wires{id, []udpx.Socket{s}, nats})
}

// FillMembers makes n know as many instances as it may, none of them linked.
func FillMembers(n *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := 0; len(n.members) < maxMembers; i++ {
		n.members[peer.ID(fmt.Sprint(i))] = &member{name: fmt.Sprint("gone-", i)}
	}
}

// NonceOf returns what the node's offers and answers carry.
func NonceOf(n *Node) rendezvous.Nonce { return rendezvous.Nonce(n.ep.Nonce()) }

// CallsOf returns how many searches for a link are under way.
func CallsOf(n *Node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.calls)
}
