// Package plainquic is a baseline: a state sent over one stream of quic-go as it comes, on a pair of UDP sockets that
// were punched through their NATs. It has the flow-control windows and the TLS curve that fnwire has, and package onestream
// on top, so that what differs is the transport. It has no relay, no signalling and no recovery: addresses and certificate
// come from who uses it.
package plainquic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/peer/selfsigned"
)

const (
	alpn       = "plain"
	punchPace  = 10 * time.Millisecond
	punchExtra = 3 // probes after the peer was heard, so that it hears too
)

// Config has the values of package transport where they matter to the speed of one stream. If window is not 0, so many bytes
// of a stream, and of a connection, are under way at most.
func Config(window uint64) *quic.Config {
	c := &quic.Config{
		MaxIdleTimeout:                 15 * time.Second,
		KeepAlivePeriod:                5 * time.Second,
		InitialStreamReceiveWindow:     2 << 20,
		MaxStreamReceiveWindow:         16 << 20,
		InitialConnectionReceiveWindow: 3 << 20,
		MaxConnectionReceiveWindow:     24 << 20,
		InitialPacketSize:              1280,
	}
	if window > 0 {
		c.InitialStreamReceiveWindow, c.MaxStreamReceiveWindow = window, window
		c.InitialConnectionReceiveWindow, c.MaxConnectionReceiveWindow = window, window
	}
	return c
}

// ServerTLS is of an end that accepts and shows cert.
func ServerTLS(cert tls.Certificate, alpn string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, Certificates: []tls.Certificate{cert},
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
}

// ClientTLS is of an end that dials one which has that certificate, in DER.
func ClientTLS(certificate []byte, alpn string) (*tls.Config, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("plainquic: peer's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, RootCAs: roots, ServerName: selfsigned.ServerName,
		CurvePreferences: []tls.CurveID{tls.X25519},
	}, nil
}

// Peer is one end: a UDP socket or what stands for one, and later a connection.
type Peer struct {
	udp  net.PacketConn
	cert tls.Certificate
	tr   *quic.Transport
	conn *quic.Conn
}

// Open binds a UDP socket on all IPv4 addresses.
func Open() (*Peer, error) {
	udp, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, fmt.Errorf("plainquic: %w", err)
	}
	return OpenOn(udp)
}

// OpenOn makes a peer of a packet conn, whose addresses are of type *net.UDPAddr, and which it closes.
func OpenOn(c net.PacketConn) (*Peer, error) {
	cert, err := selfsigned.New()
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("plainquic: certificate: %w", err)
	}
	return &Peer{udp: c, cert: cert}, nil
}

// Port is the socket's local port.
func (p *Peer) Port() uint16 { return addrPort(p.udp.LocalAddr()).Port() }

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := u.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Certificate is what the accepting end shows, in DER; the dialling end must be given it.
func (p *Peer) Certificate() []byte { return p.cert.Certificate[0] }

// Punch sends packets to the peer until one of the peer's has come, which both ends must do at the same time.
func (p *Peer) Punch(ctx context.Context, peer netip.AddrPort) error {
	buf := make([]byte, 16)
	to := net.UDPAddrFromAddrPort(peer)
	defer p.udp.SetReadDeadline(time.Time{}) //nolint:errcheck // of an open socket
	for ctx.Err() == nil {
		if _, err := p.udp.WriteTo([]byte{0}, to); err != nil {
			return fmt.Errorf("plainquic: punch: %w", err)
		}
		if err := p.udp.SetReadDeadline(time.Now().Add(punchPace)); err != nil {
			return fmt.Errorf("plainquic: punch: %w", err)
		}
		_, from, err := p.udp.ReadFrom(buf)
		if err == nil && addrPort(from) == peer {
			for range punchExtra {
				_, _ = p.udp.WriteTo([]byte{0}, to) // the peer needs one of them
			}
			return nil
		}
	}
	return fmt.Errorf("plainquic: nothing heard from %v: %w", peer, ctx.Err())
}

// Accept waits for the peer to connect.
func (p *Peer) Accept(ctx context.Context) error {
	p.tr = &quic.Transport{Conn: p.udp}
	ln, err := p.tr.Listen(ServerTLS(p.cert, alpn), Config(0))
	if err != nil {
		return fmt.Errorf("plainquic: listen: %w", err)
	}
	if p.conn, err = ln.Accept(ctx); err != nil {
		return fmt.Errorf("plainquic: accept: %w", err)
	}
	return nil
}

// Dial connects to a peer that accepts and has that certificate.
func (p *Peer) Dial(ctx context.Context, peer netip.AddrPort, certificate []byte) error {
	conf, err := ClientTLS(certificate, alpn)
	if err != nil {
		return err
	}
	p.tr = &quic.Transport{Conn: p.udp}
	if p.conn, err = p.tr.Dial(ctx, net.UDPAddrFromAddrPort(peer), conf, Config(0)); err != nil {
		return fmt.Errorf("plainquic: dial: %w", err)
	}
	return nil
}

// Send sends a state of n bytes on a new stream, and returns its checksum when the receiver has found the same.
func (p *Peer) Send(ctx context.Context, r io.Reader, n int64, check onestream.Check) ([]byte, error) {
	s, err := p.OpenStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("plainquic: %w", err)
	}
	defer context.AfterFunc(ctx, s.Abort)()
	return onestream.Send(s, r, n, check)
}

// Receive waits for the next state, reads and checks it.
func (p *Peer) Receive(ctx context.Context, check onestream.Check) (onestream.Received, error) {
	s, err := p.AcceptStream(ctx)
	if err != nil {
		return onestream.Received{}, fmt.Errorf("plainquic: %w", err)
	}
	defer context.AfterFunc(ctx, s.Abort)()
	return onestream.Receive(s, check)
}

// Stream calls by its right name what quic-go calls Close.
type Stream struct{ *quic.Stream }

// CloseWrite ends what is written.
func (s Stream) CloseWrite() error { return s.Close() }

// Abort ends reading and writing.
func (s Stream) Abort() { s.CancelWrite(1); s.CancelRead(1) }

// OpenStream opens a stream.
func (p *Peer) OpenStream(ctx context.Context) (Stream, error) {
	s, err := p.conn.OpenStreamSync(ctx)
	return Stream{s}, err
}

// AcceptStream waits for a stream of the other end's.
func (p *Peer) AcceptStream(ctx context.Context) (Stream, error) {
	s, err := p.conn.AcceptStream(ctx)
	return Stream{s}, err
}

// Packets returns how many QUIC packets were sent and received.
func (p *Peer) Packets() (sent, received uint64) {
	if p.conn == nil {
		return 0, 0
	}
	s := p.conn.ConnectionStats()
	return s.PacketsSent, s.PacketsReceived
}

// Close ends the connection and frees the socket.
func (p *Peer) Close() error {
	if p.conn != nil {
		_ = p.conn.CloseWithError(0, "")
	}
	if p.tr != nil {
		_ = p.tr.Close()
	}
	return p.udp.Close()
}
