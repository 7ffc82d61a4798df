package ident_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
)

func Example() {
	id, err := ident.FromEd25519(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		fmt.Println(err)
		return
	}
	pub, _ := ident.PublicKey(id.Peer)
	fmt.Println(id.Peer)
	fmt.Println(ident.ShortOf(job.ID{}, pub))
	// Output:
	// 12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN
	// b55ae6d0d9ac90ad
}

func TestRoundTrip(t *testing.T) {
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ident.PublicKey(id.Peer)
	if err != nil || !bytes.Equal(pub, id.Ed25519.Public().(ed25519.PublicKey)) {
		t.Errorf("public key %x, %v", pub, err)
	}
	if p, err := ident.PeerID(pub); err != nil || p != id.Peer {
		t.Errorf("peer ID %v, %v", p, err)
	}
	if _, err := ident.PublicKey(peer.ID("garbage")); err == nil {
		t.Error("garbage passed for a peer ID")
	}
	if ident.ShortOf(job.ID{1}, pub) == ident.ShortOf(job.ID{2}, pub) {
		t.Error("one short in two jobs")
	}
}
