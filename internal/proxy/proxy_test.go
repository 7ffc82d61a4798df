package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/proxy"
	"github.com/fnwire/fnwire/internal/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo says back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	return serve(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

// serve handles connections one at a time until the test ends.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func by(addr string) proxy.Find {
	return http.ProxyURL(&url.URL{Scheme: "http", Host: addr, User: url.UserPassword("u", "secret")})
}

func says(t *testing.T, c net.Conn, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestDial(t *testing.T) {
	at := echo(t)
	c, err := proxy.Dial(t.Context(), nil, "https", at) // the environment's is not for loopback
	says(t, c, err)
	p := proxytest.Start(t, map[string]string{"echo.test:443": at})
	c, err = proxy.Dial(t.Context(), by(p.Addr), "https", "echo.test:443")
	says(t, c, err)
	if auth := p.Asked("echo.test:443"); auth != "Basic dTpzZWNyZXQ=" {
		t.Errorf("asked with %q", auth)
	}
}

func TestErrors(t *testing.T) {
	answers := func(answer string) proxy.Find {
		return by(serve(t, func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, answer)
			}
		}))
	}
	closed := serve(t, func(net.Conn) {})
	for name, tt := range map[string]struct {
		find proxy.Find
		want string
	}{
		"refused":        {answers("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), "CONNECT far.test:443: 403 Forbidden"},
		"password":       {answers("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), "name a user and password in HTTPS_PROXY"},
		"no HTTP":        {answers("SSH-2.0-x\r\n\r\n"), "malformed HTTP"},
		"endless":        {answers("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 64<<10)), "unexpected EOF"},
		"hangs up":       {by(closed), "CONNECT far.test:443"},
		"more":           {answers("HTTP/1.1 200 OK\r\n\r\nINFO"), "more came than the answer"},
		"scheme":         {http.ProxyURL(&url.URL{Scheme: "socks5", Host: "127.0.0.1:1"}), `scheme "socks5" is not known`},
		"cannot be read": {func(*http.Request) (*url.URL, error) { return nil, errors.New("no URL") }, "set HTTPS_PROXY"},
	} {
		c, err := proxy.Dial(t.Context(), tt.find, "https", "far.test:443")
		if err == nil {
			_ = c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	at := serve(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		cancel()
		_, _ = io.Copy(io.Discard, c)
	})
	if _, err := proxy.Dial(ctx, by(at), "https", "far.test:443"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func ExampleDial() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	c, err := proxy.Dial(context.Background(), nil, "https", l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Println(c.RemoteAddr().String() == l.Addr().String())
	// Output: true
}
