// Command pionturn is a peer of the experiments: a TURN server and the TURN client of pion, in a module of its own. The client
// carries quic-go's packets to any TURN server.
package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/plainquic"
)

func main() {
	if err := peer.Run(context.Background(), program(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func program() peer.Program {
	return peer.Program{
		Ends: map[string]func() peer.End{
			"turn":  func() peer.End { return &allocation{} },
			"plain": plainquic.New,
		},
		Servers: map[string]func(context.Context, netip.AddrPort) (peer.Server, string, error){"pion-turn": serve},
	}
}
