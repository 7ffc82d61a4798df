package worker

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/rendezvous"
	rendezvousserver "github.com/fnwire/fnwire/rendezvous/server"

	relayserver "github.com/fnwire/fnwire/relay/server"
)

const (
	opRendezvous = "rendezvous"
	opRelay      = "relay"
	opForwarded  = "forwarded"
)

// RendezvousArgs configure a rendezvous with an embedded NATS that admits every job.
type RendezvousArgs struct {
	Listen      string `json:"listen"`    // TCP address
	WebSocket   string `json:"websocket"` // TCP address of the same over WebSocket
	RelaySecret string `json:"relay_secret"`
	StoreBytes  int64  `json:"store_bytes"` // that it keeps for the job
	DataDir     string `json:"data_dir"`    // of JetStream; empty: a temporary one

	NATS     string             `json:"nats,omitempty"`      // existing servers, instead of the embedded one
	Replicas int                `json:"replicas,omitempty"`  // of the table there
	TokenKey ed25519.PrivateKey `json:"token_key,omitempty"` // that the copies share
}

// RelayArgs configure a relay.
type RelayArgs struct {
	ID     string         `json:"id"`
	Listen netip.AddrPort `json:"listen"` // where functions reach it too
	STUN2  netip.AddrPort `json:"stun2"`
	HTTPS  netip.AddrPort `json:"https"` // the zero value is none
	URL    string         `json:"url"`   // of the rendezvous' NATS
	Secret string         `json:"secret"`
}

// Rendezvous starts the rendezvous of a worker of that role and returns when it serves. It serves until the process ends.
func (c *Client) Rendezvous(ctx context.Context, a RendezvousArgs) error {
	return c.Call(ctx, opRendezvous, a, nil)
}

// Relay starts the relay of a worker of that role and returns when the rendezvous knows it.
func (c *Client) Relay(ctx context.Context, a RelayArgs) error { return c.Call(ctx, opRelay, a, nil) }

// Forwarded returns what the relay of a worker of that role has done since its start.
func (c *Client) Forwarded(ctx context.Context) (s relayserver.Stats, err error) {
	return s, c.Call(ctx, opForwarded, None{}, &s)
}

const drainFor = time.Second // as the command relay has it

// daemon is a server that runs beside the operations of its worker.
type daemon struct {
	mu     sync.Mutex // guards cancel and server
	cancel context.CancelFunc
	server *relayserver.Server
	wg     sync.WaitGroup
	err    error // of the first that failed, guarded by mu
}

// start runs f until stop, or the first failure.
func (d *daemon) start(f ...func(context.Context) error) <-chan struct{} {
	ctx, cancel := context.WithCancel(context.Background())
	d.mu.Lock()
	d.cancel = cancel
	d.mu.Unlock()
	for _, f := range f {
		d.wg.Go(func() {
			defer cancel()
			if err := f(ctx); err != nil && ctx.Err() == nil {
				d.mu.Lock()
				d.err = err
				d.mu.Unlock()
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	return ctx.Done()
}

func (d *daemon) stop() error {
	d.mu.Lock()
	cancel := d.cancel
	d.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	d.wg.Wait()
	return d.failure()
}

func (d *daemon) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// up waits for a server to be ready.
func (d *daemon) up(ctx context.Context, ready, ended <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-ended:
		return d.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *daemon) rendezvous(ctx context.Context, a RendezvousArgs) (None, error) {
	rendezvousserver.TuneGC()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg := rendezvousserver.Config{Open: true, RelaySecret: a.RelaySecret, TokenKey: a.TokenKey, Logger: log}
	if a.NATS != "" {
		cfg.NATS, cfg.Replicated, cfg.Replicas = a.NATS, true, a.Replicas
	} else {
		cfg.Listen, cfg.WebSocket, cfg.StoreBytes, cfg.JobStoreBytes, cfg.DataDir = a.Listen, a.WebSocket, a.StoreBytes, a.StoreBytes, a.DataDir
	}
	s, err := rendezvousserver.New(cfg)
	if err != nil {
		return None{}, err
	}
	return None{}, d.up(ctx, s.Ready(), d.start(s.Run))
}

func (d *daemon) forwarded(context.Context, None) (relayserver.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server == nil {
		return relayserver.Stats{}, errors.New("is no relay yet")
	}
	return d.server.Stats(), nil
}

func (d *daemon) relay(ctx context.Context, a RelayArgs) (None, error) {
	var key atomic.Pointer[ed25519.PublicKey]
	s, err := relayserver.New(relayserver.Config{
		ID: a.ID, Listen: a.Listen, Listen2: a.STUN2, HTTPS: a.HTTPS, Drain: drainFor,
		TokenKey: func() ed25519.PublicKey {
			if k := key.Load(); k != nil {
				return *k
			}
			return nil
		},
	})
	if err != nil {
		return None{}, err
	}
	d.mu.Lock()
	d.server = s
	d.mu.Unlock()
	known := make(chan struct{})
	announce := func(ctx context.Context) error {
		select {
		case <-s.Ready():
		case <-ctx.Done():
			return nil
		}
		var once sync.Once
		info := rendezvous.RelayInfo{ID: a.ID, Addr: a.Listen, STUN: []netip.AddrPort{a.Listen, a.STUN2}}
		if a.HTTPS.IsValid() {
			info.HTTPS, info.CertSHA256 = a.HTTPS.String(), s.CertSHA256()
		}
		return rendezvous.AnnounceRelay(ctx, rendezvous.AnnounceConfig{
			URL: a.URL, Secret: a.Secret, Relay: info,
			OnTokenKey: func(k ed25519.PublicKey) {
				key.Store(&k)
				once.Do(func() { close(known) })
			},
		})
	}
	return None{}, d.up(ctx, known, d.start(s.Run, announce))
}
