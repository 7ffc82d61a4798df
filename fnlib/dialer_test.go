package fnlib_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/transport"
)

func TestDialerAddresses(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	for _, service := range []string{"", "80", "8080", "grpc"} {
		l, err := b.Listen(service)
		if err != nil {
			t.Fatal(err)
		}
		go func() { // ends with the listener, which ends with the node
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, c.LocalAddr().String())
				_ = c.Close()
			}
		}()
	}
	for _, tt := range []struct {
		service, network, addr, want string
	}{
		{"", "tcp", "b", "b:default"},
		{"", "tcp", "b:80", "b:80"},
		{"", "tcp4", "b:8080", "b:8080"},
		{"", "fnwire", "b:grpc", "b:grpc"},
		{"default", "tcp", "b:80", "b:default"},
		{"grpc", "tcp6", "b:443", "b:grpc"},
		{"grpc", "tcp", "b:8080", "b:8080"},
		{"grpc", "tcp", "b", "b:default"},
	} {
		d := a.Dialer()
		d.Service, d.Path = tt.service, fnlib.RelayOnly
		c, err := d.DialContext(t.Context(), tt.network, tt.addr)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || string(got) != tt.want {
			t.Errorf("%+v reaches %q, %v", tt, got, err)
		}
		_ = c.Close()
	}
	for _, tt := range []struct{ network, addr string }{{"udp", "b:80"}, {"tcp", "b c:80"}, {"tcp", "b:"}, {"tcp", "[::1]:80"}} {
		if c, err := a.Dialer().DialContext(t.Context(), tt.network, tt.addr); err == nil || c != nil {
			t.Errorf("%+v: %v, %v", tt, c, err)
		}
	}
}

// A reset reaches the peer with its code, and leaves nothing for Close to wait for.
func TestReset(t *testing.T) {
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
	c2.(*fnlib.Conn).Reset(0x123)
	var reset *transport.ResetError
	if _, err := c1.Read(make([]byte, 1)); !errors.As(err, &reset) || reset.Code != 0x123 {
		t.Errorf("read: %v", err)
	}
	if _, err := c2.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Reset: %v", err)
	}
	_ = c1.Close()
}
