// Package server is the relay: it forwards packets between the instances of a job by identity, and
// answers STUN binding requests on its main port and on a second one, so that an instance can tell
// whether its NAT maps by destination. The protocol is described in package relay.
//
// It sees ciphertext only, keeps nothing on disk, knows of no other relay, and queues no packets: what
// the kernel's socket buffers do not take is dropped. (Connections over TLS have a queue of 256 KiB each.) A batch that the kernel hands over is rewritten in
// place, and each run of packets for one destination leaves by one system call.
//
// STUN (RFC 8489) is answered when the answer is no longer than the request, so that the relay cannot
// amplify: a request needs 12 bytes of attributes over IPv4 and 24 over IPv6, for instance a SOFTWARE
// attribute; one with FINGERPRINT needs these besides. Others get silence, as do requests whose
// attributes the responder would have to understand and does not. CHANGE-REQUEST (RFC 5780) for the other port is
// understood: from that port the answer tells an instance what its NAT filters.
package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"crypto/ed25519"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
)

// Config of a relay. ID and TokenKey are required; zero means the default.
type Config struct {
	ID string // as tokens name it; the rule for names applies
	// Listen is the main address. The zero value is a free port on all addresses; [::] takes IPv4 too.
	Listen netip.AddrPort
	// Listen2 is the second STUN address. The zero value is a free port on Listen's IP address.
	Listen2 netip.AddrPort
	// TokenKey returns the public key that verifies tokens. While it is nil nobody is admitted. It is
	// called for each bind, from any goroutine.
	TokenKey func() ed25519.PublicKey
	// HTTPS is the TCP address of the same service over WebSocket and TLS. The zero value is none.
	HTTPS netip.AddrPort
	// Certificate is what HTTPS shows; nil makes one, signed by itself. Clients know it by its hash.
	Certificate *tls.Certificate
	Limits      Limits
	// Drain is for how long the relay goes on forwarding after it was told to end, so that its clients, which it tells at
	// once, can move to another. Zero is not at all.
	Drain   time.Duration
	Sockets int          // that share the packets of the main port, for as many cores; 0 is one per core, at most 8
	Logger  *slog.Logger // nil discards
	// Conns, when set, are used instead of the system's sockets: an in-memory network in virtual time. The last one is
	// the second STUN address, those before it share the main one.
	Conns []udpx.Socket
}

// Server is a relay. Its methods may be called from any goroutine.
type Server struct {
	cfg     Config
	log     *slog.Logger
	start   time.Time
	random  uint64 // tells this start from others
	secret  [32]byte
	table   *table
	control controlQueue
	gate    *gate // of frames whose signature is to be checked
	replies *gate // of answers to who has no session
	links   *links
	cert    tls.Certificate
	total   bucket
	ports   [2]udpx.Socket // a socket of the main port and that of the second; set before any is read
	counters
	draining atomic.Bool // binds are refused

	ready  chan struct{}
	mu     sync.Mutex // guards addresses
	addr   netip.AddrPort
	second netip.AddrPort
	https  netip.AddrPort
}

