package service_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/service"
	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/redis"
	"github.com/fnwire/fnwire/fnlib/store/s3"
	"github.com/fnwire/fnwire/fnlib/store/storetest"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	listen := func() net.Listener {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		return l
	}
	standIn, front := listen(), listen()
	go func() { // answers one request
		c, err := standIn.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	served := make(chan error)
	go func() { served <- service.Redis().Serve(ctx, front, standIn.Addr().String()) }()
	c, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		panic(err)
	}
	began := time.Now()
	_, _ = io.WriteString(c, "PING")
	_ = c.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(c)
	fmt.Println(string(answer), time.Since(began) >= service.Redis().FirstByte)
	cancel()
	fmt.Println(<-served, c.Close(), standIn.Close())
	// Output:
	// PING true
	// <nil> <nil> <nil>
}

// pipes is a listener whose connections are pipes.
type pipes struct {
	made   chan net.Conn
	closed chan struct{}
	once   atomic.Bool
}

func newPipes() *pipes { return &pipes{made: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.made:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	if !p.once.Swap(true) {
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.made <- b:
		return a, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// virtual has a forwarder before a server, in the time of a bubble, and returns how to connect to it.
func virtual(t *testing.T, m service.Model, server func(net.Listener)) (dial func(context.Context) (net.Conn, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	front, back := newPipes(), newPipes()
	served, ended := make(chan error, 1), make(chan struct{})
	go func() { served <- m.ServeVirtual(ctx, front, back.dial) }()
	go func() { server(back); close(ended) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		_ = back.Close()
		<-ended
	})
	return front.dial
}

// lines is a server that answers each line, up to 16 bytes long, with as many bytes as it says, and closes what sends something else.
func lines(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			in := bufio.NewReader(c)
			for {
				line, err := in.ReadString('\n')
				n, perr := strconv.Atoi(strings.TrimSpace(line))
				if err != nil || perr != nil {
					return
				}
				if _, err := c.Write(make([]byte, n)); err != nil {
					return
				}
			}
		}()
	}
}

// TestBytesTime: each request waits once, those sent without waiting for answers wait side by side, and bytes have their rate.
func TestBytesTime(t *testing.T) {
	for _, c := range []struct {
		what    string
		m       service.Model
		send    string
		bytes   int
		repeat  int
		atLeast time.Duration
	}{
		{"one", service.Model{FirstByte: 3 * time.Millisecond}, "5\n", 5, 1, 3 * time.Millisecond},
		{"one after the other", service.Model{FirstByte: 3 * time.Millisecond}, "5\n", 5, 4, 12 * time.Millisecond},
		{"side by side", service.Model{FirstByte: 3 * time.Millisecond}, "5\n5\n5\n5\n", 20, 1, 3 * time.Millisecond},
		{"rate", service.Model{Rate: 1_000_000}, "2000000\n", 2_000_000, 1, 2*time.Second + 8*time.Microsecond},
		{"both", service.Model{FirstByte: 30 * time.Millisecond, Rate: 1_000_000}, "2000000\n", 2_000_000, 2, 4*time.Second + 60*time.Millisecond + 16*time.Microsecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn, err := virtual(t, c.m, lines)(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			began := time.Now()
			for range c.repeat {
				if _, err := io.WriteString(conn, c.send); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(conn, make([]byte, c.bytes)); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(began); took != c.atLeast {
				t.Errorf("%s: %v, want %v", c.what, took, c.atLeast)
			}
		})
	}
}

// TestBytesEnd: a connection that the server ends, ends; and so does one whose server is not there.
func TestBytesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial := virtual(t, service.Model{FirstByte: time.Millisecond}, func(l net.Listener) {
			c, err := l.Accept()
			if err == nil {
				_, _ = c.Read(make([]byte, 1))
				_, _ = c.Write([]byte("a"))
				_ = c.Close()
			}
			_ = l.Close()
		})
		for _, want := range []string{"a", ""} {
			c, err := dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte("q"))
			if got, err := io.ReadAll(c); string(got) != want || err != nil {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
			_ = c.Close()
		}
	})
}

// web answers GET with as many bytes as the path says, and PUT with the number of bytes that it got, or a refusal before it reads them.
func web(l net.Listener) {
	s := &http.Server{ReadHeaderTimeout: time.Hour, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/refuse":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/break":
			panic(http.ErrAbortHandler)
		case r.Method == http.MethodPut:
			n, _ := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprint(w, n)
		default:
			n, _ := strconv.Atoi(r.URL.Path[1:])
			w.Header().Set("Content-Length", strconv.Itoa(n))
			_, _ = w.Write(make([]byte, n))
		}
	})}
	_ = s.Serve(l)
	_ = s.Close()
}

