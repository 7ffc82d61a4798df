package portmap

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Config says which port is wanted. Port and OnChange are required.
type Config struct {
	Port    uint16         // UDP, local
	Gateway netip.AddrPort // of the router; zero is port 5351 of the default gateway
	SSDP    uint16         // the router's port for searches by UPnP; zero is 1900
	// Again has the router asked at once, with all that was known of it forgotten: the network may be another, or the router restarted.
	// Nil is never.
	Again <-chan struct{}
	// OnChange is told of the port that the router has given, and of the zero value when it is lost. It must not block.
	OnChange func(netip.AddrPort)
	// OnError is told why there is none, each time that the router was asked in vain; nil is nobody.
	OnError func(error)
}

const (
	lifetime   = 10 * time.Minute // asked for; renewed at half of what is given
	minRenew   = 15 * time.Second
	retryAfter = time.Minute
	firstWait  = 250 * time.Millisecond // for an answer (RFC 6886, 3.1); doubles
	tries      = 3                      // so a protocol that the router does not know is given up after 1.75 s
	unmapWait  = 250 * time.Millisecond
)

// ErrSilent is what OnError is told when the router does not answer: it offers none of the protocols.
var ErrSilent = errors.New("the router answers neither PCP, NAT-PMP nor UPnP: allow one of them in its settings")

// client holds one mapping.
type client struct {
	cfg   Config
	nonce nonce
	pmp   bool // the router speaks NAT-PMP, not PCP
	igd   *igd // the router speaks UPnP, neither of them
	have  netip.AddrPort
}

// Run keeps a mapping until ctx ends, and then ends the mapping, within a quarter of a second.
func Run(ctx context.Context, cfg Config) {
	c := &client{cfg: cfg}
	_, _ = rand.Read(c.nonce[:]) // never fails (crypto/rand)
	for {
		got, err := c.ask(ctx, lifetime)
		wait := retryAfter
		if err == nil {
			wait = max(got.lifetime/2, minRenew)
		} else if ctx.Err() == nil && cfg.OnError != nil {
			cfg.OnError(err)
		}
		if ctx.Err() == nil && got.external != c.have {
			c.have = got.external
			cfg.OnChange(c.have)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			continue
		case <-cfg.Again:
			timer.Stop()
			c.pmp = false // an igd is asked again if it is the gateway still
			continue
		case <-ctx.Done():
			timer.Stop()
		}
		if c.have.IsValid() {
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), unmapWait)
			_, _ = c.ask(end, 0) // else it ends by itself
			cancel()
		}
		return
	}
}

// ask asks for a mapping of a lifetime; zero ends it.
func (c *client) ask(ctx context.Context, life time.Duration) (assigned, error) {
	gateway := c.cfg.Gateway
	if !gateway.IsValid() {
		a, err := defaultGateway()
		if err != nil {
			return assigned{}, fmt.Errorf("portmap: %w", err)
		}
		gateway = netip.AddrPortFrom(a, serverPort)
	}
	// A connected socket takes packets of the router only.
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(gateway))
	if err != nil {
		return assigned{}, fmt.Errorf("portmap: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // ends what is read
	got, err := c.choose(ctx, conn, gateway.Addr(), life)
	switch {
	case err != nil:
		return assigned{}, fmt.Errorf("portmap: %w", err)
	case life > 0 && (got.lifetime <= 0 || got.external.Port() == 0 || !outside(got.external.Addr())):
		return assigned{}, fmt.Errorf("portmap: the router gives %v for %v, which is of no use outside", got.external, got.lifetime)
	}
	return got, nil
}

// choose asks by the protocol that did last time, or by one after the other. Some routers that know a later one alone are silent.
func (c *client) choose(ctx context.Context, conn *net.UDPConn, gateway netip.Addr, life time.Duration) (got assigned, err error) {
	unknown := func() bool { return errors.Is(err, errVersion) || errors.Is(err, ErrSilent) }
	err = ErrSilent
	if !c.pmp && c.igd == nil {
		got, err = c.pcp(ctx, conn, life)
	}
	if c.igd == nil && unknown() {
		got, err = c.natPMP(ctx, conn, life)
		c.pmp = err == nil
	}
	if unknown() {
		got, err = c.upnp(ctx, netip.AddrPortFrom(gateway, cmp.Or(c.cfg.SSDP, ssdpPort)), local(conn), life)
	}
	return got, err
}

// outside tells whether an address may be one that others reach: not if there is another NAT before the router, a
// carrier's (RFC 6598) or the far end of DS-Lite (RFC 6333) for example.
func outside(a netip.Addr) bool {
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)
	dslite := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 0}), 24)
	return a.IsGlobalUnicast() && !a.IsPrivate() && !shared.Contains(a) && !dslite.Contains(a)
}

func local(conn *net.UDPConn) netip.Addr {
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}

func (c *client) pcp(ctx context.Context, conn *net.UDPConn, life time.Duration) (got assigned, err error) {
	request := appendPCP(nil, local(conn), c.nonce, c.cfg.Port, c.have, life)
	xerr := exchange(ctx, conn, request, func(b []byte) error {
		got, err = parsePCP(b, c.nonce, c.cfg.Port)
		return err
	})
	return got, xerr
}

func (c *client) natPMP(ctx context.Context, conn *net.UDPConn, life time.Duration) (got assigned, err error) {
	suggested := c.have.Port()
	if life == 0 {
		suggested = 0 // as it must be (RFC 6886, 3.4)
	}
	err = exchange(ctx, conn, appendPMPMap(nil, c.cfg.Port, suggested, life), func(b []byte) (err error) {
		var port uint16
		port, got.lifetime, err = parsePMPMap(b, c.cfg.Port)
		got.external = netip.AddrPortFrom(netip.Addr{}, port)
		return err
	})
	if err != nil || life == 0 {
		return got, err
	}
	err = exchange(ctx, conn, appendPMPAddr(nil), func(b []byte) error {
		a, err := parsePMPAddr(b)
		got.external = netip.AddrPortFrom(a, got.external.Port())
		return err
	})
	return got, err
}

// exchange sends a request until parse takes what comes, or refuses it for good; errForeign is neither.
func exchange(ctx context.Context, conn *net.UDPConn, request []byte, parse func([]byte) error) error {
	buf := make([]byte, maxPacket+1)
	wait, closed := firstWait, 0
	for range tries {
		next := time.Now().Add(wait)
		wait *= 2
		if _, err := conn.Write(request); err == nil {
			_ = conn.SetReadDeadline(next) // fails when closed, as the read then does
			for {
				n, err := conn.Read(buf)
				if errors.Is(err, syscall.ECONNREFUSED) {
					if closed++; closed == 2 {
						return ErrSilent // the router has said that its port is closed, for both requests
					}
				}
				if err != nil {
					break // no answer in time
				}
				if err := parse(buf[:n]); !errors.Is(err, errForeign) {
					return err
				}
			}
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
	return ErrSilent
}
