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

// stunID tells one request from others.
type stunID = [stun.TransactionIDSize]byte

type stunClient struct {
	mu      sync.Mutex // guards waiting
	waiting map[stunID]stunWait
}

type stunWait struct {
	server netip.AddrPort
	answer chan netip.AddrPort
}

// handle takes a datagram whose first byte says STUN. Answers from elsewhere than the server asked,
// or to no question, are dropped.
func (c *stunClient) handle(from netip.AddrPort, b []byte) {
	id, mapped, ok := parseAnswer(b)
	if !ok {
		return
	}
	c.mu.Lock()
	w, ok := c.waiting[id]
	if ok && w.server == from {
		delete(c.waiting, id)
	}
	c.mu.Unlock()
	if ok && w.server == from {
		w.answer <- mapped
	}
}

// parseAnswer reads a binding success.
func parseAnswer(b []byte) (id stunID, mapped netip.AddrPort, ok bool) {
	m := &stun.Message{Raw: append([]byte(nil), b...)}
	if !stun.IsMessage(b) || m.Decode() != nil || m.Type != stun.BindingSuccess {
		return id, mapped, false
	}
	var x stun.XORMappedAddress
	if x.GetFrom(m) != nil {
		return id, mapped, false
	}
	ip, ok := netip.AddrFromSlice(x.IP)
	if !ok || x.Port <= 0 || x.Port > 0xffff {
		return id, mapped, false
	}
	return m.TransactionID, netip.AddrPortFrom(ip.Unmap(), uint16(x.Port)), true
}

// change is what a binding request asks of the server besides (CHANGE-REQUEST, RFC 5780, 7.2).
type change byte

// The changes. Servers that do not know the attribute do not answer either of the others.
const (
	noRequest  change = 0xff // the attribute is left out
	changeNone change = 0    // it asks for nothing
	changePort change = 2    // the answer is to come from the port that was not asked
)

// newRequest makes a binding request.
func newRequest(ask change) (id stunID, raw []byte, err error) {
	set := []stun.Setter{stun.TransactionID, stun.BindingRequest}
	if ask != noRequest {
		set = append(set, stun.RawAttribute{Type: stun.AttrChangeRequest, Value: []byte{0, 0, 0, byte(ask)}})
	}
	m, err := stun.Build(append(set, stun.NewSoftware(stunSoftware))...)
	if err != nil {
		return id, nil, err
	}
	return m.TransactionID, m.Raw, nil
}

// question is a binding request that is under way.
type question struct {
	client *stunClient
	id     stunID
	raw    []byte
	send   func([]byte, netip.AddrPort) error
	stunWait
	err error // of the first send
}

// begin sends a binding request; wait must follow. A NAT that maps by destination has chosen a port when it returns.
func (c *stunClient) begin(server netip.AddrPort, send func([]byte, netip.AddrPort) error) *question {
	q := &question{client: c, send: send, stunWait: stunWait{server: server, answer: make(chan netip.AddrPort, 1)}}
	if q.id, q.raw, q.err = newRequest(noRequest); q.err != nil {
		return q
	}
	c.mu.Lock()
	if c.waiting == nil {
		c.waiting = make(map[stunID]stunWait)
	}
	c.waiting[q.id] = q.stunWait
	c.mu.Unlock()
	q.err = send(q.raw, server)
	return q
}

// wait returns the address under which the server sees the socket. It repeats the request.
func (q *question) wait(ctx context.Context) (netip.AddrPort, error) {
	defer q.cancel()
	wait := stunFirstRetry
	for try := range stunTries {
		if try > 0 {
			q.err = q.send(q.raw, q.server)
		}
		if q.err != nil {
			return netip.AddrPort{}, q.err
		}
		t := time.NewTimer(wait)
		select {
		case a := <-q.answer:
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

// cancel takes the place of wait, or ends it.
func (q *question) cancel() {
	q.client.mu.Lock()
	delete(q.client.waiting, q.id)
	q.client.mu.Unlock()
}
