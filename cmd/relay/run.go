package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
)

// runner is the relay, its metrics and its announcements, which start and end together.
type runner struct {
	*options
	plan
	out io.Writer
	log *slog.Logger
	srv *server.Server
	key atomic.Pointer[ed25519.PublicKey]
}

func (r *runner) run(ctx context.Context) error {
	if r.plan.key != nil {
		r.key.Store(&r.plan.key)
	}
	r.cfg.TokenKey = func() ed25519.PublicKey {
		if k := r.key.Load(); k != nil {
			return *k
		}
		return nil
	}
	var err error
	if r.srv, err = server.New(r.cfg); err != nil {
		return cli.Usage(err)
	}
	metrics, err := r.listenHTTP()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	results := make(chan error, 3)
	actor := func(run func() error) { wg.Go(func() { results <- run() }) }
	actor(func() error {
		err := r.srv.Run(ctx)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%w (choose other ports with --listen, --stun2 and --https)", err)
		}
		return err
	})
	addr := ""
	if metrics != nil {
		addr = metrics.Addr().String()
		actor(func() error { return serveHTTP(ctx, metrics, r.srv.Handler()) })
	}
	actor(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-r.srv.Ready():
		}
		return r.serve(ctx, addr)
	})
	err = <-results // the first actor to end ends all
	cancel()
	wg.Wait()
	return err
}

// serve prints the ready line once instances can bind, and keeps the relay announced.
func (r *runner) serve(ctx context.Context, metrics string) error {
	ready := sync.OnceFunc(func() { r.printReady(metrics) })
	if r.plan.key != nil {
		ready()
		<-ctx.Done()
		return nil
	}
	stuns := r.srv.STUNAddrs()
	public := r.advertise
	if public.Port() == 0 {
		public = netip.AddrPortFrom(public.Addr(), stuns[0].Port())
	}
	https := r.httpsPublic
	if at := r.srv.HTTPSAddr(); at.IsValid() && https == "" {
		https = netip.AddrPortFrom(public.Addr(), at.Port()).String()
	}
	cfg := rendezvous.AnnounceConfig{
		URL: r.rendezvous, Creds: r.creds, Secret: r.secret, Logger: r.log,
		Relay: rendezvous.RelayInfo{
			ID: r.id, Addr: public, STUN: []netip.AddrPort{public, netip.AddrPortFrom(public.Addr(), stuns[1].Port())},
			HTTPS: https, CertSHA256: r.srv.CertSHA256(),
		},
		OnTokenKey: func(k ed25519.PublicKey) {
			r.key.Store(&k)
			ready()
		},
	}
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		err := rendezvous.AnnounceRelay(ctx, cfg)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end was asked for
		case !errors.Is(err, rendezvous.ErrUnreachable) && !errors.Is(err, rendezvous.ErrUnavailable):
			return err
		}
		// A relay may be started before its rendezvous.
		r.log.Warn("rendezvous not reached; trying again", "err", err, "in", wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (r *runner) printReady(metrics string) {
	line := readyLine{Ready: true, ID: r.id, Addr: r.srv.Addr(), STUN: r.srv.STUNAddrs(), HTTP: metrics}
	if at := r.srv.HTTPSAddr(); at.IsValid() {
		line.HTTPS, line.Cert = at.String(), hex.EncodeToString(r.srv.CertSHA256())
	}
	var err error
	if r.json {
		err = cli.PrintJSON(r.out, line)
	} else {
		_, err = fmt.Fprintf(r.out, "relay %s ready: %v (second STUN port %d; HTTPS: %s; health and metrics: %s)\n",
			r.id, line.Addr, line.STUN[1].Port(), cmp.Or(line.HTTPS, "off"), orOff(metrics))
	}
	if err != nil { // nobody reads; serve all the same
		r.log.Warn("ready line not printed", "err", err)
	}
}

func orOff(addr string) string {
	if addr == "" {
		return "off"
	}
	return "http://" + addr
}

func (r *runner) listenHTTP() (net.Listener, error) {
	if r.http == "off" || r.http == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", r.http)
	if err != nil {
		return nil, fmt.Errorf("--http: %w (choose another address, or \"off\")", err)
	}
	return l, nil
}

func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
