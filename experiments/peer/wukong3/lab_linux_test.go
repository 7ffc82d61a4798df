package wukong3_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/peer/wukong3"
)

// within makes cfg that of a node on a host of the lab.
func within(cfg wukong3.Config, l *lab.Lab, host string) wukong3.Config {
	cfg.Listen = func() (c net.PacketConn, err error) {
		err = l.Do(host, func() (err error) { c, err = net.ListenUDP("udp4", nil); return err })
		return c, err
	}
	cfg.Dial = func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = l.Do(host, func() (err error) { c, err = new(net.Dialer).DialContext(ctx, network, addr); return err })
		return c, err
	}
	return cfg
}

// labCoordinator starts a coordinator on a host of the lab.
func labCoordinator(t *testing.T, l *lab.Lab, host string) wukong3.Config {
	t.Helper()
	c, err := wukong3.NewCoordinator()
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(l.Addr(host), 7000)
	var ln net.Listener
	var udp net.PacketConn
	err = l.Do(host, func() (err error) {
		if ln, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at)); err == nil {
			udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, ln, udp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return wukong3.Config{Coordinator: at, Certificate: c.Certificate()}
}

// carry has a send a state to b.
func carry(t *testing.T, a, b *wukong3.Node) (sent, got error) {
	t.Helper()
	state := bytes.Repeat([]byte("state"), 20_000)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _, sent = a.Send(t.Context(), "k", bytes.NewReader(state), int64(len(state))) })
	var buf bytes.Buffer
	if _, got = b.Receive(t.Context(), "k", &buf); got == nil && !bytes.Equal(buf.Bytes(), state) {
		got = errors.New("another state")
	}
	wg.Wait()
	return sent, got
}

func TestPortRestricted(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "hub"}, lab.Host{Name: "a", NAT: lab.PortRestricted}, lab.Host{Name: "b", NAT: "port-restricted+remap"})
	cfg := labCoordinator(t, l, "hub")
	each(t, func(t *testing.T, c wukong3.Causes) {
		cfg := cfg
		cfg.Causes = c
		a, b := open(t, within(cfg, l, "a")), open(t, within(cfg, l, "b"))
		for _, ends := range [][2]*wukong3.Node{{a, b}, {b, a}} {
			if sent, got := carry(t, ends[0], ends[1]); sent != nil || got != nil {
				t.Errorf("sent: %v; received: %v", sent, got)
			}
		}
	})
}

// TestSymmetric: what cannot be punched fails in the time that it was given, and the error tells what to do.
func TestSymmetric(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "hub"}, lab.Host{Name: "a", NAT: lab.Symmetric}, lab.Host{Name: "b", NAT: lab.Symmetric})
	cfg := labCoordinator(t, l, "hub")
	cfg.Timeout = 500 * time.Millisecond
	for _, c := range []wukong3.Causes{{}, wukong3.All()} {
		cfg.Causes = c
		a, b := open(t, within(cfg, l, "a")), open(t, within(cfg, l, "b"))
		for _, err := range func() []error { s, g := carry(t, a, b); return []error{s, g} }() {
			if !errors.Is(err, wukong3.ErrUnreachable) {
				t.Errorf("%+v: %v", c, err)
			}
		}
	}
}
