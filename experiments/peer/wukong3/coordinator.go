package wukong3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/fnwire/fnwire/experiments/peer/selfsigned"
)

const (
	alpn       = "wukong3"
	maxConns   = 4096
	maxPending = 1024 // pairings of one connection
	// A client has so long for the TLS handshake, and to take a message.
	helloTime = 10 * time.Second
	// idleTime is the longest that a function of AWS Lambda runs; a connection that says nothing for so long is closed.
	idleTime = 15 * time.Minute
)

// Coordinator pairs ends by their keys. It is for experiments: anybody may use it, but memory and connections are bounded.
type Coordinator struct {
	cert  tls.Certificate
	match *matchmaker
}

// NewCoordinator returns a coordinator with a fresh certificate.
func NewCoordinator() (*Coordinator, error) {
	cert, err := selfsigned.New()
	if err != nil {
		return nil, fmt.Errorf("wukong3: certificate: %w", err)
	}
	return &Coordinator{cert, newMatchmaker()}, nil
}

// Certificate is what nodes must know the coordinator by, in DER.
func (c *Coordinator) Certificate() []byte { return c.cert.Certificate[0] }

// Serve serves nodes on a TCP listener, and a UDP socket with the same port, until ctx ends, and closes both. Addresses are of
// type *net.TCPAddr and *net.UDPAddr.
func (c *Coordinator) Serve(ctx context.Context, ln net.Listener, udp net.PacketConn) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		<-ctx.Done()
		_, _ = ln.Close(), udp.Close()
	})
	var echoed error
	wg.Go(func() {
		defer cancel()
		echoed = echo(ctx, udp)
	})
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := ln.Accept()
		if err != nil {
			ended := ctx.Err() != nil
			cancel()
			wg.Wait()
			if ended {
				return echoed
			}
			return fmt.Errorf("wukong3: coordinator: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			c.serve(ctx, conn)
		})
	}
}

// echo tells who asks from which address.
func echo(ctx context.Context, udp net.PacketConn) error {
	buf := make([]byte, echoBytes+1)
	for {
		n, from, err := udp.ReadFrom(buf)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil //nolint:nilerr // closed because ctx has ended
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("wukong3: coordinator: %w", err)
		case err != nil:
			continue // of one packet, as when its sender is gone
		}
		if kind, token, _, ok := parseUDP(buf[:n]); ok && kind == udpEcho {
			_, _ = udp.WriteTo(appendEcho(nil, token, addrPort(from)), from)
		}
	}
}

// client is one connection of a node's.
type client struct {
	conn *tls.Conn
	addr netip.Addr
	out  chan []byte // a client that does not take its messages is cut off
	ends map[uint32]*end
}

func (c *Coordinator) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	x := &client{
		conn: tls.Server(conn, &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, Certificates: []tls.Certificate{c.cert},
			SessionTicketsDisabled: true,
		}),
		addr: addrPort(conn.RemoteAddr()).Addr(),
		out:  make(chan []byte, maxPending),
		ends: make(map[uint32]*end),
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer func() {
		for _, e := range x.ends {
			c.match.leave(e)
		}
	}()
	hello, stop := context.WithTimeout(ctx, helloTime)
	defer stop()
	if x.conn.HandshakeContext(hello) != nil {
		return
	}
	wg.Go(func() {
		defer cancel()
		x.write(ctx)
	})
	for {
		if x.conn.SetReadDeadline(time.Now().Add(idleTime)) != nil {
			return
		}
		msg, err := read(x.conn)
		if err != nil || !c.take(x, msg, cancel) {
			return
		}
	}
}

// take does what a message says. It is false if the client is to be cut off.
func (c *Coordinator) take(x *client, msg any, cut func()) bool {
	say := func(b []byte) {
		select {
		case x.out <- b:
		default:
			cut()
		}
	}
	switch m := msg.(type) {
	case doneMsg:
		if e := x.ends[m.number]; e != nil {
			c.match.leave(e)
			delete(x.ends, m.number)
		}
		return true
	case pairMsg:
		if len(x.ends) == maxPending || x.ends[m.number] != nil {
			return false
		}
		e := &end{pairMsg: m, addr: netip.AddrPortFrom(x.addr, m.port), reply: func(m matchMsg) { say(m.append(nil)) }}
		if err := c.match.come(e); err != nil {
			say(refusedMsg{m.number, err.Error()}.append(nil))
			return true
		}
		x.ends[m.number] = e
		return true
	}
	return false
}

func (x *client) write(ctx context.Context) {
	for {
		select {
		case b := <-x.out:
			if x.conn.SetWriteDeadline(time.Now().Add(helloTime)) != nil {
				return
			}
			if _, err := x.conn.Write(b); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
