// Package proxytest runs an HTTP proxy on loopback that knows CONNECT and nothing else, for tests.
package proxytest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// Proxy is one that runs until its test ends.
type Proxy struct {
	Addr string // HOST:PORT

	names map[string]string
	wg    sync.WaitGroup

	mu    sync.Mutex // guards what follows
	asked map[string]string
	open  map[net.Conn]struct{} // nil once the test has ended
}

// Start starts a proxy that knows where names are: from HOST:PORT, as clients say it, to HOST:PORT. Besides these it
// connects to loopback addresses.
func Start(t testing.TB, names map[string]string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), names: names, asked: make(map[string]string), open: make(map[net.Conn]struct{})}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: p}
	p.wg.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() {
		_ = s.Close()
		p.mu.Lock()
		for c := range p.open {
			_ = c.Close()
		}
		p.open = nil
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// Asked returns the Proxy-Authorization with which the last CONNECT to an address came, or "none", or "never".
func (p *Proxy) Asked(addr string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if auth, ok := p.asked[addr]; ok {
		return auth
	}
	return "never"
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(rw, "CONNECT alone is known here", http.StatusMethodNotAllowed)
		return
	}
	auth := r.Header.Get("Proxy-Authorization")
	if auth == "" {
		auth = "none"
	}
	p.mu.Lock()
	p.asked[r.Host] = auth
	p.mu.Unlock()
	out, err := p.dial(r.Host)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadGateway)
		return
	}
	in, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		_ = out.Close()
		return
	}
	if !p.keep(in, out) {
		return
	}
	_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n") // a failure ends both ways
	for _, c := range [][2]net.Conn{{in, out}, {out, in}} {
		go func() {
			defer p.wg.Done()
			_, _ = io.Copy(c[0], c[1])
			p.drop(in, out)
		}()
	}
}

func (p *Proxy) dial(to string) (net.Conn, error) {
	if known, ok := p.names[to]; ok {
		to = known
	}
	if a, err := netip.ParseAddrPort(to); err != nil || !a.Addr().IsLoopback() {
		return nil, fmt.Errorf("%s is not known here", to)
	}
	return net.Dial("tcp", to)
}

// HangUp ends all connections that the proxy has made.
func (p *Proxy) HangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
}

// keep notes two connections, between which two goroutines will copy, or closes them.
func (p *Proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.open == nil {
			_ = c.Close()
			continue
		}
		p.open[c] = struct{}{}
	}
	if p.open == nil {
		return false
	}
	p.wg.Add(len(conns))
	return true
}

func (p *Proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.open, c)
	}
}
