// Package plainquic is a baseline: a state sent over one stream of quic-go as it comes, on a pair of UDP sockets that
// were punched through their NATs. It has the flow-control windows, the TLS curve, the buffer sizes and the
// digest at both ends that fnwire has, so that what differs is the transport. It has no relay, no signalling and no
// recovery: addresses and certificate come from who uses it.
//
// A state on its stream: 8 bytes length, big endian, the bytes, 32 bytes SHA-256; the receiver answers with the SHA-256
// of what it got.
package plainquic

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	alpn         = "plain"
	serverName   = "peer"
	punchPace    = 10 * time.Millisecond
	punchExtra   = 3 // probes after the peer was heard, so that it hears too
	copyBytes    = 256 << 10
	maxStateSize = 1 << 40
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
func (p *Peer) Port() uint16 { return uint16(p.udp.LocalAddr().(*net.UDPAddr).Port) } //nolint:gosec // G115: a port

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

// Send sends a state of n bytes and waits for the receiver's digest, which it compares with its own.
func (p *Peer) Send(ctx context.Context, r io.Reader, n int64) ([sha256.Size]byte, error) {
	var digest [sha256.Size]byte
	s, err := p.conn.OpenStreamSync(ctx)
	if err != nil {
		return digest, fmt.Errorf("plainquic: %w", err)
	}
	defer context.AfterFunc(ctx, func() { s.CancelWrite(1); s.CancelRead(1) })()
	if _, err := s.Write(binary.BigEndian.AppendUint64(nil, uint64(n))); err != nil { //nolint:gosec // G115: a size
		return digest, fmt.Errorf("plainquic: send: %w", err)
	}
	h := sha256.New()
	buf := make([]byte, copyBytes)
	for left := n; left > 0; {
		m, err := io.ReadFull(r, buf[:min(int64(len(buf)), left)])
		if err != nil {
			return digest, fmt.Errorf("plainquic: state: %w", err)
		}
		h.Write(buf[:m])
		if _, err := s.Write(buf[:m]); err != nil {
			return digest, fmt.Errorf("plainquic: send: %w", err)
		}
		left -= int64(m)
	}
	h.Sum(digest[:0])
	if _, err := s.Write(digest[:]); err != nil {
		return digest, fmt.Errorf("plainquic: send: %w", err)
	}
	_ = s.Close()
	var theirs [sha256.Size]byte
	if _, err := io.ReadFull(s, theirs[:]); err != nil {
		return digest, fmt.Errorf("plainquic: receipt: %w", err)
	}
	if theirs != digest {
		return digest, errors.New("plainquic: the receiver has another digest")
	}
	return digest, nil
}

// Received is a state that has come.
type Received struct {
	Bytes       int64
	Digest      [sha256.Size]byte
	First, Last time.Time // when the application had the first byte, and the last with the right digest
}

// Receive waits for the next state, reads and checks it.
func (p *Peer) Receive(ctx context.Context) (Received, error) {
	var rc Received
	s, err := p.conn.AcceptStream(ctx)
	if err != nil {
		return rc, fmt.Errorf("plainquic: %w", err)
	}
	defer context.AfterFunc(ctx, func() { s.CancelWrite(1); s.CancelRead(1) })()
	var size [8]byte
	if _, err := io.ReadFull(s, size[:]); err != nil {
		return rc, fmt.Errorf("plainquic: receive: %w", err)
	}
	n := binary.BigEndian.Uint64(size[:])
	if n > maxStateSize {
		return rc, fmt.Errorf("plainquic: state of %d bytes", n)
	}
	h := sha256.New()
	buf := make([]byte, copyBytes)
	for left := int64(n); left > 0; { //nolint:gosec // G115: at most maxStateSize
		m, err := s.Read(buf[:min(int64(len(buf)), left)])
		if m > 0 && rc.Bytes == 0 {
			rc.First = time.Now()
		}
		h.Write(buf[:m])
		rc.Bytes += int64(m)
		left -= int64(m)
		if err != nil && left > 0 {
			return rc, fmt.Errorf("plainquic: receive: %w", err)
		}
	}
	var want [sha256.Size]byte
	if _, err := io.ReadFull(s, want[:]); err != nil {
		return rc, fmt.Errorf("plainquic: receive: %w", err)
	}
	h.Sum(rc.Digest[:0])
	rc.Last = time.Now()
	if rc.Digest != want {
		return rc, errors.New("plainquic: digest mismatch")
	}
	if _, err := s.Write(rc.Digest[:]); err != nil {
		return rc, fmt.Errorf("plainquic: receipt: %w", err)
	}
	return rc, s.Close()
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
