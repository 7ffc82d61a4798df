package fnlib_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/fnwire/fnwire/fnlib"
)

// pipe returns both ends of a connection from a to b.
func pipe(ctx context.Context, a *fnlib.Node, l net.Listener, to string, path fnlib.Path) (c1, c2 net.Conn, err error) {
	accepted := make(chan net.Conn, 1)
	failed := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			failed <- err
			return
		}
		accepted <- c
	}()
	c1, err = a.DialPath(ctx, to, path)
	if err != nil {
		return nil, nil, err
	}
	select {
	case c2 = <-accepted:
		return c1, c2, nil
	case err := <-failed:
		return nil, nil, err
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// TestConn: a connection is a net.Conn as golang.org/x/net/nettest has it, whatever it runs over and
// whichever side of QUIC it is on.
func TestConn(t *testing.T) {
	for _, path := range []fnlib.Path{fnlib.RelayOnly, fnlib.DirectOnly, fnlib.Auto} {
		t.Run(path.String(), func(t *testing.T) {
			w := newWorld(t, 1)
			a, b := w.join(t, "a"), w.join(t, "b")
			for _, d := range []struct {
				name     string
				from, to *fnlib.Node
			}{{"a to b", a, b}, {"b to a", b, a}} {
				l, err := d.to.Listen("")
				if err != nil {
					t.Fatal(err)
				}
				t.Run(d.name, func(t *testing.T) {
					nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
						ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
						defer cancel()
						c1, c2, err := pipe(ctx, d.from, l, d.to.Name(), path)
						if err != nil {
							return nil, nil, nil, err
						}
						return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
					})
				})
				_ = l.Close()
			}
		})
	}
}

func TestHalfClose(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	l, err := b.Listen("echo")
	if err != nil {
		t.Fatal(err)
	}
	c1, c2, err := pipe(t.Context(), a, l, "b:echo", fnlib.Auto)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		got, _ := io.ReadAll(c2) // ends with the half-close
		_, _ = c2.Write(got)
		_ = c2.Close()
	}()
	want := bytes.Repeat([]byte("state"), 1<<18)
	if _, err := c1.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := c1.(*fnlib.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c1)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came back, %v", len(got), err)
	}
	if c1.RemoteAddr().String() != "b:echo" || c2.RemoteAddr().String() != "a:echo" {
		t.Errorf("addresses %v, %v", c1.RemoteAddr(), c2.RemoteAddr())
	}
	_ = c1.Close()
}

// Closing the node right after the last write loses nothing.
func TestCloseDelivers(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	l, err := b.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	c1, c2, err := pipe(t.Context(), a, l, "b", fnlib.Auto)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 1)
	go func() {
		b, _ := io.ReadAll(c2)
		got <- len(b)
	}()
	if _, err := c1.Write(make([]byte, 3<<20)); err != nil {
		t.Fatal(err)
	}
	_ = c1.Close()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 3<<20 {
		t.Errorf("%d bytes arrived", n)
	}
}

func TestNotListening(t *testing.T) {
	w := newWorld(t, 1)
	a, _ := w.join(t, "a"), w.join(t, "b")
	c, err := a.Dial(t.Context(), "b:nothing")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, fnlib.ErrNotListening) {
		t.Errorf("read: %v", err)
	}
	_ = c.Close()
}

// Two functions that call each other at the same moment share one link.
func TestBothDialAtOnce(t *testing.T) {
	for range 5 {
		w := newWorld(t, 1)
		a, b := w.join(t, "a"), w.join(t, "b")
		errs := make(chan error, 2)
		for _, d := range []struct {
			from *fnlib.Node
			to   string
		}{{a, "b"}, {b, "a"}} {
			go func() {
				_, err := d.from.Ping(t.Context(), d.to, fnlib.Auto)
				errs <- err
			}()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if n, m := a.Stats().Links, b.Stats().Links; n != 1 || m != 1 {
			t.Errorf("%d and %d links", n, m)
		}
	}
}
