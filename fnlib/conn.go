package fnlib

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/transport"
)

// DefaultService is what Dial and Listen mean when no service is named.
const DefaultService = "default"

// Addr is the address of a function's service.
type Addr struct{ Name, Service string }

// Network returns "fnwire".
func (Addr) Network() string { return "fnwire" }

// String returns NAME:SERVICE.
func (a Addr) String() string { return a.Name + ":" + a.Service }

// Conn is a connection between two functions: a [net.Conn] with half-close. It stays up while its
// packets move from the relay to a direct path and back.
type Conn struct {
	*transport.Stream
	local, remote Addr
	traffic       *traffic
	read          func() // notes that the end was read
}

// LocalAddr returns this end's Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the peer's Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Link tells about the link that the connection runs on: path, round-trip time, history.
func (c *Conn) Link() transport.Status { return c.Stream.Link().Status() }

// Read reads what the peer wrote; io.EOF after its CloseWrite or Close. The error matches
// ErrNotListening if nobody accepted the connection, ErrLink if the link broke.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.read()
	}
	return n, c.mapError(err)
}

// Write matches the same errors as Read.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.Stream.Write(b)
	return n, c.mapError(err)
}

// CloseWrite sends the end of the connection after what was written; reading goes on.
func (c *Conn) CloseWrite() error {
	err := c.Stream.CloseWrite()
	c.traffic.update(func() { c.traffic.wrote = true })
	return err
}

// Close ends both directions and a Write that waits. What was written is still delivered.
func (c *Conn) Close() error {
	err := c.Stream.Close()
	c.traffic.update(func() { c.traffic.wrote = true })
	c.read()
	return err
}

// Reset ends both directions at once, and what was written may be lost: the peer's Read and Write fail with
// a transport.ResetError that holds code. Codes from 0x100 on are the application's.
func (c *Conn) Reset(code uint64) {
	c.Stream.Reset(code)
	c.read()
}

func (c *Conn) mapError(err error) error {
	var reset *transport.ResetError
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return err
	case errors.As(err, &reset) && reset.Code == resetNotListening:
		return fmt.Errorf("%w: %s", ErrNotListening, c.remote)
	case errors.Is(err, transport.ErrLinkClosed):
		return fmt.Errorf("%w: %w", ErrLink, err)
	default:
		return err
	}
}

// SplitAddr parses NAME or NAME:SERVICE.
func SplitAddr(s string) (Addr, error) {
	name, service, found := strings.Cut(s, ":")
	if !found {
		service = DefaultService
	}
	if err := job.CheckName(name); err != nil {
		return Addr{}, fmt.Errorf("%w: %w", ErrName, err)
	}
	if err := checkService(service); err != nil {
		return Addr{}, err
	}
	return Addr{name, service}, nil
}

func checkService(s string) error {
	if s == "" || len(s) > maxService {
		return fmt.Errorf("fnlib: service %.80q: want 1 to %d bytes", s, maxService)
	}
	return nil
}

// Dial connects to a function's service, "NAME" or "NAME:SERVICE". If nobody holds the name it waits
// until somebody joins, as long as ctx allows. The service itself is not waited for: if the function
// does not listen, the first Read fails with ErrNotListening.
func (n *Node) Dial(ctx context.Context, to string) (*Conn, error) { return n.DialPath(ctx, to, Auto) }

// DialPath is Dial with a policy.
func (n *Node) DialPath(ctx context.Context, to string, path Path) (*Conn, error) {
	addr, err := SplitAddr(to)
	if err != nil {
		return nil, err
	}
	s, _, err := n.openStream(ctx, addr.Name, path, func() []byte { return appendConnHeader(nil, addr.Service) })
	if err != nil {
		return nil, fmt.Errorf("fnlib: dial %s: %w", to, err)
	}
	return n.newConn(s, Addr{n.cfg.Name, addr.Service}, addr, true), nil
}

func (n *Node) newConn(s *transport.Stream, local, remote Addr, opened bool) *Conn {
	t := n.trafficOf(s.Link())
	return &Conn{Stream: s, local: local, remote: remote, traffic: t, read: t.begin(opened)}
}

// checkTo returns an error unless name may be the name of another function.
func (n *Node) checkTo(name string) error {
	if err := job.CheckName(name); err != nil {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	if name == n.cfg.Name {
		return fmt.Errorf("%w: %q is this function itself", ErrName, name)
	}
	return nil
}

// openStream opens a stream and writes its header, which is asked for when there is a link. One that turns out to be dead is made anew once.
func (n *Node) openStream(ctx context.Context, name string, path Path, header func() []byte) (*transport.Stream, callPhases, error) {
	if err := n.checkTo(name); err != nil {
		return nil, callPhases{}, err
	}
	for try := 0; ; try++ {
		l, phases, err := n.link(ctx, name, path)
		if err != nil {
			return nil, phases, err
		}
		s, err := openOn(ctx, l, header())
		if err == nil {
			return s, phases, nil
		}
		if dead := n.dead(); dead != nil {
			return nil, phases, dead
		}
		if ctx.Err() != nil || try > 0 {
			return nil, phases, cause(ctx, err)
		}
	}
}

// openOn opens a stream and writes its header, which waits if the peer has no window left. Without one the peer does not see the stream yet.
func openOn(ctx context.Context, l *transport.Link, header []byte) (*transport.Stream, error) {
	s, err := l.OpenStream(ctx)
	if err != nil || len(header) == 0 {
		return s, err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset(resetAborted) })
	_, err = s.Write(header)
	if !stop() || err != nil {
		if errors.Is(err, transport.ErrLinkClosed) {
			<-l.Done() // lest it is given out again
		}
		s.Reset(resetAborted)
		return nil, cause(ctx, err)
	}
	return s, nil
}

