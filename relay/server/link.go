package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
)

const (
	helloTimeout = 5 * time.Second  // for TLS and HTTP
	bindTimeout  = 10 * time.Second // then a connection without a session ends
	idleTimeout  = time.Minute      // clients ping four times as often
	writeTimeout = 10 * time.Second // for one message; then the reader is too slow to keep
	sendBuffer   = 1 << 20          // bytes, of the kernel for one connection
	maxHeader    = 8 << 10          // bytes of HTTP
)

// link is one connection over TLS: WebSocket messages of frames.
type link struct {
	conn *websocket.Conn
	raw  net.Conn // under TLS; closing it waits for nothing
	out  relay.Outbox
	done chan struct{}
	once sync.Once
}

// close ends the connection at once. It does not block.
func (l *link) close() {
	l.once.Do(func() {
		close(l.done)
		_ = l.raw.Close() // nothing to lose: what it carries may get lost anyway
	})
}

// write sends what is queued until the connection ends.
func (l *link) write() {
	defer l.close()
	for {
		b := l.out.Next(l.done)
		if b == nil {
			return
		}
		_ = l.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // fails never (gorilla)
		if l.conn.WriteMessage(websocket.BinaryMessage, b) != nil {
			return
		}
	}
}

// links counts the connections over TLS, bound or not: no more than there may be sessions.
type links struct {
	limits Limits
	gate   *gate

	mu        sync.Mutex // guards what follows
	perPrefix map[netip.Prefix]int
	total     int
}

func newLinks(l Limits) *links {
	return &links{limits: l, gate: newGate(linkRate), perPrefix: make(map[netip.Prefix]int)}
}

func (c *links) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

func (c *links) enter(a netip.Addr, now time.Duration) bool {
	if !c.gate.admits(a, now) {
		return false
	}
	p := prefixOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= c.limits.Sessions || c.perPrefix[p] >= c.limits.PerPrefix {
		return false
	}
	c.total++
	c.perPrefix[p]++
	return true
}

func (c *links) leave(a netip.Addr) {
	p := prefixOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.perPrefix[p]--; c.perPrefix[p] == 0 {
		delete(c.perPrefix, p)
	}
}

// listener closes connections beyond the limits before any cryptography.
type listener struct {
	net.Listener
	s *Server
}

// Accept returns the next connection that may stay.
func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := addrOf(c).Addr()
		if !l.s.links.enter(from, l.s.now()) {
			l.s.dropped[dropLimit].Add(1)
			_ = c.Close() // it was not even greeted
			continue
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetWriteBuffer(sendBuffer) // else as large as the kernel likes
		}
		return &counted{Conn: c, leave: sync.OnceFunc(func() { l.s.links.leave(from) })}, nil
	}
}

// counted is a connection that tells when it is closed.
type counted struct {
	net.Conn
	leave func()
}

// Close closes the connection. It may be called more than once.
func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

func addrOf(c net.Conn) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func (s *Server) openHTTPS() (net.Listener, error) {
	if !s.cfg.HTTPS.Addr().IsValid() {
		return nil, nil
	}
	l, err := net.Listen("tcp", s.cfg.HTTPS.String())
	if err != nil {
		return nil, err
	}
	return listener{l, s}, nil
}

// group is the goroutines of connections, which http.Server has nothing to do with once they are WebSocket.
type group struct {
	mu    sync.Mutex // guards ended, and wg's count from growing when it is set
	ended bool
	wg    sync.WaitGroup
}

func (g *group) run(fs ...func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return false
	}
	for _, f := range fs {
		g.wg.Go(f)
	}
	return true
}

func (g *group) end() {
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	g.wg.Wait()
}

// serveHTTPS serves until ctx ends; then all connections have ended.
func (s *Server) serveHTTPS(ctx context.Context, l net.Listener, main []udpx.Socket) error {
	all := &group{}
	defer all.end()
	up := websocket.Upgrader{HandshakeTimeout: helloTimeout, ReadBufferSize: 4 << 10, WriteBufferPool: new(sync.Pool), WriteBufferSize: 16 << 10}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+relay.WebSocketPath, func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil { // which it has answered
			s.dropped[dropMalformed].Add(1)
			return
		}
		k := &link{conn: conn, raw: underTLS(conn.NetConn()), done: make(chan struct{})}
		from := origin{addrOf(k.raw), k}
		if !all.run(k.write, func() {
			defer context.AfterFunc(ctx, k.close)()
			s.serveLink(from, main[int(from.addr.Port())%len(main)])
		}) {
			k.close()
		}
	})
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: helloTimeout, ReadTimeout: helloTimeout, WriteTimeout: helloTimeout, MaxHeaderBytes: maxHeader,
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{s.cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // WebSocket is HTTP/1.1
		ErrorLog:     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func underTLS(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

type inbox struct{ b [relay.MaxMessage]byte }

var inboxes = sync.Pool{New: func() any { return new(inbox) }}

// serveLink forwards what comes over one connection until that ends.
func (s *Server) serveLink(from origin, conn udpx.Socket) {
	l := from.link
	defer s.table.leave(from)
	defer l.close()
	f := forwarder{Server: s, conn: conn, from: from}
	l.conn.SetReadLimit(relay.MaxMessage)
	_ = l.conn.SetReadDeadline(time.Now().Add(bindTimeout)) // fails when closed, as the read then does
	for {
		kind, r, err := l.conn.NextReader()
		if err != nil {
			return
		}
		if kind != websocket.BinaryMessage || !f.message(r) {
			s.dropped[dropMalformed].Add(1)
			return
		}
		if s.table.source(from, f.now) != nil {
			_ = l.conn.SetReadDeadline(time.Now().Add(idleTimeout))
		}
	}
}

// message forwards the frames of one message and reports whether it was well-formed.
func (f *forwarder) message(r io.Reader) bool {
	in := inboxes.Get().(*inbox)
	defer inboxes.Put(in)
	n, err := io.ReadFull(r, in.b[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false
	}
	f.now, f.src, f.asked = f.Server.now(), nil, false
	return relay.Runs(in.b[:n], f.frames)
}
