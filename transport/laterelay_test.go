package transport_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/transport"
)

// A link that came up while there was no relay falls back to one that came later.
func TestFallBackToLateRelay(t *testing.T) {
	key := job.NewKey()
	bind := startRelay(t, key)
	a, b := bind(), bind()
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
	defer cancel()
	admit := func(relay string) {
		t.Helper()
		for _, p := range [][2]relayed{{a, b}, {b, a}} {
			if err := p[0].Admit(describe(p[1].Endpoint, relay), transport.Auto, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.RemoveRelay("r")
	b.RemoveRelay("r")
	admit("")
	la, err := a.Link(ctx, b.PeerID(), transport.Auto)
	if err != nil {
		t.Fatal(err)
	}
	lb, err := b.Link(ctx, a.PeerID(), transport.Auto)
	if err != nil {
		t.Fatal(err)
	}
	s, err := la.OpenStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("directly")); err != nil {
		t.Fatal(err)
	}
	r, err := lb.AcceptStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, len("directly"))); err != nil {
		t.Fatal(err)
	}
	a.AddRelay(a.leg)
	b.AddRelay(b.leg)
	admit("r")
	a.socket.cut(true)
	b.socket.cut(true)
	if _, err := s.Write([]byte("over the relay")); err != nil {
		t.Fatal(err)
	}
	_ = r.SetReadDeadline(time.Now().Add(8 * time.Second))
	if _, err := io.ReadFull(r, make([]byte, len("over the relay"))); err != nil {
		t.Errorf("after the direct path broke: %v; %+v", err, la.Status())
	}
}
