package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	core "github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/rpc"
)

// relayBuffer is what the relay copies with, in bytes; its default is 2 KiB.
const relayBuffer = 64 << 10

type server struct{ host.Host }

// Usage implements peer.Server: all that is used, this process uses.
func (server) Usage(context.Context) (rpc.Usage, error) { return rpc.Usage{}, nil }

func quicAddr(a netip.AddrPort) string {
	return fmt.Sprintf("/ip4/%v/udp/%d/quic-v1", a.Addr(), a.Port())
}

func tcpAddr(a netip.AddrPort) string { return fmt.Sprintf("/ip4/%v/tcp/%d", a.Addr(), a.Port()) }

// serve starts a relay without limits.
func serve(_ context.Context, listen netip.AddrPort) (peer.Server, string, error) {
	resources := circuit.DefaultResources()
	resources.Limit, resources.BufferSize = nil, relayBuffer
	h, err := libp2p.New(
		libp2p.ListenAddrStrings(quicAddr(listen), tcpAddr(listen)), libp2p.ForceReachabilityPublic(),
		libp2p.Transport(quic.NewTransport), libp2p.Transport(tcp.NewTCPTransport),
		libp2p.EnableRelayService(circuit.WithResources(resources)), libp2p.ResourceManager(&network.NullResourceManager{}),
	)
	if err != nil {
		return nil, "", fmt.Errorf("libp2p: relay: %w", err)
	}
	b, err := json.Marshal(core.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
	return server{h}, string(b), err
}
