// Package plainquic is a baseline: a state sent over one stream of quic-go as it comes, on a pair of UDP sockets that
// were punched through their NATs. It has the flow-control windows and the TLS curve that fnwire has, and package onestream
// on top, so that what differs is the transport. It has no relay, no signalling and no recovery: addresses and certificate
// come from who uses it.
package plainquic

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/experiments/peer/onestream"
)

const (
	alpn       = "plain"
	serverName = "peer"
	punchPace  = 10 * time.Millisecond
	punchExtra = 3 // probes after the peer was heard, so that it hears too
)

// config has the values of package transport where they matter to the speed of one stream.
func config() *quic.Config {
	return &quic.Config{
		MaxIdleTimeout:                 15 * time.Second,
		KeepAlivePeriod:                5 * time.Second,
		InitialStreamReceiveWindow:     2 << 20,
		MaxStreamReceiveWindow:         16 << 20,
		InitialConnectionReceiveWindow: 3 << 20,
		MaxConnectionReceiveWindow:     24 << 20,
		InitialPacketSize:              1280,
	}
}

// Peer is one end: a UDP socket, and later a connection.
type Peer struct {
	udp  *net.UDPConn
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
	cert, err := selfSigned()
	if err != nil {
		_ = udp.Close()
		return nil, fmt.Errorf("plainquic: certificate: %w", err)
	}
	return &Peer{udp: udp, cert: cert}, nil
}

// Port is the socket's local port.
func (p *Peer) Port() uint16 { return uint16(p.udp.LocalAddr().(*net.UDPAddr).Port) }

// Certificate is what the accepting end shows, in DER; the dialling end must be given it.
func (p *Peer) Certificate() []byte { return p.cert.Certificate[0] }

// Punch sends packets to the peer until one of the peer's has come, which both ends must do at the same time.
func (p *Peer) Punch(ctx context.Context, peer netip.AddrPort) error {
	buf := make([]byte, 16)
	defer p.udp.SetReadDeadline(time.Time{}) //nolint:errcheck // of an open socket
	for ctx.Err() == nil {
		if _, err := p.udp.WriteToUDPAddrPort([]byte{0}, peer); err != nil {
			return fmt.Errorf("plainquic: punch: %w", err)
		}
		if err := p.udp.SetReadDeadline(time.Now().Add(punchPace)); err != nil {
			return fmt.Errorf("plainquic: punch: %w", err)
		}
		_, from, err := p.udp.ReadFromUDPAddrPort(buf)
		if err == nil && netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) == peer {
			for range punchExtra {
				_, _ = p.udp.WriteToUDPAddrPort([]byte{0}, peer) // the peer needs one of them
			}
			return nil
		}
	}
	return fmt.Errorf("plainquic: nothing heard from %v: %w", peer, ctx.Err())
}

// Accept waits for the peer to connect.
func (p *Peer) Accept(ctx context.Context) error {
	p.tr = &quic.Transport{Conn: p.udp}
	ln, err := p.tr.Listen(&tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, Certificates: []tls.Certificate{p.cert},
		CurvePreferences: []tls.CurveID{tls.X25519},
	}, config())
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
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return fmt.Errorf("plainquic: peer's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	p.tr = &quic.Transport{Conn: p.udp}
	p.conn, err = p.tr.Dial(ctx, net.UDPAddrFromAddrPort(peer), &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, RootCAs: roots, ServerName: serverName,
		CurvePreferences: []tls.CurveID{tls.X25519},
	}, config())
	if err != nil {
		return fmt.Errorf("plainquic: dial: %w", err)
	}
	return nil
}

// Send sends a state of n bytes on a new stream, and returns its checksum when the receiver has found the same.
func (p *Peer) Send(ctx context.Context, r io.Reader, n int64, check onestream.Check) ([]byte, error) {
	s, err := p.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, fmt.Errorf("plainquic: %w", err)
	}
	defer context.AfterFunc(ctx, func() { s.CancelWrite(1); s.CancelRead(1) })()
	return onestream.Send(stream{s}, r, n, check)
}

// Receive waits for the next state, reads and checks it.
func (p *Peer) Receive(ctx context.Context, check onestream.Check) (onestream.Received, error) {
	s, err := p.conn.AcceptStream(ctx)
	if err != nil {
		return onestream.Received{}, fmt.Errorf("plainquic: %w", err)
	}
	defer context.AfterFunc(ctx, func() { s.CancelWrite(1); s.CancelRead(1) })()
	return onestream.Receive(stream{s}, check)
}

// stream calls by its right name what quic-go calls Close.
type stream struct{ *quic.Stream }

func (s stream) CloseWrite() error { return s.Close() }

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

func selfSigned() (tls.Certificate, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{serverName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, pub, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
