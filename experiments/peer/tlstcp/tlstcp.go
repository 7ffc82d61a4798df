// Package tlstcp is the limit that transports are held against: a state over TLS 1.3 on one TCP connection, as crypto/tls and
// the kernel give it, from behind a NAT to a host that can be reached. It goes nowhere else: that is what others are for.
package tlstcp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/selfsigned"
)

// End is one end. The one that receives listens, on a free port of its public address.
type End struct {
	cert tls.Certificate
	ln   net.Listener
	addr netip.AddrPort
	conf *tls.Config
}

// New returns an end.
func New() peer.End { return &End{} }

type says struct {
	Addr        netip.AddrPort `json:"addr"`
	Certificate []byte         `json:"certificate"`
}

// Open implements peer.End.
func (e *End) Open(_ context.Context, a peer.OpenArgs) (string, error) {
	if !a.Receives {
		return "{}", nil
	}
	var err error
	if e.cert, err = selfsigned.New(); err != nil {
		return "", fmt.Errorf("tlstcp: %w", err)
	}
	if e.ln, err = net.Listen("tcp", netip.AddrPortFrom(a.Public, 0).String()); err != nil {
		return "", fmt.Errorf("tlstcp: %w", err)
	}
	e.conf = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{e.cert}}
	b, err := json.Marshal(says{e.ln.Addr().(*net.TCPAddr).AddrPort(), e.cert.Certificate[0]})
	return string(b), err
}

// Connect implements peer.End. Connections are made for each stream.
func (e *End) Connect(_ context.Context, other string) error {
	if e.ln != nil {
		return nil
	}
	var s says
	if err := json.Unmarshal([]byte(other), &s); err != nil {
		return fmt.Errorf("tlstcp: what the other end says: %w", err)
	}
	cert, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return fmt.Errorf("tlstcp: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	e.addr, e.conf = s.Addr, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: selfsigned.ServerName}
	return nil
}

// OpenStream implements peer.End.
func (e *End) OpenStream(ctx context.Context) (peer.Stream, error) {
	if !e.addr.IsValid() {
		return nil, errors.New("tlstcp: not connected")
	}
	c, err := (&tls.Dialer{Config: e.conf}).DialContext(ctx, "tcp", e.addr.String())
	if err != nil {
		return nil, fmt.Errorf("tlstcp: %w", err)
	}
	return stream{c.(*tls.Conn)}, nil
}

// AcceptStream implements peer.End.
func (e *End) AcceptStream(ctx context.Context) (peer.Stream, error) {
	if e.ln == nil {
		return nil, errors.New("tlstcp: does not listen")
	}
	defer context.AfterFunc(ctx, func() { _ = e.ln.Close() })()
	c, err := e.ln.Accept()
	if err != nil {
		return nil, fmt.Errorf("tlstcp: %w", err)
	}
	s := stream{tls.Server(c, e.conf)}
	if err := s.HandshakeContext(ctx); err != nil {
		s.Abort()
		return nil, fmt.Errorf("tlstcp: %w", err)
	}
	return s, nil
}

// Packets implements peer.End: TCP has segments, which the kernel counts.
func (e *End) Packets() (sent, received uint64) { return 0, 0 }

// Close implements peer.End.
func (e *End) Close() error {
	if e.ln == nil {
		return nil
	}
	return e.ln.Close()
}

type stream struct{ *tls.Conn }

// Abort implements peer.Stream.
func (s stream) Abort() { _ = s.NetConn().Close() }
