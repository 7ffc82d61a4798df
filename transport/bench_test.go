package transport_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/quic-go/quic-go"

	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/transport"
)

const benchBytes = 256 << 20

// pump writes and reads benchBytes; one iteration is one such transfer.
func pump(b *testing.B, w io.WriteCloser, r io.Reader) {
	b.Helper()
	b.SetBytes(benchBytes)
	done := make(chan error, 1)
	b.ResetTimer()
	go func() {
		_, err := io.CopyN(w, zeros{}, int64(b.N)*benchBytes)
		done <- err
	}()
	buf := make([]byte, 256<<10)
	for left := int64(b.N) * benchBytes; left > 0; {
		n, err := r.Read(buf)
		left -= int64(n)
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// BenchmarkLink is one stream over a direct path, both ends in this process.
func BenchmarkLink(b *testing.B) {
	ctx := context.Background()
	key := job.NewKey()
	x, y := open(b, key, nil), open(b, key, nil)
	for _, p := range [][2]*transport.Endpoint{{x, y}, {y, x}} {
		if err := p[0].Admit(describe(p[1], ""), transport.Auto, false); err != nil {
			b.Fatal(err)
		}
	}
	lx, err := x.Link(ctx, y.PeerID(), transport.Auto)
	if err != nil {
		b.Fatal(err)
	}
	ly, err := y.Link(ctx, x.PeerID(), transport.Auto)
	if err != nil {
		b.Fatal(err)
	}
	s, err := lx.OpenStream(ctx)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = s.Write([]byte{0})
	r, err := ly.AcceptStream(ctx)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = r.Read(make([]byte, 1))
	pump(b, s, r)
}

// BenchmarkPlainQUIC is the same with quic-go on its own sockets and the same windows.
func BenchmarkPlainQUIC(b *testing.B) {
	ctx := context.Background()
	conf := &quic.Config{
		InitialStreamReceiveWindow: 2 << 20, MaxStreamReceiveWindow: 16 << 20,
		InitialConnectionReceiveWindow: 3 << 20, MaxConnectionReceiveWindow: 24 << 20,
	}
	var trs [2]*quic.Transport
	var confs [2]*tls.Config
	for i := range trs {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		trs[i] = &quic.Transport{Conn: c}
		id, err := ident.New()
		if err != nil {
			b.Fatal(err)
		}
		t, err := libp2ptls.NewIdentity(id.Private)
		if err != nil {
			b.Fatal(err)
		}
		confs[i], _ = t.ConfigForPeer("")
		b.Cleanup(func() { _ = trs[i].Close(); _ = c.Close() })
	}
	ln, err := trs[1].Listen(confs[1], conf)
	if err != nil {
		b.Fatal(err)
	}
	c, err := trs[0].Dial(ctx, ln.Addr(), confs[0], conf)
	if err != nil {
		b.Fatal(err)
	}
	s, err := c.OpenStream()
	if err != nil {
		b.Fatal(err)
	}
	_, _ = s.Write([]byte{0})
	a, err := ln.Accept(ctx)
	if err != nil {
		b.Fatal(err)
	}
	r, err := a.AcceptStream(ctx)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = r.Read(make([]byte, 1))
	pump(b, s, r)
}