// New makes a relay; Run brings it to life. An ID that is not a name is an error, as is a negative limit.
func New(cfg Config) (*Server, error) {
	if err := job.CheckName(cfg.ID); err != nil {
		return nil, fmt.Errorf("relay: ID: %w", err)
	}
	if cfg.TokenKey == nil {
		return nil, errors.New("relay: no token key: nobody could bind")
	}
	if !cfg.Listen.Addr().IsValid() {
		cfg.Listen = netip.AddrPortFrom(netip.IPv6Unspecified(), cfg.Listen.Port())
	}
	if !cfg.Listen2.Addr().IsValid() {
		cfg.Listen2 = netip.AddrPortFrom(cfg.Listen.Addr(), cfg.Listen2.Port())
	}
	if cfg.Sockets < 0 {
		return nil, fmt.Errorf("relay: %d sockets", cfg.Sockets)
	}
	cfg.Sockets = cmp.Or(cfg.Sockets, min(runtime.GOMAXPROCS(0), 8))
	if err := cfg.Limits.check(); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	cfg.Limits = cfg.Limits.withDefaults()
	s := &Server{
		cfg: cfg, log: cfg.Logger, start: time.Now(),
		table: newTable(cfg.Limits), control: newControlQueue(), gate: newGate(gateRate), replies: newGate(replyRate),
		total: bucket{rate: cfg.Limits.TotalBytesPerSecond},
		ready: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("relay", cfg.ID)
	_, _ = rand.Read(s.secret[:]) // never fails (crypto/rand)
	var n [8]byte
	_, _ = rand.Read(n[:])
	s.random = binary.BigEndian.Uint64(n[:]) | 1
	s.links = newLinks(cfg.Limits)
	if cfg.HTTPS.Addr().IsValid() {
		var err error
		if s.cert, err = certificate(cfg.Certificate, cfg.ID); err != nil {
			return nil, fmt.Errorf("relay: certificate: %w", err)
		}
	}
	return s, nil
}

// Ready is closed when the sockets are open.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr returns the address that the main socket is bound to, which may be a wildcard; valid once Ready.
func (s *Server) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// STUNAddrs returns the addresses at which STUN is answered, the main one first; valid once Ready.
func (s *Server) STUNAddrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []netip.AddrPort{s.addr, s.second}
}

// HTTPSAddr returns the address at which WebSocket connections are taken, which may be a wildcard; valid once
// Ready, and the zero value without HTTPS.
func (s *Server) HTTPSAddr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.https
}

// CertSHA256 returns the hash of the certificate at HTTPSAddr, by which clients know it; nil without HTTPS.
func (s *Server) CertSHA256() []byte {
	if len(s.cert.Certificate) == 0 {
		return nil
	}
	h := sha256.Sum256(s.cert.Certificate[0])
	return h[:]
}

// Revoke ends the session of an instance and refuses it for an hour.
func (s *Server) Revoke(id ident.Short) {
	if s.table.revoke(id, s.now()) {
		s.log.Debug("relay: session revoked", "short", id)
	}
}

// now counts from the start of the server, on the monotonic clock.
func (s *Server) now() time.Duration { return time.Since(s.start) }

// Run opens the sockets and forwards until ctx ends, and for Config.Drain longer; it then returns nil, and everything
// it started has ended. It is called once.
func (s *Server) Run(asked context.Context) error {
	main, steered, second, err := s.open()
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	tcp, err := s.openHTTPS()
	if err != nil {
		for _, c := range append(main, second) {
			_ = c.Close()
		}
		return fmt.Errorf("relay: %w", err)
	}
	s.ports = [2]udpx.Socket{main[0], second}
	ctx, cancel := context.WithCancel(context.WithoutCancel(asked))
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, len(main)+2)
	for i, c := range main {
		var patient <-chan struct{}
		if steered && i == len(main)-1 {
			patient = ctx.Done()
		}
		wg.Go(func() { failed <- s.forward(c, patient) })
	}
	wg.Go(func() { failed <- s.answerSTUN(second) })
	if tcp != nil {
		wg.Go(func() { failed <- s.serveHTTPS(ctx, tcp, main) })
	}
	wg.Go(func() { s.handleControl(ctx) })
	wg.Go(func() { s.sweep(ctx) })

	s.mu.Lock()
	s.addr, s.second = main[0].LocalAddr(), second.LocalAddr()
	if tcp != nil {
		s.https = tcp.Addr().(*net.TCPAddr).AddrPort()
	}
	s.mu.Unlock()
	close(s.ready)
	s.log.Info("relay: listening", "addr", main[0].LocalAddr(), "stun2", second.LocalAddr(), "sockets", len(main), "steered", steered, "https", s.HTTPSAddr())

	select {
	case <-asked.Done():
		err = s.drain(failed)
	case err = <-failed:
	}
	if err != nil {
		err = fmt.Errorf("relay: socket: %w", err)
	}
	cancel()
	for _, c := range append(main, second) {
		_ = c.Close()
	}
	wg.Wait()
	return err
}

