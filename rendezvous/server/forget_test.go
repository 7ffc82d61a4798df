package server_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// natted is a NATS server behind a NAT, which may forget connections: then nothing comes through, and nobody is told.
type natted struct {
	rendezvous.InProcess

	mu    sync.Mutex // guards conns
	conns []*nattedConn
}

type nattedConn struct {
	net.Conn
	forgotten atomic.Bool
	closed    chan struct{}
	once      sync.Once
}

func (n *natted) InProcessConn() (net.Conn, error) {
	conn, err := n.InProcess.InProcessConn()
	if err != nil {
		return nil, err
	}
	c := &nattedConn{Conn: conn, closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, c)
	return c, nil
}

func (n *natted) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.forgotten.Store(true)
	}
}

func (c *nattedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.forgotten.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *nattedConn) Write(b []byte) (int, error) {
	if c.forgotten.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *nattedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestForgottenConnection: the NAT has forgotten the connection while the process was frozen. Who is told to check has joined again half a
// second later, and a request that was under way has its answer; a connection that stands is left alone.
func TestForgottenConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := job.NewKey()
		s, err := server.New(server.Config{Allow: []job.ID{key.ID()}, DontListen: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		<-s.Ready()
		nat := &natted{InProcess: s}
		a := dial(t, "", key, "a", func(c *rendezvous.Config) { c.InProcess = nat })
		a.join(t)
		life, end := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- a.Run(life) }()

		a.Check()
		synctest.Wait()
		if n := len(nat.conns); n != 1 {
			t.Errorf("%d connections after a check of one that stands, want 1", n)
		}
		nat.forget()
		asked := make(chan error, 1)
		go func() {
			_, err := a.Lookup(within(t), "a")
			asked <- err
		}()
		began := time.Now()
		a.Check()
		<-a.returned
		if took := time.Since(began); took > 600*time.Millisecond {
			t.Errorf("joined again after %v", took)
		}
		if err := <-asked; err != nil {
			t.Errorf("request on the forgotten connection: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("answered after %v", took)
		}

		end()
		want(t, <-ran, context.Canceled)
		_ = a.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
