package fnlib_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/udpx"
	relay "github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/transport"
)

// runHTTPSRelay runs a relay that takes UDP and WebSocket. The rendezvous does not know it yet.
func runHTTPSRelay(t *testing.T, w *world) *relay.Server {
	t.Helper()
	s, err := relay.New(relay.Config{ID: "r1", Listen: loopbackAny, HTTPS: loopbackAny, TokenKey: w.rdv.TokenKey, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s.Run, s.Ready())
	return s
}

// Functions whose packets to the relay vanish (its announced UDP address is a socket that nobody reads) reach
// each other all the same, by its HTTPS port, and do not wait for a time-out.
func TestUDPBlocked(t *testing.T) {
	w := newWorld(t, 0)
	s := runHTTPSRelay(t, w)
	nobody := netip.MustParseAddrPort("192.0.2.1:3478") // TEST-NET-1
	info := rendezvous.RelayInfo{
		ID: "r1", Addr: nobody, STUN: []netip.AddrPort{nobody}, HTTPS: s.HTTPSAddr().String(), CertSHA256: s.CertSHA256(),
	}
	if err := w.rdv.AddRelay(info); err != nil {
		t.Fatal(err)
	}
	a, b := w.join(t, "a"), w.join(t, "b")
	for _, n := range []*fnlib.Node{a, b} {
		if tm := n.Timings(); tm.Relay == 0 || tm.Total > 900*time.Millisecond {
			t.Errorf("joined with %+v", tm)
		}
		if rs := n.Relays(); len(rs) != 1 || rs[0].Via != "wss" || !rs[0].Home || rs[0].Err != nil {
			t.Errorf("relays: %+v", rs)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	state := make([]byte, 8<<20)
	_, _ = rand.Read(state)
	got := make(chan []byte, 1)
	go func() {
		defer close(got)
		in, err := b.Receive(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Error(err)
			return
		}
		got <- data
		if err := in.Accept(); err != nil {
			t.Error(err)
		}
	}()
	r, err := a.SendWith(ctx, "b", "part", bytes.NewReader(state), fnlib.SendOptions{Path: fnlib.RelayOnly})
	if err != nil {
		t.Fatal(err)
	}
	if data := <-got; !bytes.Equal(data, state) {
		t.Errorf("%d of %d bytes came, or others", len(data), len(state))
	}
	if r.Path != "relay" {
		t.Errorf("went by %s", r.Path)
	}
}

// coldSocket loses what it is to send, until it is warm, as a fresh network interface may.
type coldSocket struct {
	*udpx.Conn
	warm atomic.Bool
}

func (s *coldSocket) Write(b []byte, seg int, ecn byte, to netip.AddrPort) error {
	if !s.warm.Load() {
		return nil
	}
	return s.Conn.Write(b, seg, ecn, to)
}

// Where UDP passes later than TLS does, it was not blocked.
func TestUDPComesLater(t *testing.T) {
	w := newWorld(t, 0)
	s := runHTTPSRelay(t, w)
	info := rendezvous.RelayInfo{ID: "r1", Addr: s.Addr(), STUN: s.STUNAddrs(), HTTPS: s.HTTPSAddr().String(), CertSHA256: s.CertSHA256()}
	if err := w.rdv.AddRelay(info); err != nil {
		t.Fatal(err)
	}
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	c, err := udpx.Listen("udp4", loopbackAny)
	if err != nil {
		t.Fatal(err)
	}
	socket := &coldSocket{Conn: c}
	n, err := fnlib.JoinOver(t.Context(), w.config("a"), id, socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for n.Relays()[0].Via != "wss" { // most often Join has waited for it, and taken UDP for blocked
		time.Sleep(10 * time.Millisecond)
	}
	socket.warm.Store(true)
	for deadline := time.Now().Add(time.Minute); n.NAT().Mapping != transport.MappingNone; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("NAT is %q, relays %+v", n.NAT().Mapping, n.Relays())
		}
	}
}
