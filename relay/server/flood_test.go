package server_test

import (
	"crypto/ed25519"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/relay/server"
)

// While the goroutine that checks signatures has more than it can do (here it does nothing at all), packets of sessions
// and pings pass as if nothing were, and binds wait or are lost.
func TestFloodOfBindsDelaysNothingElse(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("binds have a socket of their own on Linux only")
	}
	w := newWorld(t, server.Limits{})
	w.stop()
	stuck, release := make(chan struct{}), make(chan struct{})
	var blocking sync.Once
	var hold atomic.Bool
	w.cfg.TokenKey = func() ed25519.PublicKey {
		if hold.Load() {
			blocking.Do(func() { close(stuck) })
			<-release
		}
		return w.public
	}
	w.startRelay()
	defer w.stop()
	defer close(release) // before that
	a, b := w.raw(), w.raw()
	a.bind()
	b.bind()
	hold.Store(true)
	flood := w.raw()
	frame, _ := flood.bindFrame()
	for range 20000 {
		flood.send(frame)
	}
	<-stuck
	for range 20 {
		a.data(b.short, "through the flood")
		b.wantData(a.short, "through the flood")
		if !a.bound() {
			t.Fatal("a ping is not answered")
		}
	}
}

// Answers to strangers are bounded for each network: what an attacker with forged addresses can have sent to a victim.
func TestAnswersToStrangersAreLimited(t *testing.T) {
	for name, frame := range map[string][]byte{
		"UNBOUND": relay.AppendPing(nil, relay.Ping{}),
		"STUN":    stunRequest(t, 12, false),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, server.Limits{})
			r := w.raw()
			var wg sync.WaitGroup
			wg.Go(func() {
				b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
				for r.Read(&b) == nil {
					continue
				}
			})
			other, err := udpx.Listen("udp4", netip.MustParseAddrPort("127.0.1.1:0")) // another /24
			if err != nil {
				t.Skipf("no second network on the loopback interface: %v", err)
			}
			defer other.Close()
			w.dropped("limit", 100, func() {
				for range 30000 {
					r.send(frame)
				}
			})
			if err := other.Write(frame, 0, 0, w.srv.Addr()); err != nil {
				t.Fatal(err)
			}
			b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
			_ = other.SetReadDeadline(time.Now().Add(patient))
			if err := other.Read(&b); err != nil {
				t.Errorf("another network gets no answer: %v", err)
			}
			_ = r.Close()
			wg.Wait()
		})
	}
}
