package tlstcp_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/peer/tlstcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	b, a := tlstcp.New(), tlstcp.New()
	defer a.Close()
	defer b.Close()
	says, err := b.Open(ctx, peer.OpenArgs{Receives: true, Public: netip.AddrFrom4([4]byte{127, 0, 0, 1})})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error, 1)
	go func() {
		s, err := b.AcceptStream(ctx)
		if err == nil {
			defer s.Abort()
			_, err = onestream.Receive(s, onestream.SHA256)
		}
		done <- err
	}()
	if err := a.Connect(ctx, says); err != nil {
		fmt.Println(err)
		return
	}
	s, err := a.OpenStream(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Abort()
	_, err = onestream.Send(s, strings.NewReader("state"), 5, onestream.SHA256)
	fmt.Println(err, <-done)
	// Output: <nil> <nil>
}

func TestMisuse(t *testing.T) {
	e := tlstcp.New()
	if _, err := e.OpenStream(t.Context()); err == nil {
		t.Error("a stream to nobody")
	}
	if _, err := e.AcceptStream(t.Context()); err == nil {
		t.Error("a stream of nobody")
	}
	for _, says := range []string{"garbage", "{}"} {
		if err := e.Connect(t.Context(), says); err == nil {
			t.Errorf("connected to %q", says)
		}
	}
}
