package transport

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/stun/v2"
)

// STUN (RFC 8489) tells an instance its server-reflexive address: a binding request goes out from the
// very socket that QUIC uses. This file alone knows pion/stun.

const (
	stunFirstRetry = 100 * time.Millisecond
	stunTries      = 5

	// A relay never answers with more than it was asked with (package relay/server): a mapped IPv6
	// address takes 24 bytes, and so does this attribute.
	stunSoftware = "fnwire (any version)"
)

// ErrNoSTUN is returned when no STUN server answered.
var ErrNoSTUN = errors.New("transport: no STUN server answered (is UDP blocked, or the server down?)")

type stunClient struct {
	mu      sync.Mutex // guards waiting
	waiting map[[stun.TransactionIDSize]byte]stunWait
}

type stunWait struct {
	server netip.AddrPort
	answer chan netip.AddrPort
}

// handle takes a datagram whose first byte says STUN. Answers from elsewhere than the server asked,
// or to no question, are dropped.
func (c *stunClient) handle(from netip.AddrPort, b []byte) {
	if !stun.IsMessage(b) {
		return
	}
	m := &stun.Message{Raw: append([]byte(nil), b...)}
	if m.Decode() != nil || m.Type != stun.BindingSuccess {
		return
	}
	var x stun.XORMappedAddress
	if x.GetFrom(m) != nil {
		return
	}
	ip, ok := netip.AddrFromSlice(x.IP)
	if !ok || x.Port <= 0 || x.Port > 0xffff {
		return
	}
	c.mu.Lock()
	w, ok := c.waiting[m.TransactionID]
	if ok && w.server == from {
		delete(c.waiting, m.TransactionID)
	}
	c.mu.Unlock()
	if ok && w.server == from {
		w.answer <- netip.AddrPortFrom(ip.Unmap(), uint16(x.Port))
	}
}

// ask returns the address under which server sees the socket.
func (c *stunClient) ask(ctx context.Context, server netip.AddrPort, send func([]byte, netip.AddrPort) error) (netip.AddrPort, error) {
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewSoftware(stunSoftware))
	if err != nil {
		return netip.AddrPort{}, err
	}
	w := stunWait{server: server, answer: make(chan netip.AddrPort, 1)}
	c.mu.Lock()
	if c.waiting == nil {
		c.waiting = make(map[[stun.TransactionIDSize]byte]stunWait)
	}
	c.waiting[m.TransactionID] = w
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, m.TransactionID)
		c.mu.Unlock()
	}()
	wait := stunFirstRetry
	for range stunTries {
		if err := send(m.Raw, server); err != nil {
			return netip.AddrPort{}, err
		}
		t := time.NewTimer(wait)
		select {
		case a := <-w.answer:
			t.Stop()
			return a, nil
		case <-ctx.Done():
			t.Stop()
			return netip.AddrPort{}, ctx.Err()
		case <-t.C:
		}
		wait *= 2
	}
	return netip.AddrPort{}, ErrNoSTUN
}