// TestHTTPTime: one wait for a request, whatever it is; the body at its rate; a connection goes on.
func TestHTTPTime(t *testing.T) {
	const size = 9_300_000
	const first = 20 * time.Millisecond
	for _, c := range []struct {
		what, method, path string
		body               int
		expect             bool
		status             int
		want               time.Duration
	}{
		{"small", http.MethodGet, "/10", 0, false, 200, first},
		{"get", http.MethodGet, "/9300000", 0, false, 200, first + 100*time.Millisecond},
		{"put", http.MethodPut, "/", size, false, 200, first + 100*time.Millisecond},
		{"put that asks first", http.MethodPut, "/", size, true, 200, first + 100*time.Millisecond},
		{"put that is refused", http.MethodPut, "/refuse", size, true, 403, first},
	} {
		synctest.Test(t, func(t *testing.T) {
			dial := virtual(t, service.S3(), web)
			transport := &http.Transport{
				DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
				ExpectContinueTimeout: time.Hour, MaxConnsPerHost: 1,
			}
			defer transport.CloseIdleConnections()
			for range 2 {
				req, err := http.NewRequestWithContext(t.Context(), c.method, "http://store"+c.path, bytes.NewReader(make([]byte, c.body)))
				if err != nil {
					t.Fatal(err)
				}
				if c.expect {
					req.Header.Set("Expect", "100-continue")
				}
				began := time.Now()
				res, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(res.Body)
				took := time.Since(began)
				if err != nil || res.StatusCode != c.status || c.method == http.MethodPut && c.status == 200 && string(got) != strconv.Itoa(size) {
					t.Errorf("%s: %s, %d bytes, %v", c.what, res.Status, len(got), err)
				}
				if over := took - c.want; over < 0 || over > 20*time.Microsecond { // heads have their time too
					t.Errorf("%s: %v, want %v and a little more", c.what, took, c.want)
				}
				_ = res.Body.Close()
			}
		})
	}
}

// TestHTTPBreaks: of a server that breaks off, or is not there, a client sees no answer.
func TestHTTPBreaks(t *testing.T) {
	for _, server := range []func(net.Listener){web, func(l net.Listener) { _ = l.Close() }} {
		synctest.Test(t, func(t *testing.T) {
			dial := virtual(t, service.S3(), server)
			transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
			defer transport.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://store/break", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			if res, err := transport.RoundTrip(req); err == nil {
				t.Errorf("answered: %s", res.Status)
				_ = res.Body.Close()
			}
		})
	}
}

// serve has a forwarder before a real server, and returns its address.
func serve(t *testing.T, m service.Model, server string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- m.Serve(ctx, l, server) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// TestRedis runs what every store must do through a forwarder before a real Redis.
func TestRedis(t *testing.T) {
	server := servertest.Redis(t, "--databases", "100")
	at := serve(t, service.Model{FirstByte: 50 * time.Microsecond, Rate: 1 << 30}, server.Addr)
	var db atomic.Int32
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := redis.Open(t.Context(), fmt.Sprintf("redis://%s/%d", at, db.Add(1)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// TestS3 is TestRedis with a real S3 server.
func TestS3(t *testing.T) {
	server := servertest.VersityGW(t)
	at := serve(t, service.Model{HTTP: true, FirstByte: 50 * time.Microsecond, Rate: 1 << 30}, server.Addr)
	var n atomic.Int32
	storetest.Suite{Many: 100, Open: func(t *testing.T) store.Store {
		url := strings.Replace(strings.Replace(server.URL, server.Addr, at, 1), "?", fmt.Sprintf("/%d?", n.Add(1)), 1)
		s, err := s3.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}}.Run(t)
}

func TestModels(t *testing.T) {
	for _, m := range []service.Model{service.S3(), service.Redis()} {
		if m.None() || m.Says == "" {
			t.Errorf("%+v", m)
		}
	}
	if !(service.Model{HTTP: true}).None() {
		t.Error("nothing is something")
	}
}

// BenchmarkNap tells how long a nap of 100 microseconds takes.
func BenchmarkNap(b *testing.B) {
	for b.Loop() {
		service.Nap(100 * time.Microsecond)
	}
}
