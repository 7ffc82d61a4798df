package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
)

// over carries a state by a relay on the loopback interface. (Nothing is punched there: loopback addresses are not public.)
func over(ctx context.Context, state string) (got onestream.Received, err error) {
	probe, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return got, err
	}
	addr := probe.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = probe.Close()
	s, said, err := serve(ctx, addr)
	if err != nil {
		return got, err
	}
	defer s.Close()
	a, b := peer.End(&end{}), peer.End(&end{})
	defer a.Close()
	defer b.Close()
	args := peer.OpenArgs{Public: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Server: said, Relayed: true}
	saysA, err := a.Open(ctx, args)
	if err != nil {
		return got, err
	}
	args.Receives = true
	saysB, err := b.Open(ctx, args)
	if err != nil {
		return got, err
	}
	done := make(chan error, 1)
	go func() {
		err := b.Connect(ctx, saysA)
		if err == nil {
			var in peer.Stream
			if in, err = b.AcceptStream(ctx); err == nil {
				got, err = onestream.Receive(in, onestream.SHA256)
			}
		}
		done <- err
	}()
	if err := a.Connect(ctx, saysB); err != nil {
		return got, err
	}
	out, err := a.OpenStream(ctx)
	if err != nil {
		return got, err
	}
	if _, err := onestream.Send(out, strings.NewReader(state), int64(len(state)), onestream.SHA256); err != nil {
		return got, err
	}
	return got, <-done
}

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := over(ctx, strings.Repeat("state ", 100_000))
	fmt.Println(got.Bytes, err)
	// Output: 600000 <nil>
}

var _ peer.Upgrader = (*end)(nil)

func TestNoRelay(t *testing.T) {
	e := &end{}
	if _, err := e.Open(t.Context(), peer.OpenArgs{Server: "garbage"}); err == nil {
		t.Error("opened at a relay that says garbage")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
