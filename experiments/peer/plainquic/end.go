package plainquic

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/fnwire/fnwire/experiments/peer"
)

// End is a Peer as experiments drive it. The one that sends dials.
type End struct {
	*Peer
	receives bool
}

// New returns an end on a UDP socket of its own.
func New() peer.End { return &End{} }

// Says is what the other end must know, as JSON.
type Says struct {
	Addr        netip.AddrPort `json:"addr"`
	Certificate []byte         `json:"certificate"`
}

// Open implements peer.End.
func (e *End) Open(_ context.Context, a peer.OpenArgs) (says string, err error) {
	if e.Peer, err = Open(); err != nil {
		return "", err
	}
	return e.Ready(a, netip.AddrPortFrom(a.Public, e.Port()))
}

// Ready does what Open does once e has its Peer, which others reach at addr.
func (e *End) Ready(a peer.OpenArgs, addr netip.AddrPort) (string, error) {
	e.receives = a.Receives
	b, err := json.Marshal(Says{addr, e.Certificate()})
	return string(b), err
}

// Connect implements peer.End.
func (e *End) Connect(ctx context.Context, other string) error {
	var s Says
	if err := json.Unmarshal([]byte(other), &s); err != nil {
		return fmt.Errorf("plainquic: what the other end says: %w", err)
	}
	if err := e.Punch(ctx, s.Addr); err != nil {
		return err
	}
	if e.receives {
		return e.Accept(ctx)
	}
	return e.Dial(ctx, s.Addr, s.Certificate)
}

// OpenStream implements peer.End.
func (e *End) OpenStream(ctx context.Context) (peer.Stream, error) {
	return e.Peer.OpenStream(ctx)
}

// AcceptStream implements peer.End.
func (e *End) AcceptStream(ctx context.Context) (peer.Stream, error) {
	return e.Peer.AcceptStream(ctx)
}

// Close implements peer.End.
func (e *End) Close() error {
	if e.Peer == nil {
		return nil
	}
	return e.Peer.Close()
}
