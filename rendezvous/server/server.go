// Package server is the rendezvous service: it answers the requests of package rendezvous over NATS,
// which it embeds or finds, keeps who holds which name in a table, and mints relay tokens. It never
// sees a job key, cannot make or change what instances tell each other, and carries none of their data.
//
// Several copies may serve one NATS if they share the table, which then is a JetStream KV bucket, and
// the token key. A single copy keeps the table in memory; when it dies, the instances that live join
// again by themselves under the epochs they have.
package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

// Server is a rendezvous. Make it with New, start it with Run.
type Server struct {
	cfg     *config
	log     *slog.Logger
	relays  *registry
	metrics *metrics
	ready   chan struct{}
	serving atomic.Pointer[service] // nil unless serving
	hooks   atomic.Pointer[wake.Hooks]

	mu       sync.Mutex // guards what follows
	started  bool
	embedded *embedded
	url      string
	wsURL    string
	httpAddr string
}

// New checks the configuration and does no I/O.
func New(in Config) (*Server, error) {
	c, err := complete(in)
	if err != nil {
		return nil, fmt.Errorf("rendezvous server: %w", err)
	}
	s := &Server{cfg: c, log: c.Logger, ready: make(chan struct{})}
	s.relays = newRegistry(c.Relays)
	s.hooks.Store(c.Hooks)
	s.metrics = newMetrics(s)
	return s, nil
}

// Ready is closed once requests are answered.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// URL returns where functions connect to: the embedded NATS, with a loopback address if it listens on
// all, or the existing NATS as configured. It is empty before Ready, and with DontListen.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// WebSocketURL returns where functions connect to the embedded NATS by WebSocket. It is empty before Ready, and without that listener.
func (s *Server) WebSocketURL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wsURL
}

// HTTPAddr returns the address of health and metrics, empty before Ready or if there is none.
func (s *Server) HTTPAddr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.httpAddr
}

// TokenKey returns the key with which relays verify tokens.
func (s *Server) TokenKey() ed25519.PublicKey { return s.cfg.TokenKey.Public().(ed25519.PublicKey) }

// AddRelay hands out another relay from now on, and tells the instances that are there. A relay of the
// same ID is replaced. Unlike an announced relay it does not expire.
func (s *Server) AddRelay(r rendezvous.RelayInfo) error {
	if err := r.Check(); err != nil {
		return fmt.Errorf("rendezvous server: %w", err)
	}
	news, err := s.relays.add(r)
	if err != nil {
		return fmt.Errorf("rendezvous server: %w", err)
	}
	if v := s.serving.Load(); v != nil && news {
		v.relaysChanged()
	}
	return nil
}

// SetHooks has other wake hooks called from now on; nil: none.
func (s *Server) SetHooks(h *wake.Hooks) { s.hooks.Store(h) }

// InProcessConn connects to the embedded NATS without the network. It makes *Server a
// rendezvous.InProcess. It fails before Ready and when NATS is not embedded.
func (s *Server) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	e := s.embedded
	s.mu.Unlock()
	if e == nil {
		return nil, errors.New("rendezvous server: no embedded NATS runs")
	}
	return e.ns.InProcessConn()
}

// Run serves until ctx ends, then lets requests in hand finish and returns nil. It can be called once.
func (s *Server) Run(ctx context.Context) (err error) {
	s.mu.Lock()
	if s.started {
		s.mu.Unlock()
		return errors.New("rendezvous server: Run was called before")
	}
	s.started = true
	s.mu.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("rendezvous server: %w", err)
		}
	}()

	nc, stopNATS, err := s.openNATS(ctx)
	if err != nil {
		return err
	}
	defer stopNATS()
	var t table = newMemory()
	if s.cfg.Replicated {
		kv, err := openKV(ctx, nc, s.cfg)
		if err != nil {
			return err
		}
		defer kv.close()
		t = kv
	}
	v := newService(s.cfg, nc, t, s.relays, &s.hooks, s.metrics)
	if err := v.start(); err != nil {
		return err
	}
	defer v.stop()
	s.serving.Store(v)
	defer s.serving.Store(nil)
	web, err := s.startHTTP()
	if err != nil {
		return err
	}
	defer web.stop()
	close(s.ready)
	s.log.Info("rendezvous ready", "embedded", s.cfg.NATS == "", "replicated", s.cfg.Replicated, "open", s.cfg.Open)
	if s.cfg.Open {
		s.log.Warn("rendezvous admits every job")
	}
	v.run(ctx)
	return nil
}

// openNATS starts the embedded NATS or connects to the existing one.
func (s *Server) openNATS(ctx context.Context) (*nats.Conn, func(), error) {
	opts := []nats.Option{
		nats.Name("fnwire rendezvous"), nats.CustomInboxPrefix("_INBOX_rendezvous"),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			s.log.Warn("rendezvous: NATS", "err", err)
		}),
	}
	if s.cfg.NATS != "" {
		nc, err := connectExternal(ctx, s.cfg, opts...)
		if err != nil {
			return nil, nil, err
		}
		s.mu.Lock()
		s.url = s.cfg.NATS
		s.mu.Unlock()
		return nc, func() { closeConn(nc) }, nil
	}
	e, err := startEmbedded(s.cfg, s.metrics.refusedConnection)
	if err != nil {
		return nil, nil, err
	}
	nc, err := e.connect(opts...)
	if err != nil {
		e.stop()
		return nil, nil, fmt.Errorf("connect to embedded NATS: %w", err)
	}
	s.mu.Lock()
	s.embedded, s.url, s.wsURL = e, e.url(), e.webSocketURL(s.cfg)
	s.mu.Unlock()
	return nc, func() {
		closeConn(nc)
		s.mu.Lock()
		s.embedded = nil
		s.mu.Unlock()
		e.stop()
	}, nil
}

// closeConn gives replies under way a moment to leave.
func closeConn(nc *nats.Conn) {
	if nc.IsConnected() {
		_ = flush(nc, time.Second) // closing next, whatever comes of it
	}
	nc.Close()
}

// flush is FlushTimeout without nats.go's pool of timers, which a bubble of testing/synctest would poison
// for the rest of the process.
func flush(nc *nats.Conn, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return nc.FlushWithContext(ctx)
}
