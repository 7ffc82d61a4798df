package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Filtering is what a NAT or firewall lets in to a mapping (RFC 4787, 5).
type Filtering string

// The kinds that one server with two ports can tell apart.
const (
	FilteringUnknown Filtering = "unknown"        // the server cannot help
	FilteringLenient Filtering = "not-port"       // endpoint-independent or address-dependent: no punching needed from a known address
	FilteringPort    Filtering = "port-dependent" // address and port dependent: only who was sent to may answer
)

// Hairpin tells whether two sockets behind one NAT reach each other at their mapped addresses (RFC 4787, 6).
type Hairpin string

// Kinds of Hairpin.
const (
	HairpinUnknown Hairpin = "unknown" // a NAT with a mapping for each destination
	HairpinYes     Hairpin = "yes"
	HairpinNo      Hairpin = "no"
	HairpinNone    Hairpin = "no NAT"
)

// NATProbe is what ProbeNAT has found.
type NATProbe struct {
	Filtering     Filtering
	Hairpin       Hairpin
	Local, Mapped netip.AddrPort // of the first probing socket, as server sees it
	RTT           time.Duration  // to server
}

// probeTries is how often a question of ProbeNAT is asked, and probeSize bounds what is read.
const (
	probeTries = 4
	probeSize  = 1500
	tokenSize  = 20
	tokenFirst = 0xff // no STUN
)

// ProbeNAT finds out what filters stand before this host, from sockets of its own that send to server, to
// second (another port of it, where it answers too) and to each other, some 20 packets in all. It takes a few
// round trips, and up to some seconds where packets are filtered. Without an answer the error matches ErrNoSTUN.
func ProbeNAT(ctx context.Context, server, second netip.AddrPort) (NATProbe, error) {
	p := NATProbe{Filtering: FilteringUnknown, Hairpin: HairpinUnknown}
	a, err := newProber(ctx, server)
	if err != nil {
		return p, err
	}
	defer a.close()
	began := time.Now()
	mapped, ok := a.ask(server, noRequest)
	if !ok {
		return p, canceled(ctx, ErrNoSTUN)
	}
	p.Mapped, p.RTT = mapped, time.Since(began)
	p.Local = netip.AddrPortFrom(a.own(server), a.port())
	a.patience = max(a.patience, 3*p.RTT)
	p.Filtering = a.filtering(server)
	if mapped == p.Local || mapped.Addr().IsLoopback() {
		p.Hairpin = HairpinNone
		return p, ctx.Err()
	}
	b, err := newProber(ctx, server)
	if err != nil {
		return p, err
	}
	defer b.close()
	b.patience = a.patience
	other, ok := b.ask(server, noRequest)
	if !ok {
		return p, ctx.Err()
	}
	if a.hears(b, mapped, other) {
		p.Hairpin = HairpinYes
	} else if again, ok := a.ask(second, noRequest); ok && again == mapped {
		p.Hairpin = HairpinNo
	}
	return p, ctx.Err()
}

// canceled prefers the context's error.
func canceled(ctx context.Context, err error) error {
	if c := ctx.Err(); c != nil {
		return fmt.Errorf("transport: STUN: %w", c)
	}
	return err
}

// prober is a socket whose questions are asked one at a time.
type prober struct {
	c        *net.UDPConn
	stop     func() bool
	patience time.Duration // for one try
}

func newProber(ctx context.Context, server netip.AddrPort) (*prober, error) {
	network := "udp4"
	if !server.Addr().Unmap().Is4() {
		network = "udp6"
	}
	c, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, fmt.Errorf("transport: UDP socket: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // ends what is read
	return &prober{c: c, stop: stop, patience: 2 * stunFirstRetry}, nil
}

func (p *prober) close() {
	p.stop()
	_ = p.c.Close() // ctx may have
}

func (p *prober) port() uint16 { return p.c.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// own is the address of this host from which packets to server leave. Nothing is sent.
func (p *prober) own(server netip.AddrPort) netip.Addr {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}

// ask asks a server where it sees the socket. With changePort only an answer from another of its ports counts.
func (p *prober) ask(server netip.AddrPort, change change) (mapped netip.AddrPort, ok bool) {
	id, raw, err := newRequest(change)
	if err != nil {
		return mapped, false
	}
	found := p.exchange(func() error { return p.send(raw, server) }, func(b []byte, f netip.AddrPort) bool {
		got, m, ok := parseAnswer(b)
		if !ok || got != id || f.Addr() != server.Addr() || (f.Port() == server.Port()) != (change != changePort) {
			return false
		}
		mapped = m
		return true
	})
	return mapped, found
}

// exchange calls send a few times, until want takes an answer.
func (p *prober) exchange(send func() error, want func(b []byte, from netip.AddrPort) bool) bool {
	buf := make([]byte, probeSize)
	for range probeTries {
		if send() != nil {
			return false
		}
		_ = p.c.SetReadDeadline(time.Now().Add(p.patience)) // fails when closed, as the read then does
		for {
			n, from, err := p.c.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			if want(buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())) {
				return true
			}
		}
	}
	return false
}

func (p *prober) send(b []byte, to netip.AddrPort) error {
	_, err := p.c.WriteToUDPAddrPort(b, to)
	return err
}

// filtering comes before anything is sent to another port of the server: that would open a filter.
func (p *prober) filtering(server netip.AddrPort) Filtering {
	if _, ok := p.ask(server, changePort); ok {
		return FilteringLenient
	}
	if _, ok := p.ask(server, changeNone); ok { // it knows how
		return FilteringPort
	}
	return FilteringUnknown
}

// hears reports whether what another socket sends to this one's mapped address arrives. This one sends to the
// other's first, for filters' sake.
func (p *prober) hears(other *prober, mapped, others netip.AddrPort) bool {
	token := make([]byte, tokenSize)
	_, _ = rand.Read(token) // never fails (crypto/rand)
	token[0] = tokenFirst
	return p.exchange(func() error {
		_ = p.send(token[:1], others)    // what is lost is like what is filtered
		return other.send(token, mapped) // refused by the host's own rules: no
	}, func(b []byte, _ netip.AddrPort) bool { return bytes.Equal(b, token) })
}
