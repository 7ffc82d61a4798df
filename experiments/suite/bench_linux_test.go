package suite_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/transport"
)

const benchBytes = 256 << 20

func pumpStream(b *testing.B, w io.Writer, r io.Reader) {
	b.Helper()
	b.SetBytes(benchBytes)
	done := make(chan error, 1)
	b.ResetTimer()
	go func() {
		buf := make([]byte, 256<<10)
		for left := int64(b.N) * benchBytes; left > 0; left -= int64(len(buf)) {
			if _, err := w.Write(buf); err != nil {
				done <- err
				return
			}
		}
		done <- nil
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

func twoNATs(b *testing.B) *lab.Lab {
	b.Helper()
	return labtest.New(b, lab.Host{Name: "a", NAT: lab.PortRestricted}, lab.Host{Name: "b", NAT: lab.PortRestricted})
}

// BenchmarkLinkThroughNATs is one stream over a link between two hosts behind port-restricted NATs, both ends
// in this process.
func BenchmarkLinkThroughNATs(b *testing.B) {
	l := twoNATs(b)
	key := job.NewKey()
	eps := map[string]*transport.Endpoint{}
	for _, h := range []string{"a", "b"} {
		id, _ := ident.New()
		if err := l.Do(h, func() error {
			e, err := transport.Open(transport.Config{Identity: id, Key: key, NoIPv6: true})
			eps[h] = e
			return err
		}); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = eps[h].Close() })
	}
	desc := func(h string) transport.Peer {
		return transport.Peer{ID: eps[h].PeerID(), Nonce: eps[h].Nonce(), Candidates: []netip.AddrPort{netip.AddrPortFrom(l.PublicAddr(h), eps[h].LocalPort())}}
	}
	_ = eps["a"].Admit(desc("b"), transport.Auto, false)
	_ = eps["b"].Admit(desc("a"), transport.Auto, false)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	la, err := eps["a"].Link(ctx, eps["b"].PeerID(), transport.Auto)
	if err != nil {
		b.Fatal(err)
	}
	lb, err := eps["b"].Link(ctx, eps["a"].PeerID(), transport.Auto)
	if err != nil {
		b.Fatal(err)
	}
	s, err := la.OpenStream(ctx)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = s.Write([]byte{0})
	r, err := lb.AcceptStream(ctx)
	if err != nil {
		b.Fatal(err)
	}
	_, _ = r.Read(make([]byte, 1))
	pumpStream(b, s, r)
}

// BenchmarkPlainQUICThroughNATs is the same with quic-go on its own sockets and the same windows.
func BenchmarkPlainQUICThroughNATs(b *testing.B) {
	l := twoNATs(b)
	ctx := context.Background()
	conf := &quic.Config{
		InitialStreamReceiveWindow: 2 << 20, MaxStreamReceiveWindow: 16 << 20,
		InitialConnectionReceiveWindow: 3 << 20, MaxConnectionReceiveWindow: 24 << 20,
	}
	var trs [2]*quic.Transport
	var confs [2]*tls.Config
	var addrs [2]*net.UDPAddr
	for i, h := range []string{"a", "b"} {
		var c *net.UDPConn
		if err := l.Do(h, func() (err error) { c, err = net.ListenUDP("udp4", nil); return err }); err != nil {
			b.Fatal(err)
		}
		addrs[i] = net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.PublicAddr(h), uint16(c.LocalAddr().(*net.UDPAddr).Port)))
		trs[i] = &quic.Transport{Conn: c}
		id, _ := ident.New()
		t, err := libp2ptls.NewIdentity(id.Private)
		if err != nil {
			b.Fatal(err)
		}
		confs[i], _ = t.ConfigForPeer("")
		b.Cleanup(func() { _ = trs[i].Close(); _ = c.Close() })
	}
	for range 3 {
		_, _ = trs[0].WriteTo([]byte{0}, addrs[1])
		_, _ = trs[1].WriteTo([]byte{0}, addrs[0])
	}
	ln, err := trs[1].Listen(confs[1], conf)
	if err != nil {
		b.Fatal(err)
	}
	c, err := trs[0].Dial(ctx, addrs[1], confs[0], conf)
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
	pumpStream(b, s, r)
}
