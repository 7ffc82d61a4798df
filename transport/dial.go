package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/transport/punch"
)

const (
	alpn = "fnwire/1"

	// A function platform freezes processes for longer than this only between invocations. Whether a silent peer is alive is
	// asked elsewhere, and sooner: see Endpoint.mind.
	idleTimeout  = 3 * time.Minute
	keepAlive    = punch.KeepAliveMost // what tells an idle side that the other has died; paths through NATs are kept alive by punch
	dialTimeout  = 10 * time.Second    // one attempt
	probeTimeout = 3 * time.Second

	// QUIC application error codes.
	codeClosed   = 0
	codeReplaced = 1
	codeRefused  = 2
	codeGone     = 3
	codeLost     = 4
)

// Errors of links.
var (
	ErrLinkClosed  = errors.New("transport: link is closed")
	errNotAdmitted = errors.New("transport: peer is not admitted")
	errPeerAddr    = errors.New("transport: connection from an address of no admitted peer")
)

type linkKey struct {
	peer  peer.ID
	class Class
}

// slot is where the link of a peer and class is, or will be.
type slot struct {
	link    *Link
	dialing bool
	waiting int           // calls of Link
	err     error         // of the last attempt; nil while one is under way
	changed chan struct{} // closed and replaced at each change; guarded, like all here, by Endpoint.mu
}

// Receive windows of a stream, in bytes.
const (
	firstWindow = 512 << 10
	MaxWindow   = 16 << 20
)

// quicConfig gives a stream a small window at first, which grows with what is read, and the connection
// a big one: streams that nobody reads yet, such as states that wait their turn, must leave room for
// the one that is being read, or a receiver that takes them in turn would wait for ever.
func (e *Endpoint) quicConfig() *quic.Config {
	return &quic.Config{
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                idleTimeout / 2, // for links of processes that are thawed for less than Link.keepAlive waits
		EnableDatagrams:                true,            // for Link.keepAlive only
		HandshakeIdleTimeout:           dialTimeout,
		InitialStreamReceiveWindow:     uint64(min(firstWindow, e.cfg.Window)),
		MaxStreamReceiveWindow:         uint64(e.cfg.Window),
		InitialConnectionReceiveWindow: 24 << 20,
		MaxConnectionReceiveWindow:     24 << 20,
		MaxIncomingStreams:             1 << 12,
		MaxIncomingUniStreams:          -1,
		// The least that QUIC allows: with a relay's header and IPv4's it fits a path MTU of 1280, and
		// discovery goes on from there.
		InitialPacketSize: 1200,
	}
}

// tlsFor pins the peer: its certificate must carry the identity that the offer or answer named.
func (e *Endpoint) tlsFor(id peer.ID) *tls.Config {
	conf, _ := e.tls.ConfigForPeer(id)
	conf.NextProtos = []string{alpn}
	// The hybrid post-quantum share would make the first flight two packets each way.
	conf.CurvePreferences = []tls.CurveID{tls.X25519}
	return conf
}

func (e *Endpoint) serverTLS(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	r, err := e.remoteOf(hello.Conn.RemoteAddr())
	if err != nil {
		return nil, err
	}
	return e.tlsFor(r.id), nil
}

func (e *Endpoint) remoteOf(a net.Addr) (*remote, error) {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return nil, errPeerAddr
	}
	s, _, ok := parseVirtual(u)
	if !ok {
		return nil, errPeerAddr
	}
	r := e.hub.tables.Load().peers[s]
	if r == nil {
		return nil, errPeerAddr
	}
	return r, nil
}

func (e *Endpoint) accept(ln *quic.EarlyListener, class Class) {
	for {
		conn, err := ln.Accept(e.ctx)
		if err != nil {
			return
		}
		r, err := e.remoteOf(conn.RemoteAddr())
		if err != nil || e.Dials(r.id) {
			_ = conn.CloseWithError(codeRefused, "not expected")
			continue
		}
		if isVouched(conn.RemoteAddr()) {
			e.install(r, class, conn, false)
			continue
		}
		e.wg.Go(func() { // until the peer has proven who it is
			select {
			case <-conn.HandshakeComplete():
				e.install(r, class, conn, false)
			case <-conn.Context().Done():
			case <-e.ctx.Done():
			}
		})
	}
}

