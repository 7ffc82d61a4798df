package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"syscall"

	"github.com/fnwire/fnwire/internal/job"
	relayserver "github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// devPlan says what dev opens and what it tells others.
type devPlan struct {
	nats   string           // HOST:PORT
	relays []netip.AddrPort // where each relay listens
	https  bool             // relays take WebSocket connections
	public netip.Addr       // what others use instead of these hosts; may be invalid
}

type devRelay struct {
	ID   string           `json:"id"`
	Addr netip.AddrPort   `json:"addr"`
	STUN []netip.AddrPort `json:"stun"`

	HTTPS string `json:"https,omitempty"` // HOST:PORT
}

// plan turns the flags into addresses. Its errors are the caller's mistakes.
func (d *dev) plan(ctx context.Context) (devPlan, error) {
	var p devPlan
	if d.relays < 1 || d.relays > 16 {
		return p, errRelays
	}
	host, err := resolve(ctx, "--listen", d.listen)
	if err != nil {
		return p, err
	}
	relays := netip.AddrPortFrom(host.Addr(), 0)
	if d.relayListen != "" {
		if relays, err = resolve(ctx, "--relay-listen", d.relayListen); err != nil {
			return p, err
		}
	}
	if d.public != "" {
		if p.public, err = lookup(ctx, d.public); err != nil {
			return p, fmt.Errorf("--public %s: %w", d.public, err)
		}
	}
	if (host.Addr().IsUnspecified() || relays.Addr().IsUnspecified()) && !p.public.IsValid() {
		return p, errors.New("listening on all addresses: tell with --public at which one others reach this machine")
	}
	p.nats, p.https = host.String(), d.https
	for i := range d.relays {
		port := int(relays.Port())
		if port != 0 {
			port += 2 * i // each has a second one for STUN
		}
		if port >= 1<<16-1 {
			return p, fmt.Errorf("--relay-listen %s: no ports left for %d relays", d.relayListen, d.relays)
		}
		p.relays = append(p.relays, netip.AddrPortFrom(relays.Addr(), uint16(port)))
	}
	return p, nil
}

// resolve reads HOST:PORT, :PORT being all addresses.
func resolve(ctx context.Context, flag, s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s %s: want HOST:PORT: %w", flag, s, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s %s: port %q: want a number up to 65535", flag, s, port)
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)), nil
	}
	a, err := lookup(ctx, host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s %s: %w", flag, s, err)
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}

// lookup prefers IPv4, which more functions have.
func lookup(ctx context.Context, host string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap(), nil
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			return a, nil
		}
	}
	return all[0], nil // there is one, or it would have been an error
}

// devStore is how many bytes may wait for functions that are not there.
const devStore = 4 << 30

// servers are a rendezvous and its relays in this process.
type servers struct {
	url    string
	relays []devRelay
	failed chan error // of the first that ended by itself

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// startServers returns when all of them serve.
func startServers(ctx context.Context, plan devPlan, admit job.ID, log *slog.Logger) (_ *servers, err error) {
	s := &servers{failed: make(chan error, 1+len(plan.relays))}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx)) // stop ends them, in order
	s.cancel = cancel
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	// The embedded NATS takes long to notice that the port is taken.
	l, err := net.Listen("tcp", plan.nats)
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return nil, fmt.Errorf("%w; --listen wants an address of this machine, and --public that at which others reach it", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; --listen 127.0.0.1:0 takes a free port", err)
	}
	_ = l.Close() // was only tried
	rv, err := server.New(server.Config{
		Listen: plan.nats, Allow: []job.ID{admit}, Logger: log,
		StoreBytes: devStore, JobStoreBytes: devStore, // in a temporary directory
	})
	if err != nil {
		return nil, err
	}
	if err := s.start(ctx, run, rv); err != nil {
		return nil, err
	}
	if s.url, err = plan.publicURL(rv.URL()); err != nil {
		return nil, err
	}
	for i, listen := range plan.relays {
		if err := s.addRelay(ctx, run, rv, plan, "dev-"+strconv.Itoa(i+1), listen, log); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// runner is a server that is ready some time after Run was called.
type runner interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

func (s *servers) start(ctx, run context.Context, r runner) error {
	ended := make(chan error, 1)
	s.wg.Go(func() {
		err := r.Run(run)
		if err == nil && run.Err() == nil {
			err = errors.New("a server ended by itself")
		}
		ended <- err
		if err != nil {
			s.failed <- err
		}
	})
	select {
	case <-r.Ready():
		return nil
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *servers) addRelay(ctx, run context.Context, rv *server.Server, plan devPlan, id string, listen netip.AddrPort, log *slog.Logger) error {
	cfg := relayserver.Config{
		ID: id, Listen: listen, Sockets: 1, Logger: log,
		TokenKey: func() ed25519.PublicKey { return rv.TokenKey() },
	}
	if listen.Port() != 0 {
		cfg.Listen2 = netip.AddrPortFrom(listen.Addr(), listen.Port()+1)
	}
	if plan.https {
		cfg.HTTPS = netip.AddrPortFrom(listen.Addr(), 0)
	}
	r, err := relayserver.New(cfg)
	if err != nil {
		return err
	}
	if err := s.start(ctx, run, r); err != nil {
		return err
	}
	one := devRelay{ID: id, Addr: plan.publicAddr(r.Addr())}
	for _, a := range r.STUNAddrs() {
		one.STUN = append(one.STUN, plan.publicAddr(a))
	}
	if plan.https {
		one.HTTPS = plan.publicAddr(r.HTTPSAddr()).String()
	}
	s.relays = append(s.relays, one)
	return rv.AddRelay(rendezvous.RelayInfo{ID: id, Addr: one.Addr, STUN: one.STUN, HTTPS: one.HTTPS, CertSHA256: r.CertSHA256()})
}

// stop ends all servers and waits for them.
func (s *servers) stop() {
	s.cancel()
	s.wg.Wait()
}

func (p devPlan) publicAddr(a netip.AddrPort) netip.AddrPort {
	if p.public.IsValid() {
		return netip.AddrPortFrom(p.public, a.Port())
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (p devPlan) publicURL(local string) (string, error) {
	if !p.public.IsValid() {
		return local, nil
	}
	u, err := url.Parse(local)
	if err != nil {
		return "", err
	}
	u.Host = net.JoinHostPort(p.public.String(), u.Port())
	return u.String(), nil
}
