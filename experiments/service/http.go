package service

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

const (
	headWithin     = time.Minute
	continueWithin = 10 * time.Second // then the body is sent unasked
	idleToServer   = 256              // connections
)

func (f forwarder) serveHTTP(ctx context.Context, l net.Listener) error {
	transport := &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return f.dial(ctx) },
		DisableCompression: true, ExpectContinueTimeout: continueWithin, MaxIdleConnsPerHost: idleToServer,
	}
	defer transport.CloseIdleConnections()
	proxy := &httputil.ReverseProxy{
		Transport:  transport,
		BufferPool: &buffers{sync.Pool{New: func() any { return new([heldBytes]byte) }}},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "server" // which dial knows
			r.Out.Host = r.In.Host                              // it is signed
		},
		ModifyResponse: func(r *http.Response) error {
			f.sleep(f.FirstByte)
			return r.Request.Context().Err()
		},
		// The client sees what became of the server, and no answer that it has not given.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	var all sync.WaitGroup // of connections
	s := &http.Server{
		Handler: proxy, ReadHeaderTimeout: headWithin, ErrorLog: proxy.ErrorLog,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				all.Add(1)
			case http.StateClosed:
				all.Done()
			}
		},
	}
	defer all.Wait()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	return errors.Join(s.Serve(l), s.Close())
}

// buffers is an httputil.BufferPool.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte { return b.pool.Get().(*[heldBytes]byte)[:] }

// Put implements httputil.BufferPool.
func (b *buffers) Put(used []byte) { b.pool.Put((*[heldBytes]byte)(used)) }