// onLink serves the streams that the peer opens on a new link, which is what a call of the peer waits for.
func (n *Node) onLink(l *transport.Link) {
	n.mu.Lock()
	if m := n.members[l.Peer()]; m != nil {
		m.called[l.Class()] = time.Time{}
		if c := n.calls[callKey{m.name, l.Class()}]; c != nil {
			select {
			case c.answer <- l.Peer():
			default:
			}
		}
	}
	n.mu.Unlock()
	n.wg.Go(func() {
		defer func() {
			<-l.Done() // its streams end a moment before; from then on trafficOf keeps nothing
			n.mu.Lock()
			delete(n.traffic, l)
			n.mu.Unlock()
		}()
		for {
			s, err := l.AcceptStream(n.ctx)
			if err != nil {
				return
			}
			n.wg.Go(func() { n.serve(s) })
		}
	})
}

// serve reads a stream's header and hands it on.
func (n *Node) serve(s *transport.Stream) {
	_ = s.SetReadDeadline(time.Now().Add(headerDeadline))
	var kind [1]byte
	if _, err := io.ReadFull(s, kind[:]); err != nil {
		s.Reset(resetAborted)
		return
	}
	var err error
	switch kind[0] {
	case streamConn:
		err = n.serveConn(s)
	case streamSend:
		err = n.serveSend(s)
	case streamGet:
		err = n.serveGet(s)
	case streamPing:
		err = servePing(s)
	case streamBye:
		err = n.serveBye(s)
	default:
		err = fmt.Errorf("%w: type %#x", errWire, kind[0])
	}
	if err != nil {
		n.log.Debug("fnlib: stream refused", "from", n.nameOf(s.Link().Peer()), "error", err)
		s.Reset(resetAborted)
	}
}

func (n *Node) serveConn(s *transport.Stream) error {
	service, err := readConnHeader(s)
	if err != nil {
		return err
	}
	_ = s.SetReadDeadline(time.Time{})
	n.mu.Lock()
	l := n.listeners[service]
	n.mu.Unlock()
	if l == nil {
		n.trafficOf(s.Link()).begin(false)() // the peer has counted it
		s.Reset(resetNotListening)
		return nil
	}
	c := n.newConn(s, Addr{n.cfg.Name, service}, Addr{n.nameOf(s.Link().Peer()), service}, false)
	select {
	case l.conns <- c:
		return nil
	case <-l.done:
		s.Reset(resetNotListening)
	case <-s.Link().Done():
	case <-n.ctx.Done():
	}
	c.read()
	return nil
}

// Listener accepts connections to one service. It is a [net.Listener].
type Listener struct {
	n       *Node
	service string
	conns   chan *Conn
	done    chan struct{}
	once    sync.Once
}

// Listen accepts connections to a service of this node; "" means DefaultService.
func (n *Node) Listen(service string) (*Listener, error) {
	if service == "" {
		service = DefaultService
	}
	if err := checkService(service); err != nil {
		return nil, err
	}
	l := &Listener{n: n, service: service, conns: make(chan *Conn), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.dead(); err != nil {
		return nil, err
	}
	if n.listeners[service] != nil {
		return nil, fmt.Errorf("fnlib: listen: service %q is taken", service)
	}
	n.listeners[service] = l
	return l, nil
}

// Accept waits for a connection. It fails with net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. Connections that were accepted stay open.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.n.mu.Lock()
		delete(l.n.listeners, l.service)
		l.n.mu.Unlock()
	})
	return nil
}

// Addr returns this node's Addr of the service.
func (l *Listener) Addr() net.Addr { return Addr{l.n.cfg.Name, l.service} }

// Pong is what Ping returns.
type Pong struct {
	RTT  time.Duration // of this ping, application to application
	Link transport.Status
}

// Ping sends nine bytes to a function and waits for them to come back.
func (n *Node) Ping(ctx context.Context, name string, path Path) (Pong, error) {
	var b [pingSize]byte
	b[0] = streamPing
	_, _ = rand.Read(b[1:]) // never fails (crypto/rand)
	l, _, err := n.link(ctx, name, path)
	if err != nil {
		return Pong{}, fmt.Errorf("fnlib: ping %s: %w", name, err)
	}
	rtt, err := pingLink(ctx, l, b)
	if err != nil {
		return Pong{}, fmt.Errorf("fnlib: ping %s: %w", name, err)
	}
	return Pong{RTT: rtt, Link: l.Status()}, nil
}

func pingLink(ctx context.Context, l *transport.Link, b [pingSize]byte) (time.Duration, error) {
	began := time.Now()
	s, err := l.OpenStream(ctx)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Reset(resetAborted) })()
	if _, err := s.Write(b[:]); err != nil {
		return 0, cause(ctx, err)
	}
	_ = s.CloseWrite()
	var got [pingSize]byte
	if _, err := io.ReadFull(s, got[:]); err != nil {
		return 0, cause(ctx, err)
	}
	if got != b {
		return 0, fmt.Errorf("%w: ping", errWire)
	}
	return time.Since(began), nil
}

func servePing(s *transport.Stream) error {
	var b [pingSize]byte
	b[0] = streamPing
	if _, err := io.ReadFull(s, b[1:]); err != nil {
		return err
	}
	_, err := s.Write(b[:])
	_ = s.Close()
	return err
}

// cause prefers the context's error, which says more than that of the stream it reset.
func cause(ctx context.Context, err error) error {
	if c := ctx.Err(); c != nil {
		return c
	}
	return err
}
