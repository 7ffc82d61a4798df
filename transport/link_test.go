package transport_test

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/transport"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func open(t testing.TB, key job.Key, onLink func(*transport.Link)) *transport.Endpoint {
	t.Helper()
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	var log *slog.Logger
	if os.Getenv("FNWIRE_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	e, err := transport.Open(transport.Config{Identity: id, Key: key, Listen4: loopback, NoIPv6: true, OnLink: onLink, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func describe(e *transport.Endpoint, relay string) transport.Peer {
	return transport.Peer{ID: e.PeerID(), Nonce: e.Nonce(), Candidates: e.Candidates(), Relay: relay}
}

// TestDirectWithoutRelay links two endpoints that know of no relay.
func TestDirectWithoutRelay(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	key := job.NewKey()
	a, b := open(t, key, nil), open(t, key, nil)
	for _, class := range []transport.Class{transport.Auto, transport.DirectOnly} {
		if err := a.Admit(describe(b, ""), class, false); err != nil {
			t.Fatal(err)
		}
		if err := b.Admit(describe(a, ""), class, false); err != nil {
			t.Fatal(err)
		}
		la, err := a.Link(ctx, b.PeerID(), class)
		if err != nil {
			t.Fatalf("%v: %v", class, err)
		}
		lb, err := b.Link(ctx, a.PeerID(), class)
		if err != nil {
			t.Fatalf("%v: %v", class, err)
		}
		s, err := la.OpenStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = s.Write([]byte("state"))
			_ = s.CloseWrite()
		}()
		r, err := lb.AcceptStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != "state" {
			t.Fatalf("%v: got %q, %v", class, got, err)
		}
		if p := la.Status().Path; p != "direct" {
			t.Errorf("%v: path %s", class, p)
		}
	}
}