// open opens the sockets: those that share the main port, and the second STUN port. If steered, the last of main gets the
// binds and nothing else, so that a flood of them does not displace the packets of sessions; the others share those by the
// Short that they are for, so that all that goes to one instance takes one socket.
func (s *Server) open() (main []udpx.Socket, steered bool, second udpx.Socket, err error) {
	if n := len(s.cfg.Conns); n > 1 {
		return slices.Clone(s.cfg.Conns[:n-1]), false, s.cfg.Conns[n-1], nil
	}
	n := s.cfg.Sockets + 1
	group, err := udpx.ListenGroup(network(s.cfg.Listen), s.cfg.Listen, n)
	if err != nil && s.cfg.Listen.Addr() == netip.IPv6Unspecified() {
		// A host without IPv6.
		s.cfg.Listen = netip.AddrPortFrom(netip.IPv4Unspecified(), s.cfg.Listen.Port())
		s.cfg.Listen2 = netip.AddrPortFrom(netip.IPv4Unspecified(), s.cfg.Listen2.Port())
		group, err = udpx.ListenGroup("udp4", s.cfg.Listen, n)
	}
	if err != nil {
		return nil, false, nil, err
	}
	for _, c := range group {
		main = append(main, c)
	}
	steered = udpx.Steer(group, relay.TypeBind, relay.HeaderBytes-4)
	second, err = udpx.Listen(network(s.cfg.Listen2), s.cfg.Listen2)
	if err != nil {
		for _, c := range main {
			_ = c.Close()
		}
		return nil, false, nil, err
	}
	return main, steered, second, nil
}

func network(a netip.AddrPort) string {
	switch {
	case a.Addr().Unmap().Is4():
		return "udp4"
	case a.Addr().IsUnspecified():
		return "udp"
	default:
		return "udp6"
	}
}

// sweep ends what has expired.
func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.ended.Add(uint64(s.table.sweep(s.now())))
		}
	}
}

// answerSTUN serves the second port, where nothing else is spoken.
func (s *Server) answerSTUN(c udpx.Socket) error {
	b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	var out []byte
	for {
		if err := c.Read(&b); err != nil {
			return closed(err)
		}
		for p := b.Buf[:b.N]; len(p) > 0; p = p[min(b.Seg, len(p)):] {
			out = s.stun(c, out, p[:min(b.Seg, len(p))], b.From, s.now())
		}
	}
}

func (s *Server) stun(c udpx.Socket, out, request []byte, from netip.AddrPort, now time.Duration) []byte {
	out, change := appendSTUN(out[:0], request, from)
	if len(out) == 0 {
		s.dropped[dropStranger].Add(1)
		return out
	}
	if !s.replies.admits(from.Addr(), now) {
		s.dropped[dropLimit].Add(1)
		return out
	}
	s.stunAnswered.Add(1)
	if change {
		c = s.otherPort(c)
	}
	s.reply(c, out, origin{addr: from})
	return out
}

// otherPort returns a socket of the port at which c is not.
func (s *Server) otherPort(c udpx.Socket) udpx.Socket {
	if c == s.ports[1] {
		return s.ports[0]
	}
	return s.ports[1]
}

// reply sends a control frame; if it is lost the client asks again.
func (s *Server) reply(c udpx.Socket, b []byte, to origin) {
	if to.link != nil {
		s.dropped[dropQueue].Add(uint64(to.link.out.Put(b, 0)))
		return
	}
	if err := c.Write(b, 0, 0, to.addr); err != nil {
		s.dropped[dropSend].Add(1)
	}
}

func closed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
