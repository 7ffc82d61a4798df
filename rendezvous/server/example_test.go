package server_test

import (
	"context"
	"fmt"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// A rendezvous inside another program, and an instance that joins it without the network.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	key := job.NewKey()
	s, err := server.New(server.Config{Allow: []job.ID{key.ID()}, DontListen: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()

	id, _ := ident.New()
	c, err := rendezvous.Dial(ctx, rendezvous.Config{InProcess: s, Key: key, Name: "map-3", Identity: id})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := c.Join(ctx); err != nil {
		fmt.Println(err)
		return
	}
	members, err := c.List(ctx)
	fmt.Println(len(members), members[0].Name, err)

	_ = c.Close()
	cancel()
	fmt.Println(<-done)
	// Output:
	// 1 map-3 <nil>
	// <nil>
}
