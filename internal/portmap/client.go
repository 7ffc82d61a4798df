package portmap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Config says which port is wanted. Port and OnChange are required.
type Config struct {
	Port    uint16         // UDP, local
	Gateway netip.AddrPort // of the router; zero is port 5351 of the default gateway
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
	tries      = 4                      // so a router that does not answer is given up after 3.75 s
	unmapWait  = 250 * time.Millisecond
)

// ErrSilent is what OnError is told when the router does not answer: it offers neither protocol.
var ErrSilent = errors.New("the router answers neither PCP nor NAT-PMP")

// client holds one mapping.
type client struct {
	cfg   Config
	nonce nonce
	pmp   bool // the router speaks NAT-PMP only
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
	var got assigned
	if !c.pmp {
		got, err = c.pcp(ctx, conn, life)
	}
	if c.pmp || errors.Is(err, errVersion) || errors.Is(err, ErrSilent) { // some that know NAT-PMP alone are silent
		got, err = c.natPMP(ctx, conn, life)
		c.pmp = err == nil
	}
	switch {
	case err != nil:
		return assigned{}, fmt.Errorf("portmap: %w", err)
	case life > 0 && (got.lifetime <= 0 || got.external.Port() == 0 || !got.external.Addr().IsGlobalUnicast() || got.external.Addr().IsPrivate()):
		return assigned{}, fmt.Errorf("portmap: the router gives %v for %v, which is of no use outside", got.external, got.lifetime)
	}
	return got, nil
}

func (c *client) pcp(ctx context.Context, conn *net.UDPConn, life time.Duration) (got assigned, err error) {
	self := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	request := appendPCP(nil, self, c.nonce, c.cfg.Port, c.have, life)
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
	wait := firstWait
	for range tries {
		next := time.Now().Add(wait)
		wait *= 2
		if _, err := conn.Write(request); err == nil {
			_ = conn.SetReadDeadline(next) // fails when closed, as the read then does
			for {
				n, err := conn.Read(buf)
				if err != nil {
					break // no answer in time; or the router has said that its port is closed, which may change
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
