// Command libp2p is a peer of the experiments, in a module of its own since it needs another quic-go than fnwire: hosts of
// go-libp2p over QUIC, which meet at a relay (circuit v2) and punch through to each other (DCUtR).
package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/fnwire/fnwire/experiments/peer"
)

func main() {
	labIsPublic()
	if err := peer.Run(context.Background(), program(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func program() peer.Program {
	return peer.Program{
		Ends:    map[string]func() peer.End{"libp2p": func() peer.End { return &end{} }},
		Servers: map[string]func(context.Context, netip.AddrPort) (peer.Server, string, error){"libp2p-relay": serve},
	}
}

// labIsPublic has libp2p take the addresses of a lab, which are for documentation, for public ones: else it would not punch.
func labIsPublic() {
	lab := net.IPv4(198, 51, 100, 1)
	manet.Unroutable4 = slices.DeleteFunc(manet.Unroutable4, func(n *net.IPNet) bool { return n.Contains(lab) })
}
