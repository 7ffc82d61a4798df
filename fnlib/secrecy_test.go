package fnlib_test

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/fnwire/fnwire/fnlib"
	relay "github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
)

// tap stands between functions and a relay, and keeps all that it carries.
type tap struct {
	relay netip.AddrPort
	front *net.UDPConn // where functions believe the relay to be

	mu   sync.Mutex // guards what follows
	back map[netip.AddrPort]*net.UDPConn
	seen bytes.Buffer
	wg   sync.WaitGroup
}

func newTap(t *testing.T, relay netip.AddrPort) *tap {
	t.Helper()
	front, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopbackAny))
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{relay: relay, front: front, back: make(map[netip.AddrPort]*net.UDPConn)}
	p.wg.Go(func() {
		carry(front, func(from netip.AddrPort, b []byte) {
			if c := p.to(from); c != nil {
				p.keep(b)
				_, _ = c.Write(b) // one that is lost is repeated
			}
		})
	})
	t.Cleanup(func() {
		_ = front.Close()
		p.mu.Lock()
		for _, c := range p.back {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// carry hands on what a socket receives until it is closed.
func carry(c *net.UDPConn, to func(netip.AddrPort, []byte)) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			to(from, buf[:n])
		}
	}
}

// to is the socket by which a function's packets reach the relay.
func (p *tap) to(function netip.AddrPort) *net.UDPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.back[function]; c != nil {
		return c
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(p.relay))
	if err != nil {
		return nil
	}
	p.back[function] = c
	p.wg.Go(func() {
		carry(c, func(_ netip.AddrPort, b []byte) {
			p.keep(b)
			_, _ = p.front.WriteToUDPAddrPort(b, function) // likewise
		})
	})
	return c
}

func (p *tap) keep(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Write(b)
}

// ANCHORS, relay: only ciphertext is seen. State, key, service and names of a relayed link appear nowhere in what
// passes the relay; the test would find a marker of sixteen bytes.
func TestRelaySeesCiphertext(t *testing.T) {
	w := newWorld(t, 0)
	s, err := relay.New(relay.Config{ID: "r1", Listen: loopbackAny, TokenKey: w.rdv.TokenKey, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s.Run, s.Ready())
	p := newTap(t, s.Addr())
	front := p.front.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := w.rdv.AddRelay(rendezvous.RelayInfo{ID: "r1", Addr: front, STUN: []netip.AddrPort{front}}); err != nil {
		t.Fatal(err)
	}
	a, b := w.join(t, "sender-of-secrets"), w.join(t, "receiver-of-secrets")
	const marker, key = "a marker of state", "the-key-of-the-state"
	state := bytes.Repeat([]byte(marker), 10_000)
	sent := make(chan error, 1)
	go func() {
		_, err := a.SendWith(t.Context(), "receiver-of-secrets", key, bytes.NewReader(state), fnlib.SendOptions{Path: fnlib.RelayOnly, NoCompress: true})
		sent <- err
	}()
	in, got, err := accept(t.Context(), b)
	if err != nil || !bytes.Equal(got, state) || in.Key != key {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen.Bytes()
	if len(seen) < 2*len(state) { // on its way in and out
		t.Fatalf("only %d bytes went by the relay", len(seen))
	}
	for _, secret := range []string{marker, key, "sender-of-secrets", "receiver-of-secrets", w.key.Encode()} {
		if bytes.Contains(seen, []byte(secret)) {
			t.Errorf("the relay sees %q", secret)
		}
	}
}
