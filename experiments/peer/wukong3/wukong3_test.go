package wukong3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/peer/wukong3"
)

func TestMain(m *testing.M) {
	code := labtest.Main(m)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// coordinate starts a coordinator on the loopback interface. stop ends it and returns its error.
func coordinate() (cfg wukong3.Config, stop func() error, err error) {
	c, err := wukong3.NewCoordinator()
	if err != nil {
		return cfg, nil, err
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return cfg, nil, err
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return cfg, nil, errors.Join(err, ln.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, ln, udp) }()
	return wukong3.Config{Coordinator: at, Certificate: c.Certificate()}, func() error { cancel(); return <-served }, nil
}

func coordinator(t *testing.T) wukong3.Config {
	t.Helper()
	cfg, stop, err := coordinate()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return cfg
}

func open(t *testing.T, cfg wukong3.Config) *wukong3.Node {
	t.Helper()
	n, err := wukong3.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cfg, stop, err := coordinate()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop() //nolint:errcheck // of an example
	cfg.Causes = wukong3.Causes{NewSocket: true, Resend: 250 * time.Millisecond}
	a, err := wukong3.Open(ctx, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := wukong3.Open(ctx, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := a.Send(ctx, "task 7", strings.NewReader("state"), 5)
		sent <- err
	}()
	var state strings.Builder
	_, err = b.Receive(ctx, "task 7", &state)
	fmt.Println(state.String(), err, <-sent)
	// Output: state <nil> <nil>
}

// each runs a test with no cause, with each alone, and with all.
func each(t *testing.T, f func(t *testing.T, c wukong3.Causes)) {
	all := wukong3.All()
	for name, c := range map[string]wukong3.Causes{
		"none": {}, "all": all,
		"serial": {Serial: true}, "resend": {Resend: all.Resend}, "new-socket": {NewSocket: true}, "window": {Window: all.Window}, "rate": {Rate: all.Rate},
	} {
		t.Run(name, func(t *testing.T) { f(t, c) })
	}
}

// TestFan: a node receives from several at once, and sends to them, states of many sizes.
func TestFan(t *testing.T) {
	each(t, func(t *testing.T, c wukong3.Causes) {
		cfg := coordinator(t)
		cfg.Causes = c
		hub := open(t, cfg)
		var wg sync.WaitGroup
		for i := range 4 {
			leaf := open(t, cfg)
			state := bytes.Repeat([]byte{byte(i)}, i*100_000)
			for key, ends := range map[string][2]*wukong3.Node{"in": {leaf, hub}, "out": {hub, leaf}} {
				key = fmt.Sprint(key, i)
				wg.Go(func() {
					if _, err := ends[0].Send(t.Context(), key, bytes.NewReader(state), int64(len(state))); err != nil {
						t.Error(err)
					}
				})
				wg.Go(func() {
					var got bytes.Buffer
					r, err := ends[1].Receive(t.Context(), key, &got)
					if err != nil || !bytes.Equal(got.Bytes(), state) || r.Bytes != int64(len(state)) {
						t.Errorf("%s: %d bytes, %v", key, got.Len(), err)
					}
				})
			}
		}
		wg.Wait()
	})
}

// TestRefused: of two that send with one key the later is refused, and the other waits on.
func TestRefused(t *testing.T) {
	cfg := coordinator(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	for range cap(ended) {
		n := open(t, cfg)
		go func() {
			_, err := n.Send(ctx, "k", strings.NewReader("x"), 1)
			ended <- err
		}()
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "both ends of \"k\" send") {
		t.Error(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestUnusable(t *testing.T) {
	cfg := coordinator(t)
	for name, change := range map[string]func(*wukong3.Config){
		"resend":      func(c *wukong3.Config) { c.Causes.Resend = -1 },
		"window":      func(c *wukong3.Config) { c.Causes.Window = 1 },
		"rate":        func(c *wukong3.Config) { c.Causes.Rate = -1 },
		"IPv4":        func(c *wukong3.Config) { c.Coordinator = netip.MustParseAddrPort("[::1]:1") },
		"certificate": func(c *wukong3.Config) { c.Certificate = []byte("x") },
		"coordinator": func(c *wukong3.Config) {
			c.Coordinator, c.Timeout = netip.MustParseAddrPort("127.0.0.1:1"), time.Second
		},
	} {
		c := cfg
		change(&c)
		if n, err := wukong3.Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, n, err)
		}
	}
	n := open(t, cfg)
	if _, err := n.Send(t.Context(), "", nil, 0); err == nil || !strings.Contains(err.Error(), "key of 0 bytes") {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := n.Send(t.Context(), "k", nil, 0); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Error(err)
	}
}
