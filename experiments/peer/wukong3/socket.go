package wukong3

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/experiments/peer/plainquic"
)

const (
	// echoResend is the first RTO of STUN on a link of its own (RFC 8489, 6.2.1, asks for 500 ms or more elsewhere; the lab's coordinator is near).
	echoResend = 100 * time.Millisecond
	// echoEvery keeps the mapping of the NAT, which lasts 30 s at least.
	echoEvery  = 15 * time.Second
	queueDepth = 16 // of a pairing's packets, and of answers to ECHO
)

// heard is a packet of the other end's.
type heard struct {
	kind byte
	from netip.AddrPort
}

// attempt is a pairing whose ends are being connected.
type attempt struct {
	packets chan heard
	conns   chan *quic.Conn
}

// socket is a UDP socket behind a NAT, with a QUIC endpoint on it, on which any number of pairings can be connected.
type socket struct {
	udp         net.PacketConn
	coordinator *net.UDPAddr
	tr          *quic.Transport
	ln          *quic.Listener
	quic        *quic.Config
	port        uint16 // as the coordinator sees it
	echoed      chan netip.AddrPort
	cancel      context.CancelFunc
	wg          sync.WaitGroup
	token       id

	mu       sync.Mutex // guards what follows
	attempts map[id]*attempt
}

// openSocket returns a socket whose mapped port is known.
func openSocket(ctx context.Context, cfg *Config, cert tls.Certificate) (*socket, error) {
	udp, err := cfg.Listen()
	if err != nil {
		return nil, err
	}
	s := &socket{
		udp: udp, coordinator: net.UDPAddrFromAddrPort(cfg.Coordinator), tr: &quic.Transport{Conn: udp},
		quic: plainquic.Config(uint64(cfg.Causes.Window)), echoed: make(chan netip.AddrPort, queueDepth), attempts: make(map[id]*attempt),
	}
	_, _ = rand.Read(s.token[:]) // which ends the process rather than fail
	s.ln, err = s.tr.Listen(&tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			for _, proto := range hello.SupportedProtos {
				if s.attempt(proto) != nil {
					return plainquic.ServerTLS(cert, proto), nil
				}
			}
			return nil, errors.New("wukong3: no such pairing")
		},
	}, s.quic)
	if err != nil {
		_ = udp.Close()
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	ended, end := context.WithCancel(run)
	end()
	_, _, _ = s.tr.ReadNonQUICPacket(ended, nil) // from the first call on they are kept
	s.wg.Go(func() { s.read(run) })
	s.wg.Go(func() { s.accept(run) })
	if err := s.ask(ctx); err != nil {
		s.close()
		return nil, err
	}
	s.wg.Go(func() { s.keep(run) })
	return s, nil
}

// ask asks the coordinator for the mapped port until it answers.
func (s *socket) ask(ctx context.Context) error {
	for {
		if _, err := s.udp.WriteTo(appendEcho(nil, s.token, netip.AddrPort{}), s.coordinator); err != nil {
			return fmt.Errorf("mapped address: %w", err)
		}
		select {
		case a := <-s.echoed:
			s.port = a.Port()
			return nil
		case <-time.After(echoResend):
		case <-ctx.Done():
			return fmt.Errorf("mapped address: no answer of the coordinator over UDP: %w", context.Cause(ctx))
		}
	}
}

func (s *socket) keep(ctx context.Context) {
	t := time.NewTicker(echoEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			_, _ = s.udp.WriteTo(appendEcho(nil, s.token, netip.AddrPort{}), s.coordinator)
		case <-ctx.Done():
			return
		}
	}
}

func (s *socket) read(ctx context.Context) {
	buf := make([]byte, echoBytes+1)
	for {
		n, from, err := s.tr.ReadNonQUICPacket(ctx, buf)
		if err != nil {
			return
		}
		kind, of, mapped, ok := parseUDP(buf[:n])
		switch {
		case !ok:
		case kind == udpEchoed && of == s.token:
			select {
			case s.echoed <- mapped:
			default: // nobody asks: it was to keep the mapping
			}
		default:
			s.mu.Lock()
			a := s.attempts[of]
			s.mu.Unlock()
			if a == nil {
				continue
			}
			select {
			case a.packets <- heard{kind, addrPort(from)}:
			default:
			}
		}
	}
}

func (s *socket) accept(ctx context.Context) {
	for {
		conn, err := s.ln.Accept(ctx)
		if err != nil {
			return
		}
		if a := s.attempt(conn.ConnectionState().TLS.NegotiatedProtocol); a != nil {
			select {
			case a.conns <- conn:
				continue
			default:
			}
		}
		_ = conn.CloseWithError(1, "no such pairing")
	}
}

// attempt returns the pairing of an ALPN, or nil.
func (s *socket) attempt(proto string) *attempt {
	b, err := hex.DecodeString(proto)
	if err != nil || len(b) != idBytes {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts[id(b)]
}

// connect punches, then dials if this end sends, or waits to be dialled. punched is when the other end was heard to hear this one.
func (s *socket) connect(ctx context.Context, m matchMsg, resend time.Duration, sends bool) (conn *quic.Conn, punched time.Time, err error) {
	a := &attempt{make(chan heard, queueDepth), make(chan *quic.Conn, 1)}
	s.mu.Lock()
	s.attempts[m.pairing] = a
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.attempts, m.pairing)
		s.mu.Unlock()
		select {
		case late := <-a.conns:
			_ = late.CloseWithError(1, "too late")
		default:
		}
	}()
	to := net.UDPAddrFromAddrPort(m.addr)
	say := func(kind byte) {
		if kind != 0 {
			_, _ = s.udp.WriteTo(append([]byte{kind}, m.pairing[:]...), to) // what is lost is sent again
		}
	}
	p := newPuncher(resend, time.Now())
	t := time.NewTimer(0)
	defer t.Stop()
	failed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	var dialling sync.WaitGroup
	defer dialling.Wait()
	defer cancel()
	for {
		say(p.tick(time.Now()))
		if t.Stop(); !p.connected() {
			t.Reset(time.Until(p.next))
		}
		if p.connected() && punched.IsZero() {
			punched = time.Now()
			if sends {
				dialling.Go(func() { s.dial(ctx, m, a, failed) })
			}
		}
		select {
		case h := <-a.packets:
			if h.from == m.addr {
				say(p.heard(h.kind, time.Now()))
			}
		case conn := <-a.conns:
			if p.data(); punched.IsZero() {
				punched = time.Now()
			}
			return conn, punched, nil
		case err := <-failed:
			return nil, punched, err
		case <-t.C:
		case <-ctx.Done():
			if punched.IsZero() {
				return nil, punched, fmt.Errorf("%w: %v is silent, or not heard by", ErrUnreachable, m.addr)
			}
			return nil, punched, fmt.Errorf("%w: handshake with %v: %w", ErrUnreachable, m.addr, context.Cause(ctx))
		}
	}
}

func (s *socket) dial(ctx context.Context, m matchMsg, a *attempt, failed chan<- error) {
	conf, err := plainquic.ClientTLS(m.cert, hex.EncodeToString(m.pairing[:]))
	if err != nil {
		failed <- err
		return
	}
	conn, err := s.tr.Dial(ctx, net.UDPAddrFromAddrPort(m.addr), conf, s.quic)
	if err != nil {
		failed <- fmt.Errorf("%w: handshake with %v: %w", ErrUnreachable, m.addr, err)
		return
	}
	a.conns <- conn
}

func (s *socket) close() {
	s.cancel()
	_ = s.ln.Close()
	_ = s.tr.Close()
	_ = s.udp.Close()
	s.wg.Wait()
}
