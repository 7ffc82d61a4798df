package server_test

import (
	"crypto/ed25519"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

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
