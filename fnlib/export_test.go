package fnlib

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
)

// FillMembers makes n know as many instances as it may, none of them linked.
func FillMembers(n *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := 0; len(n.members) < maxMembers; i++ {
		n.members[peer.ID(fmt.Sprint(i))] = &member{name: fmt.Sprint("gone-", i)}
	}
}
