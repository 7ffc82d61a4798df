package server_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net/netip"

	"github.com/fnwire/fnwire/relay/server"
)

// A relay inside another program: closed but to holders of tokens signed by key.
func Example() {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	srv, err := server.New(server.Config{
		ID: "relay-1", Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		TokenKey: func() ed25519.PublicKey { return public },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	<-srv.Ready()
	fmt.Println(srv.Addr().Addr(), len(srv.STUNAddrs()), srv.Stats().Sessions)
	cancel()
	fmt.Println(<-done)
	// Output:
	// 127.0.0.1 2 0
	// <nil>
}
