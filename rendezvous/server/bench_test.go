package server_test

import (
	"context"
	"testing"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

func benchServer(b *testing.B, key job.Key) (s *server.Server, stop func()) {
	b.Helper()
	s, err := server.New(server.Config{Allow: []job.ID{key.ID()}, Relays: []rendezvous.RelayInfo{relayInfo("r", 1)}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

func benchJoin(b *testing.B, s *server.Server, key job.Key, name string) (*rendezvous.Client, ident.Identity) {
	b.Helper()
	id, err := ident.New()
	if err != nil {
		b.Fatal(err)
	}
	c, err := rendezvous.Dial(b.Context(), rendezvous.Config{URL: s.URL(), Key: key, Name: name, Identity: id})
	if err == nil {
		_, err = c.Join(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	return c, id
}

// BenchmarkDialJoin is what every function pays at its start: TCP, NATS' handshake, join.
func BenchmarkDialJoin(b *testing.B) {
	key := job.NewKey()
	s, stop := benchServer(b, key)
	defer stop()
	for b.Loop() {
		c, _ := benchJoin(b, s, key, "a")
		_ = c.Close()
	}
}

// BenchmarkOffer is one offer to an instance that is there, with its acknowledgement.
func BenchmarkOffer(b *testing.B) {
	key := job.NewKey()
	s, stop := benchServer(b, key)
	defer stop()
	from, id := benchJoin(b, s, key, "a")
	defer from.Close()
	to, _ := benchJoin(b, s, key, "b")
	defer to.Close()
	e, err := rendezvous.Seal(key, rendezvous.Hello{
		Job: key.ID(), Kind: rendezvous.KindOffer, FromName: "a", FromPeer: id.Peer.String(), FromEpoch: from.Epoch(), ToName: "b",
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if r, err := from.Offer(b.Context(), "b", e); err != nil || !r.Delivered {
			b.Fatal(r, err)
		}
	}
}