// slot returns the slot of a key. It runs under e.mu.
func (e *Endpoint) slot(k linkKey) *slot {
	s := e.links[k]
	if s == nil {
		s = &slot{changed: make(chan struct{})}
		e.links[k] = s
	}
	return s
}

// up reports whether there is a link that has not ended. One that has ended stays in its slot for a
// moment, until follow has freed it. It runs under e.mu.
func (s *slot) up() bool { return s.link != nil && s.link.conn.Context().Err() == nil }

// notify tells those who wait for a slot. It runs under e.mu.
func (s *slot) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// dial starts an attempt unless one is under way or a link is up and need not be renewed.
//
// It adopts a if that comes in time. Otherwise, if collect is set, it does not wait for a path. It returns the first
// flight in both cases.
func (e *Endpoint) dial(r *remote, class Class, renew bool, a *Attempt, collect bool) (f *Flight) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.slot(linkKey{r.id, class})
	if e.closed || s.dialing || s.up() && !renew {
		return nil
	}
	s.dialing, s.err = true, nil
	switch {
	case a != nil && a.adopt(r):
		f = a.flight
	case collect:
		a, f = nil, newFlight(false, &r.flights[class], e.flightWait)
	default:
		a = nil
	}
	e.wg.Go(func() {
		conn, err := e.attempt(r, class, a, collect)
		if err == nil {
			e.install(r, class, conn, true)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		s.dialing, s.err = false, err
		s.notify()
		if err != nil {
			e.log.Debug("transport: dial failed", "peer", r.id, "class", class, "error", err)
		}
	})
	return f
}

// attempt dials once, as soon as there is a path of the class to dial over: the answer is one. An attempt that
// was adopted has begun.
func (e *Endpoint) attempt(r *remote, class Class, a *Attempt, collect bool) (*quic.Conn, error) {
	ctx, cancel := context.WithTimeout(e.ctx, dialTimeout)
	defer cancel()
	if a != nil {
		conn, err := a.wait(ctx)
		if err != nil {
			return nil, fmt.Errorf("transport: dial %s over %s: %w", r.id, class, err)
		}
		return conn, nil
	}
	to := r.relayAddr
	if !collect {
		var err error
		if to, err = e.firstPath(ctx, r, class); err != nil {
			return nil, err
		}
	}
	e.mu.Lock()
	tr := e.trs[class]
	e.mu.Unlock()
	conn, err := tr.Dial(ctx, to, e.tlsFor(r.id), e.quicConfig())
	if err != nil {
		return nil, fmt.Errorf("transport: dial %s over %s: %w", r.id, class, err)
	}
	return conn, nil
}

// firstPath waits for a relay that reaches the peer, or for a direct path, whichever comes first and
// the class allows. It returns the virtual address to dial.
func (e *Endpoint) firstPath(ctx context.Context, r *remote, class Class) (*net.UDPAddr, error) {
	r.wanted.Add(1)
	defer r.wanted.Add(-1)
	for {
		st, changed := r.watch()
		var ready <-chan struct{}
		if leg := r.leg(); leg != nil && class != DirectOnly {
			if leg.Usable() {
				return r.relayAddr, nil
			}
			ready = leg.Ready()
		}
		if st.Path.IsValid() && class != RelayOnly { // a relay that does not work may never do so again
			return virtualAddr(r.short, st.Generation), nil
		}
		if class == DirectOnly && st.Hopeless {
			return nil, noDirect(st)
		}
		select {
		case <-ready:
			return r.relayAddr, nil
		case <-changed:
		case <-ctx.Done():
			if e.ctx.Err() != nil {
				return nil, ErrClosed
			}
			if class == RelayOnly {
				return nil, errors.New("transport: the peer's relay cannot be reached")
			}
			return nil, noDirect(st)
		}
	}
}

