package lab_test

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// patience bounds waits for what must happen; a moment those for what must not.
const (
	patience = 10 * time.Second
	moment   = 50 * time.Millisecond
)

func TestMain(m *testing.M) {
	if name := os.Getenv(envHelper); name != "" {
		os.Exit(helpers()[name]())
	}
	os.Exit(labtest.Main(m))
}

// sock is a UDP socket of a host.
type sock struct {
	*net.UDPConn
	t testing.TB
}

// listen opens a UDP socket on all addresses of a host; port 0 means any.
func listen(t testing.TB, l *lab.Lab, host string, port uint16) sock {
	t.Helper()
	var c *net.UDPConn
	err := l.Do(host, func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), port)))
		return err
	})
	if err != nil {
		t.Fatalf("listen on %s: %v", host, err)
	}
	t.Cleanup(func() { c.Close() })
	return sock{c, t}
}

func (s sock) port() uint16 { return s.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func (s sock) send(to netip.AddrPort, msg string) {
	s.t.Helper()
	if _, err := s.WriteToUDPAddrPort([]byte(msg), to); err != nil {
		s.t.Fatalf("send to %v: %v", to, err)
	}
}

// recv returns the next datagram and its source; ok is false if none came in time.
func (s sock) recv(within time.Duration) (msg string, from netip.AddrPort, ok bool) {
	s.t.Helper()
	b := make([]byte, 2048)
	if err := s.SetReadDeadline(time.Now().Add(within)); err != nil {
		s.t.Fatal(err)
	}
	n, from, err := s.ReadFromUDPAddrPort(b)
	if ne, isNet := err.(net.Error); isNet && ne.Timeout() {
		return "", netip.AddrPort{}, false
	}
	if err != nil {
		s.t.Fatalf("receive: %v", err)
	}
	return string(b[:n]), from, true
}

// want receives a datagram that must be msg.
func (s sock) want(msg string) netip.AddrPort {
	s.t.Helper()
	got, from, ok := s.recv(patience)
	if !ok || got != msg {
		s.t.Fatalf("received %q (%v), want %q", got, ok, msg)
	}
	return from
}

// until receives datagrams up to and including msg, and returns those before it.
func (s sock) until(msg string) (before []string) {
	s.t.Helper()
	for {
		got, _, ok := s.recv(patience)
		switch {
		case !ok:
			s.t.Fatalf("received %q, but never %q", before, msg)
		case got == msg:
			return before
		}
		before = append(before, got)
	}
}

// at is the address of a socket as others on the internet of the lab reach it if its port is preserved.
func at(l *lab.Lab, host string, s sock) netip.AddrPort {
	return netip.AddrPortFrom(l.PublicAddr(host), s.port())
}
