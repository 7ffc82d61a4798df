package server_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
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

// TestForgottenConnection: the NAT has forgotten the connection while the process was frozen. Who is told to check joins again long before
// the next renewal would show it, and a request that was under way has its answer; a connection that stands is left alone.
func TestForgottenConnection(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, DontListen: true})
	nat := &natted{InProcess: s}
	a := dial(t, "", key, "a", func(c *rendezvous.Config) { c.InProcess = nat })
	epoch := a.join(t).Epoch
	a.run(t)

	a.Check()
	if _, err := a.Lookup(within(t), "a"); err != nil {
		t.Fatal(err)
	}
	nat.forget()
	asked := make(chan error, 1)
	go func() {
		_, err := a.Lookup(within(t), "a")
		asked <- err
	}()
	a.Check()
	got(t, a.returned)
	if err := got(t, asked); err != nil {
		t.Errorf("request on the forgotten connection: %v", err)
	}
	if a.Epoch() != epoch {
		t.Errorf("epoch %d, then %d", epoch, a.Epoch())
	}
	nat.mu.Lock()
	defer nat.mu.Unlock()
	if n := len(nat.conns); n != 2 {
		t.Errorf("%d connections, want one, and one in its place", n)
	}
}

// TestForgottenConnectionShows: nobody says that the NAT has forgotten the connection. The next renewal shows it, and so does a request.
func TestForgottenConnectionShows(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, DontListen: true, Lease: 4 * time.Second})
	nat := &natted{InProcess: s}
	behind := func(c *rendezvous.Config) { c.InProcess = nat }
	renews, asks := dial(t, "", key, "renews", behind), dial(t, "", key, "asks", behind)
	renews.join(t)
	renews.run(t)
	nat.forget()
	asked := make(chan error, 1)
	go func() {
		_, err := asks.Lookup(within(t), "renews")
		asked <- err
	}()
	got(t, renews.returned)
	if err := got(t, asked); err != nil {
		t.Error(err)
	}
}