func noDirect(st punch.State) error {
	if st.Hopeless {
		return fmt.Errorf("%w: %s; %w", ErrNoDirect, reasonOf(st), ErrNATs)
	}
	return fmt.Errorf("%w: %s", ErrNoDirect, reasonOf(st))
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func reasonOf(st punch.State) string {
	switch {
	case st.Reason != "":
		return st.Reason
	case st.Path.IsValid():
		return "a direct path was found, but QUIC is not on it yet"
	}
	return "not tried"
}

// install makes conn the link of its peer and class; a link that was there is closed.
func (e *Endpoint) install(r *remote, class Class, conn *quic.Conn, dialled bool) {
	key := linkKey{r.id, class}
	l := &Link{e: e, peer: r, class: class, conn: conn, dialled: dialled, since: time.Now(), remote: conn.RemoteAddr(), renewals: make(chan struct{}, 1)}
	if u, ok := l.remote.(*net.UDPAddr); ok {
		l.gen.Store(uint32(u.Port))
	}
	l.identify()
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		_ = conn.CloseWithError(codeClosed, "")
		return
	}
	s := e.slot(key)
	old := s.link
	s.link, s.err = l, nil
	r.links[class].Store(l)
	s.notify()
	e.wg.Add(1)
	e.mu.Unlock()
	if old != nil {
		_ = old.conn.CloseWithError(codeReplaced, "replaced by a newer link")
	}
	go func() {
		defer e.wg.Done()
		if l.ID() == (LinkID{}) { // the handshake goes on, at a side that does not dial
			select {
			case <-l.conn.HandshakeComplete():
				l.identify()
			case <-l.conn.Context().Done():
			}
		}
		l.follow()
		if id := l.ID(); id != (LinkID{}) {
			r.last[class].Store(&id)
		}
		r.links[class].CompareAndSwap(l, nil)
		e.mu.Lock()
		defer e.mu.Unlock()
		if s.link == l {
			s.link = nil
			s.notify()
			if !s.dialing {
				delete(e.links, key)
			}
		}
	}()
	if e.cfg.OnLink != nil {
		e.cfg.OnLink(l)
	}
}

// Link returns the link to a peer when it is up. It ends with ctx, or when this side's attempt to
// dial fails. The peer must have been admitted.
func (e *Endpoint) Link(ctx context.Context, id peer.ID, class Class) (*Link, error) {
	for {
		e.mu.Lock()
		if e.closed {
			e.mu.Unlock()
			return nil, ErrClosed
		}
		r := e.peers[id]
		if r == nil {
			e.mu.Unlock()
			return nil, errNotAdmitted
		}
		s := e.slot(linkKey{id, class})
		if link, err := s.link, s.err; s.up() || err != nil {
			up := s.up()
			e.mu.Unlock()
			if up {
				return link, nil
			}
			return nil, err
		}
		changed := s.changed
		s.waiting++
		e.mu.Unlock()
		st, moved := r.watch()
		hopeless := class == DirectOnly && st.Hopeless
		if hopeless {
			moved = closedChan
		}
		select {
		case <-changed:
		case <-moved:
		case <-ctx.Done():
		case <-e.ctx.Done():
		}
		e.mu.Lock()
		s.waiting--
		e.mu.Unlock()
		if e.ctx.Err() != nil {
			return nil, ErrClosed
		}
		if hopeless {
			return nil, noDirect(st)
		}
		if ctx.Err() != nil {
			return nil, e.whyNoLink(id, class, context.Cause(ctx))
		}
	}
}

func (e *Endpoint) whyNoLink(id peer.ID, class Class, err error) error {
	e.mu.Lock()
	r := e.peers[id]
	e.mu.Unlock()
	if r != nil && class == DirectOnly {
		st, _ := r.watch()
		return fmt.Errorf("%w (%s): %w", ErrNoDirect, reasonOf(st), err)
	}
	return err
}

// Up returns the link to a peer if one is up, or nil.
func (e *Endpoint) Up(id peer.ID, class Class) *Link {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.links[linkKey{id, class}]; s != nil && s.up() {
		return s.link
	}
	return nil
}
