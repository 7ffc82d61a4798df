package fnlib_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	relay "github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
	rdv "github.com/fnwire/fnwire/rendezvous/server"
)

func TestMain(m *testing.M) {
	if name := os.Getenv("FNWIRE_TEST_RECEIVER"); name != "" {
		os.Exit(receiverProcess(name))
	}
	if name := os.Getenv("FNWIRE_TEST_PROXIED"); name != "" {
		os.Exit(proxiedProcess(name))
	}
	goleak.VerifyTestMain(m)
}

// world is a rendezvous and relays on loopback, in this process.
type world struct {
	key  job.Key
	rdv  *rdv.Server
	url  string
	rels []*relayServer

	drain     time.Duration // of relays that are started from now on
	webSocket string        // where the rendezvous takes it; empty: nowhere
	data      string        // directory of the rendezvous, which keeps stores there; empty: neither
}

type relayServer struct {
	addr  netip.AddrPort
	stop  func()
	stats func() relay.Stats
}

var loopbackAny = netip.MustParseAddrPort("127.0.0.1:0")

func logger() *slog.Logger {
	if os.Getenv("FNWIRE_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func newWorld(t testing.TB, relays int) *world {
	t.Helper()
	w := &world{key: job.NewKey()}
	w.startRendezvous(t, "127.0.0.1:0")
	for i := range relays {
		w.startRelay(t, fmt.Sprintf("r%d", i+1), netip.MustParseAddrPort("127.0.0.1:0"))
	}
	return w
}

// startRendezvous returns what stops it.
func (w *world) startRendezvous(t testing.TB, listen string) (stop func()) {
	t.Helper()
	cfg := rdv.Config{Listen: listen, Allow: []job.ID{w.key.ID()}, Lease: 3 * time.Second, WebSocket: w.webSocket, Logger: logger()}
	if w.data != "" {
		cfg.DataDir, cfg.StoreBytes = w.data, 256<<20
	}
	s, err := rdv.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.rdv = s
	stop = run(t, s.Run, s.Ready())
	w.url = s.URL()
	return stop
}

// startRelay starts a relay and tells the rendezvous.
func (w *world) startRelay(t testing.TB, id string, listen netip.AddrPort) *relayServer {
	t.Helper()
	s, err := relay.New(relay.Config{ID: id, Listen: listen, TokenKey: w.rdv.TokenKey, Drain: w.drain, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	r := &relayServer{stop: run(t, s.Run, s.Ready()), stats: s.Stats}
	r.addr = s.Addr()
	if err := w.rdv.AddRelay(rendezvous.RelayInfo{ID: id, Addr: s.Addr(), STUN: s.STUNAddrs()}); err != nil {
		t.Fatal(err)
	}
	w.rels = append(w.rels, r)
	return r
}

// run runs a server until the test ends or stop is called.
func run(t testing.TB, serve func(context.Context) error, ready <-chan struct{}) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatalf("server: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("server not ready")
	}
	return stop
}

func (w *world) config(name string) fnlib.Config {
	return fnlib.Config{
		URL: w.url, JobKey: w.key.Encode(), Name: name, Logger: logger(),
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), NoIPv6: true,
	}
}

func (w *world) join(t testing.TB, name string) *fnlib.Node {
	t.Helper()
	n, err := fnlib.Join(t.Context(), w.config(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

// waitFor returns when somebody has joined under a name.
func (w *world) waitFor(ctx context.Context, name string) error {
	id, err := ident.New()
	if err != nil {
		return err
	}
	c, err := rendezvous.Dial(ctx, rendezvous.Config{URL: w.url, Key: w.key, Identity: id})
	if err != nil {
		return err
	}
	_, err = c.Wait(ctx, name)
	return errors.Join(err, c.Close())
}

// receiverProcess is what this test binary does when it is started as a function of its own: it joins,
// says so, reads 20 MiB of one state, says so, and does no more until it is killed.
func receiverProcess(name string) int {
	cfg := fnlib.FromEnv()
	cfg.Name, cfg.Listen, cfg.NoIPv6 = name, netip.MustParseAddrPort("127.0.0.1:0"), true
	n, err := fnlib.Join(context.Background(), cfg)
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println("joined")
	in, err := n.Receive(context.Background())
	if err == nil {
		_, err = io.CopyN(io.Discard, in, 20<<20)
	}
	fmt.Println("receiving", err)
	select {}
}
