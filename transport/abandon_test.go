package transport_test

import (
	"context"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/transport"
)

// A link goes directly again though the QUIC server has given its spare connection IDs to paths that were tried and given up.
func TestDirectAfterAbandonedPaths(t *testing.T) {
	key := job.NewKey()
	bind := startRelay(t, key)
	a, b := bind(), bind()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	admit(t, a, b, transport.Auto)
	la, lb := link(t, a, b, transport.Auto)
	client := la
	if !a.Dials(b.PeerID()) {
		client = lb
	}
	await := func(path string) {
		t.Helper()
		for client.Status().Path != path {
			s, err := client.OpenStream(ctx)
			if err != nil {
				t.Fatalf("waiting for %s: %v; %+v", path, err, client.Status())
			}
			if _, err := s.Write([]byte("traffic")); err != nil {
				t.Fatal(err)
			}
			s.Reset(0)
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("not %s: %+v", path, client.Status())
			}
		}
	}
	await("direct") // which takes the first connection ID out of use: there is none instead
	a.socket.cut(true)
	b.socket.cut(true)
	await("relay")
	if err := client.AbandonPaths(ctx, 2); err != nil {
		t.Fatal(err)
	}
	a.socket.cut(false)
	b.socket.cut(false)
	await("direct")
}
