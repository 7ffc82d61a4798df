package transport

import (
	"bytes"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/fnwire/fnwire/internal/udpx"
)

// slowWire writes when it is told to.
type slowWire struct {
	udpx.Socket
	begun   chan struct{}
	proceed chan struct{}
	mu      sync.Mutex
	sent    []datagram
	err     error
}

func (w *slowWire) Write(b []byte, seg int, _ byte, to netip.AddrPort) error {
	w.begun <- struct{}{}
	<-w.proceed
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, datagram{bytes.Clone(b), seg, to})
	return w.err
}

func (*slowWire) Close() error { return nil }

// What comes while a call is under way goes out together, in order, with the bytes as they were.
func TestCoalesce(t *testing.T) {
	w := &slowWire{begun: make(chan struct{}), proceed: make(chan struct{})}
	var wg sync.WaitGroup
	var failed []error
	c := coalesce(w, &wg, func(err error) { failed = append(failed, err) })
	other := netip.MustParseAddrPort("192.0.2.3:9")
	fill := func(n int, with byte) []byte { return bytes.Repeat([]byte{with}, n) }
	write := func(b []byte, seg int, to netip.AddrPort) {
		t.Helper()
		if err := c.Write(b, seg, 0, to); err != nil {
			t.Fatal(err)
		}
	}
	write(fill(14000, 'a'), 1400, peerAddr) // is under way while the rest comes
	<-w.begun
	write(fill(14000, 'b'), 1400, peerAddr)
	write(fill(100, 'c'), 100, peerAddr)   // small, but must not overtake
	write(fill(9000, 'd'), 1400, peerAddr) // ends with a short packet, so nothing can follow it
	write(fill(14000, 'e'), 1400, peerAddr)
	write(fill(14000, 'f'), 1400, other)
	write(fill(14000, 'g'), 1400, other)
	w.err = errors.New("network is down")
	closed := make(chan struct{})
	go func() {
		_ = c.Close() // sends what is queued
		close(closed)
	}()
	for range 5 {
		w.proceed <- struct{}{}
		<-w.begun
	}
	w.proceed <- struct{}{}
	<-closed
	wg.Wait()
	want := []struct {
		bytes string
		at    netip.AddrPort
	}{{"a", peerAddr}, {"b", peerAddr}, {"c", peerAddr}, {"d", peerAddr}, {"e", peerAddr}, {"fg", other}}
	if len(w.sent) != len(want) {
		t.Fatalf("%d calls, want %d", len(w.sent), len(want))
	}
	for i, d := range w.sent {
		var got []byte
		for _, x := range d.b {
			if !bytes.Contains(got, []byte{x}) {
				got = append(got, x)
			}
		}
		if string(got) != want[i].bytes || d.at != want[i].at {
			t.Errorf("call %d carries %q to %v, want %q", i, got, d.at, want[i].bytes)
		}
	}
	if len(failed) != len(want) {
		t.Errorf("%d errors told", len(failed))
	}
	if err := c.Write(fill(14000, 'z'), 1400, 0, peerAddr); err != nil {
		t.Errorf("write after close: %v", err)
	}
}
