package transport

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/transport/punch"
)

// countingSocket hears nothing, and counts what is sent to whom.
type countingSocket struct {
	once   sync.Once
	closed chan struct{}

	mu    sync.Mutex // guards what follows
	bytes map[netip.AddrPort]int
}

func newCountingSocket() *countingSocket {
	return &countingSocket{closed: make(chan struct{}), bytes: make(map[netip.AddrPort]int)}
}

// openOver opens an endpoint that has one socket.
func openOver(t *testing.T, s udpx.Socket) *Endpoint {
	t.Helper()
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(Config{Identity: id, Key: job.NewKey(), Sockets: []udpx.Socket{s}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (s *countingSocket) Read(*udpx.Batch) error {
	<-s.closed
	return net.ErrClosed
}

func (s *countingSocket) Write(b []byte, _ int, _ byte, to netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes[to] += len(b)
	return nil
}

func (s *countingSocket) LocalAddr() netip.AddrPort {
	return netip.MustParseAddrPort("198.51.100.1:4001")
}

func (s *countingSocket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *countingSocket) to(a netip.AddrPort) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes[a]
}

// TestThousandPeersNameOneVictim measures what a stranger gets from one instance that is told by a thousand of its
// job's members, who must hold the job's key, that they are to be found at the stranger's address.
func TestThousandPeersNameOneVictim(t *testing.T) {
	const peers = 1000
	synctest.Test(t, func(t *testing.T) {
		socket := newCountingSocket()
		e := openOver(t, socket)
		defer e.Close()
		victim := netip.MustParseAddrPort("203.0.113.66:53")
		for i := range peers {
			other, err := ident.New()
			if err != nil {
				t.Fatal(err)
			}
			p := Peer{ID: other.Peer, Nonce: Nonce{byte(i), byte(i >> 8)}, Candidates: []netip.AddrPort{victim}}
			if err := e.Admit(p, Auto, false); err != nil {
				t.Fatal(err)
			}
		}
		last := 0
		for _, at := range []time.Duration{time.Second, 10 * time.Second, time.Minute, 10 * time.Minute} {
			time.Sleep(at - time.Duration(last))
			last = int(at)
			t.Logf("after %v: %d bytes to the victim, %d for each offer", at, socket.to(victim), socket.to(victim)/peers)
		}
		// SECURITY.md tells of these figures. It takes no more than two rounds of nine probes of 64 bytes; mostly
		// less, which depends on the order in which the peers' goroutines run.
		if got := socket.to(victim); got == 0 || got > peers*2*9*punch.ProbeSize {
			t.Errorf("%d bytes to the victim, %d for each offer, want at most two rounds of nine probes", got, got/peers)
		}
	})
}

// TestNonceIsForLife holds that a peer that was admitted is not taken for another instance: its probes would be sealed with
// another key, and those of the first no longer be opened.
func TestNonceIsForLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openOver(t, newCountingSocket())
		defer e.Close()
		other, err := ident.New()
		if err != nil {
			t.Fatal(err)
		}
		p := Peer{ID: other.Peer, Nonce: Nonce{1}}
		for range 2 {
			if err := e.Admit(p, Auto, false); err != nil {
				t.Fatal(err)
			}
		}
		p.Nonce = Nonce{2}
		if err := e.Admit(p, Auto, false); err == nil {
			t.Error("admitted with another nonce")
		}
	})
}
