package plainquic_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/peer/plainquic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(p *plainquic.Peer) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p.Port())
}

// pair returns two peers that are connected over the loopback interface.
func pair(ctx context.Context) (a, b *plainquic.Peer, err error) {
	if a, err = plainquic.Open(); err != nil {
		return nil, nil, err
	}
	if b, err = plainquic.Open(); err != nil {
		return a, nil, err
	}
	done := make(chan error, 1)
	go func() {
		err := b.Punch(ctx, at(a))
		if err == nil {
			err = b.Accept(ctx)
		}
		done <- err
	}()
	if err = a.Punch(ctx, at(b)); err == nil {
		err = a.Dial(ctx, at(b), b.Certificate())
	}
	if err != nil {
		return a, b, err
	}
	return a, b, <-done
}

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	a, b, err := pair(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	defer b.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := a.Send(ctx, bytes.NewReader([]byte("state")), 5, onestream.SHA256)
		sent <- err
	}()
	got, err := b.Receive(ctx, onestream.SHA256)
	fmt.Println(got.Bytes, err, <-sent)
	// Output: 5 <nil> <nil>
}

func TestOtherCertificate(t *testing.T) {
	a, b, err := pair(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	c, err := plainquic.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := c.Dial(ctx, at(b), a.Certificate()); err == nil || ctx.Err() != nil {
		t.Errorf("dialled a peer with another certificate: %v", err)
	}
}

func TestPunchEnds(t *testing.T) {
	p, err := plainquic.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Punch(ctx, netip.MustParseAddrPort("127.0.0.1:9")); err == nil || ctx.Err() == nil {
		t.Errorf("punched nobody: %v", err)
	}
}
