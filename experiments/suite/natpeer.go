package suite

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
)

const (
	peerLibp2p   = "libp2p"
	libp2pConfig = "go-libp2p, its own defaults over QUIC, and TCP where that fails; circuit relay v2 without limits on the public host, DCUtR; " +
		"the receiver has a reservation and has seen its mapped address before the clock starts"
)

// libp2pPairs is the matrixPeer of libp2p, whose program it builds once.
func libp2pPairs() matrixPeer {
	var building sync.Once
	var path string
	var err error
	return func(ctx context.Context, m *matrix, w *world.World, rec *results.Record) error {
		building.Do(func() { path, err = m.build(ctx, peerLibp2p) })
		if err != nil {
			return err
		}
		rec.Config = libp2pConfig
		return libp2pPair(ctx, m, w, rec, path)
	}
}

// libp2pPair has a relay of its own. What the two tell each other is carried by the harness, at no cost in time.
func libp2pPair(ctx context.Context, m *matrix, w *world.World, rec *results.Record, path string) error {
	start := func(host string) (peer.Client, *world.Proc, error) { return w.Peer(ctx, host, path) }
	relay, procR, err := start(world.Public)
	if err != nil {
		return err
	}
	defer procR.Kill()
	said, err := relay.Serve(ctx, "libp2p-relay", netip.AddrPortFrom(w.Lab().PublicAddr(world.Public), turnPort))
	if err != nil {
		return err
	}
	a, procA, err := start(hostA)
	if err != nil {
		return err
	}
	defer procA.Kill()
	b, procB, err := start(hostB)
	if err != nil {
		return err
	}
	defer procB.Kill()
	saysA, err := a.Open(ctx, "libp2p", peer.OpenArgs{Server: said, Early: true})
	if err != nil {
		return err
	}
	saysB, err := b.Open(ctx, "libp2p", peer.OpenArgs{Server: said, Early: true, Receives: true})
	if err != nil {
		return err
	}
	began := time.Now().UnixNano()
	connecting, cctx := errgroup.WithContext(ctx)
	connecting.Go(func() error { return a.Connect(cctx, saysB) })
	connecting.Go(func() error { return b.Connect(cctx, saysA) })
	if err := connecting.Wait(); err != nil {
		return err
	}
	first, got, err := carry(ctx, a, b, m.state)
	if err != nil {
		return err
	}
	rec.Measured["first_byte_ms"] = since(began, got.First)
	rec.Measured["receipt_ms"] = since(began, first.Ended)
	d, err := a.Direct(ctx, m.traffic)
	if err != nil {
		return err
	}
	rec.Path = "relay"
	if d.Direct {
		rec.Path, rec.Measured["direct_ms"] = "direct", since(began, d.At)
	}
	last, got, err := carry(ctx, a, b, m.state)
	if err != nil {
		return fmt.Errorf("second state: %w", err)
	}
	rec.Bytes, rec.OK, rec.Seconds = 2*got.Bytes, true, since(began, last.Ended)/1e3
	return nil
}

// carry sends a state from one peer to another and checks it.
func carry(ctx context.Context, a, b peer.Client, s state) (sent peer.Sent, got peer.Received, err error) {
	both, bctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		sent, err = a.Send(bctx, peer.StreamArgs{Check: onestream.CRC32C, Source: s.Source})
		return err
	})
	both.Go(func() (err error) { got, err = b.Receive(bctx, onestream.CRC32C); return err })
	if err = both.Wait(); err == nil {
		err = s.check(worker.Received{Bytes: got.Bytes, Digest: got.Digest}, onestream.CRC32C)
	}
	return sent, got, err
}
