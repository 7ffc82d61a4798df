package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	core "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/fnwire/fnwire/experiments/peer"
)

const (
	protocolID = "/fnwire/onestream/1"
	lookEvery  = 5 * time.Millisecond
	punchFor   = 30 * time.Second // DCUtR tries three times
	seenFor    = 3 * time.Second  // until an address that the relay has seen is known
)

// end is a host behind a NAT. The one that receives has a reservation at the relay; the other connects to it there.
type end struct {
	host     host.Host
	relay    core.AddrInfo
	receives bool
	relayed  bool
	early    bool
	other    core.ID
	streams  chan network.Stream
}

// Open implements peer.End.
func (e *end) Open(ctx context.Context, a peer.OpenArgs) (string, error) {
	if err := json.Unmarshal([]byte(a.Server), &e.relay); err != nil {
		return "", fmt.Errorf("libp2p: what the relay says: %w", err)
	}
	e.receives, e.relayed, e.early, e.streams = a.Receives, a.Relayed, a.Early, make(chan network.Stream, 1)
	options := []libp2p.Option{
		libp2p.ListenAddrStrings("/ip4/0.0.0.0/udp/0/quic-v1"), libp2p.Transport(quic.NewTransport),
		libp2p.ForceReachabilityPrivate(), libp2p.ResourceManager(&network.NullResourceManager{}),
	}
	if a.Early { // then it is to work where UDP does not
		options = append(options, libp2p.ListenAddrStrings("/ip4/0.0.0.0/tcp/0"), libp2p.Transport(tcp.NewTCPTransport))
	}
	if !a.Relayed {
		options = append(options, libp2p.EnableHolePunching())
	}
	var err error
	if e.host, err = libp2p.New(options...); err != nil {
		return "", fmt.Errorf("libp2p: %w", err)
	}
	e.host.SetStreamHandler(protocolID, func(s network.Stream) {
		select {
		case e.streams <- s:
		default:
			_ = s.Reset()
		}
	})
	if err := e.host.Connect(ctx, e.relay); err != nil {
		return "", fmt.Errorf("libp2p: relay: %w", err)
	}
	if a.Receives {
		if _, err := client.Reserve(ctx, e.host, e.relay); err != nil {
			return "", fmt.Errorf("libp2p: reserve: %w", err)
		}
	}
	if !a.Relayed {
		if err := e.await(ctx, seenFor, e.punches); err != nil && !a.Early {
			return "", fmt.Errorf("libp2p: no public address seen by the relay: %w", err)
		}
	}
	return e.host.ID().String(), nil
}

// punches tells whether the host answers those who want to punch, as it does once it knows a public address.
func (e *end) punches() bool { return slices.Contains(e.host.Mux().Protocols(), holepunch.Protocol) }

// await looks until ok, or for some time.
func (e *end) await(ctx context.Context, wait time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for !ok() {
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Connect implements peer.End. Unless they are to stay on the relay, both ends wait for a direct connection.
func (e *end) Connect(ctx context.Context, other string) error {
	var err error
	if e.other, err = core.Decode(other); err != nil {
		return fmt.Errorf("libp2p: what the other end says: %w", err)
	}
	if !e.receives {
		var through []ma.Multiaddr
		for _, a := range e.relay.Addrs {
			c, err := ma.NewMultiaddr(fmt.Sprintf("%s/p2p/%s/p2p-circuit", a, e.relay.ID))
			if err != nil {
				return fmt.Errorf("libp2p: %w", err)
			}
			through = append(through, c)
		}
		if err := e.host.Connect(ctx, core.AddrInfo{ID: e.other, Addrs: through}); err != nil {
			return fmt.Errorf("libp2p: connect by the relay: %w", err)
		}
	}
	if err := e.await(ctx, punchFor, e.connected); err != nil {
		return fmt.Errorf("libp2p: no connection, want one that is direct: %v: %w", !e.relayed, err)
	}
	return nil
}

func (e *end) connected() bool {
	return e.connectedBy(!e.relayed) || e.early && e.connectedBy(e.relayed)
}

func (e *end) connectedBy(direct bool) bool {
	return slices.ContainsFunc(e.host.Network().ConnsToPeer(e.other), func(c network.Conn) bool { return isDirect(c) == direct })
}

func isDirect(c network.Conn) bool {
	_, err := c.RemoteMultiaddr().ValueForProtocol(ma.P_CIRCUIT)
	return err != nil
}

// Direct implements peer.Upgrader: a stream takes a direct connection if there is one.
func (e *end) Direct() bool { return e.connectedBy(true) }

// OpenStream implements peer.End.
func (e *end) OpenStream(ctx context.Context) (peer.Stream, error) {
	s, err := e.host.NewStream(network.WithAllowLimitedConn(ctx, "experiment"), e.other, protocolID)
	if err != nil {
		return nil, fmt.Errorf("libp2p: %w", err)
	}
	if !e.early && isDirect(s.Conn()) == e.relayed {
		_ = s.Reset()
		return nil, errors.New("libp2p: the stream goes the other way: by the relay if it should be direct, or directly")
	}
	return stream{s}, nil
}

// AcceptStream implements peer.End.
func (e *end) AcceptStream(ctx context.Context) (peer.Stream, error) {
	select {
	case s := <-e.streams:
		return stream{s}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Packets implements peer.End: libp2p does not tell.
func (e *end) Packets() (sent, received uint64) { return 0, 0 }

// Close implements peer.End.
func (e *end) Close() error {
	if e.host == nil {
		return nil
	}
	return e.host.Close()
}

type stream struct{ network.Stream }

// Abort implements peer.Stream.
func (s stream) Abort() { _ = s.Reset() }
