package fnlib_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	relay "github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
)

// Functions whose packets to the relay vanish (its announced UDP address is a socket that nobody reads) reach
// each other all the same, by its HTTPS port, and do not wait for a time-out.
func TestUDPBlocked(t *testing.T) {
	w := newWorld(t, 0)
	s, err := relay.New(relay.Config{ID: "r1", Listen: loopbackAny, HTTPS: loopbackAny, TokenKey: w.rdv.TokenKey, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s.Run, s.Ready())
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
