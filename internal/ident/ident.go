// Package ident names instances: a libp2p Ed25519 identity, and the eight bytes that stand for it in
// the header of a relayed packet.
package ident

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/job"
)

// Short addresses an instance at a relay: the first eight bytes of SHA-256 over a label, the job ID
// and the instance's public key. Everybody who knows an instance's identity can compute it, so no
// round trip is spent on asking for it.
type Short [8]byte

// String returns 16 hexadecimal digits.
func (s Short) String() string { return fmt.Sprintf("%x", s[:]) }

// Identity is an instance's key pair.
type Identity struct {
	Private crypto.PrivKey     // for libp2p's TLS
	Ed25519 ed25519.PrivateKey // the same key
	Peer    peer.ID
}

// New makes a fresh identity.
func New() (Identity, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Identity{}, err
	}
	return FromEd25519(priv)
}

// FromEd25519 makes an identity from a private key.
func FromEd25519(priv ed25519.PrivateKey) (Identity, error) {
	k, err := crypto.UnmarshalEd25519PrivateKey(priv)
	if err != nil {
		return Identity{}, err
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Private: k, Ed25519: priv, Peer: id}, nil
}

// PublicKey returns the Ed25519 key inside id.
func PublicKey(id peer.ID) (ed25519.PublicKey, error) {
	k, err := id.ExtractPublicKey()
	if err != nil {
		return nil, fmt.Errorf("peer ID: %w", err)
	}
	if k.Type() != crypto.Ed25519 {
		return nil, errors.New("peer ID: not an Ed25519 identity")
	}
	raw, err := k.Raw()
	if err != nil {
		return nil, fmt.Errorf("peer ID: %w", err)
	}
	return raw, nil
}

// PeerID returns the peer ID of an Ed25519 public key.
func PeerID(pub ed25519.PublicKey) (peer.ID, error) {
	k, err := crypto.UnmarshalEd25519PublicKey(pub)
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(k)
}

// ShortOf returns the relay address of the instance with this public key.
func ShortOf(j job.ID, pub ed25519.PublicKey) Short {
	h := sha256.New()
	h.Write([]byte("fnwire v1 relay address"))
	h.Write(j[:])
	h.Write(pub)
	return Short(h.Sum(nil)[:8])
}
