package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/transport/punch"
)

// Link is one QUIC connection with a peer. It survives changes of path. All methods are safe for
// concurrent use.
type Link struct {
	e       *Endpoint
	peer    *remote
	class   Class
	conn    *quic.Conn
	dialled bool
	since   time.Time
	remote  net.Addr // of the handshake; at the dialling side quic-go's own getter races with Switch
	id      atomic.Pointer[LinkID]
	gen     atomic.Uint32 // of the path that QUIC sends on, at the dialling side
	streams atomic.Int32  // that are open

	lastSent, lastLost uint64    // packets; this and what follows, up to ping, are touched by Endpoint.mind only
	lossy              int       // looks in a row at which many were lost
	received           uint64    // packets
	ping               time.Time // when it will have been idle for keepAlive

	renewals chan struct{} // for follow, capacity 1
	fresh    uint16        // paths by the relay that were taken; this and what follows are touched by follow only
	tries    uint          // to take one
	failed   bool          // the last attempt to move to a direct path
	renewed  time.Time

	mu   sync.Mutex // guards path and shims
	path *quic.Path
	trs  [2]*quic.Transport // write-only legs, used in turn
	legs [2]*shim
	next int // which of them the next path gets; the other one may be in use
}

// LinkID tells a link from all others, at both ends.
type LinkID [16]byte

// ID is zero until the handshake is done.
func (l *Link) ID() (id LinkID) {
	if p := l.id.Load(); p != nil {
		id = *p
	}
	return id
}

// identify notes the link's ID, if the handshake is done. quic-go's state of a connection races with Switch, so it is asked before.
func (l *Link) identify() {
	select {
	case <-l.conn.HandshakeComplete():
	default:
		return
	}
	var id LinkID
	state := l.conn.ConnectionState().TLS
	if b, err := state.ExportKeyingMaterial("EXPORTER-fnwire-link", nil, len(id)); err == nil {
		copy(id[:], b)
		l.id.Store(&id)
	}
}

// LostLink is the last link of a class with a peer if it has ended; zero if one is up or none is known.
func (e *Endpoint) LostLink(id peer.ID, class Class) LinkID {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.links[linkKey{id, class}]; s != nil && s.link != nil {
		if s.up() {
			return LinkID{}
		}
		return s.link.ID()
	}
	if r := e.peers[id]; r != nil {
		if last := r.last[class].Load(); last != nil {
			return *last
		}
	}
	return LinkID{}
}

// Peer is the identity at the other end, as TLS has proven it.
func (l *Link) Peer() peer.ID { return l.peer.id }

// Class is what paths the link may use.
func (l *Link) Class() Class { return l.class }

// use notes that a stream is used. For RelayOnly no path needs to be looked after.
func (l *Link) use() {
	if l.class != RelayOnly {
		l.peer.use()
	}
}

// Done is closed when the link is gone.
func (l *Link) Done() <-chan struct{} { return l.conn.Context().Done() }

// Err tells why the link is gone, or nil.
func (l *Link) Err() error { return context.Cause(l.conn.Context()) }

// Finished tells that the link is gone and that the peer is too: it has closed, or its process has ended. Otherwise
// it may come back by another link.
func (l *Link) Finished() bool {
	var by *quic.ApplicationError
	return l.Left() || errors.As(l.Err(), &by) && by.ErrorCode == codeGone
}

// Left tells that the peer has closed the link.
func (l *Link) Left() bool {
	var by *quic.ApplicationError
	return errors.As(l.Err(), &by) && by.Remote && by.ErrorCode == codeClosed
}

// Close ends the link and all its streams, and waits until that is done.
func (l *Link) Close() error { return l.conn.CloseWithError(codeClosed, "closed") }

// Break ends the link as if it had been lost: both ends may come back by another one.
func (l *Link) Break() { _ = l.conn.CloseWithError(codeLost, "lost") } // an error says that it was gone before

// OpenStream opens a stream; it waits while the peer allows no more.
func (l *Link) OpenStream(ctx context.Context) (*Stream, error) {
	s, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, l.wrap(err)
	}
	return newStream(l, s), nil
}

// AcceptStream waits for a stream that the peer opens.
func (l *Link) AcceptStream(ctx context.Context) (*Stream, error) {
	s, err := l.conn.AcceptStream(ctx)
	if err != nil {
		return nil, l.wrap(err)
	}
	return newStream(l, s), nil
}

// wrap tells that the link is gone by ErrLinkClosed. Its streams end a moment before it does.
func (l *Link) wrap(err error) error {
	if isConnError(err) {
		<-l.Done()
	}
	if l.conn.Context().Err() != nil {
		return fmt.Errorf("%w: %w", ErrLinkClosed, err)
	}
	return err
}

// follow moves the link to each new direct path until the link ends, then frees the paths' legs.
func (l *Link) follow() {
	defer l.freePaths()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		st, changed := l.peer.watch()
		switch {
		case !l.upgradable(st):
		case l.peer.leg() == nil:
			retry.Reset(time.Second) // the relay may come, as after a freeze, and nothing else tells of it
		default:
			if err := l.upgrade(st.Generation); err != nil {
				l.e.log.Debug("transport: QUIC did not validate the direct path; retrying", "peer", l.peer.id, "error", err)
				retry.Reset(time.Second)
			}
		}
		select {
		case <-changed:
		case <-l.renewals:
			if err := l.renewPath(); err != nil {
				l.e.log.Debug("transport: no new path by the relay", "peer", l.peer.id, "error", err)
			}
		case <-retry.C:
		case <-l.conn.Context().Done():
			return
		}
	}
}

// upgradable: only the QUIC client can move a connection, and only while there is a relay is there a need to,
// since without one its packets go directly already.
func (l *Link) upgradable(st punch.State) bool {
	return l.dialled && l.class == Auto && st.Route == punch.RouteDirect &&
		uint32(st.Generation) > l.gen.Load() && l.conn.Context().Err() == nil
}

// upgrade moves the QUIC connection to the direct path of this generation.
//
// A quic-go server keeps a connection ID for each path that was tried and given up, until the connection moves to another, and has
// two to spare: a third path waits for ever. So after a failure the connection is moved to a fresh path by the relay, which
// either has its connection ID already or makes the server forget the oldest, and all others as soon as it is taken.
func (l *Link) upgrade(gen uint16) error {
	if l.failed {
		if err := l.refresh(); err != nil {
			return err
		}
	}
	err := l.move(gen)
	if l.failed = err != nil; l.failed {
		return err
	}
	l.gen.Store(uint32(gen))
	return nil
}

// firstFresh is where the generations of paths by the relay begin that replace the first. State machines do not get so far.
const firstFresh = 1 << 15

// renew has follow try a new path by the relay. Only the side that has dialled can.
func (l *Link) renew() {
	if l.dialled {
		select {
		case l.renewals <- struct{}{}:
		default:
		}
	}
}

// renewPath moves the connection to a path of a fresh generation that is carried by the relay, where its packets are small at first:
// quic-go never lowers the size of a path, and the way has become too narrow for it. If nothing comes back, all is as before.
// A direct path is renewed by its state machine.
func (l *Link) renewPath() error {
	if st, _ := l.peer.watch(); l.class == DirectOnly || l.class == Auto && st.Path.IsValid() {
		return nil
	}
	if l.tries > 0 && time.Since(l.renewed) < renewPause<<min(l.tries, 5) {
		return nil
	}
	l.renewed = time.Now()
	l.tries++
	return l.refresh()
}

// refresh moves the connection to a fresh path by the relay: the same one until that succeeds, so that the server has one to remember.
func (l *Link) refresh() error {
	if err := l.move(firstFresh + l.fresh); err != nil {
		return err
	}
	l.fresh = (l.fresh + 1) % firstFresh
	return nil
}

// move moves the QUIC connection to the path of a generation: QUIC validates it (RFC 9000, 8.2) and starts congestion control, RTT and
// MTU anew on both sides.
func (l *Link) move(gen uint16) error {
	tr := l.shimFor(gen)
	path, err := l.conn.AddPath(tr)
	if err != nil {
		return fmt.Errorf("add path: %w", err)
	}
	ctx, cancel := context.WithTimeout(l.conn.Context(), probeTimeout)
	defer cancel()
	if err := path.Probe(ctx); err != nil {
		_ = path.Close()
		return fmt.Errorf("probe: %w", err)
	}
	if err := path.Switch(); err != nil {
		_ = path.Close()
		return fmt.Errorf("switch: %w", err)
	}
	l.mu.Lock()
	old := l.path
	l.path = path
	l.next = 1 - l.next
	l.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	return nil
}

// shimFor returns the leg for a generation that is to be tried, which is not the one in use. Two are
// enough: the path before the one in use is closed.
func (l *Link) shimFor(gen uint16) *quic.Transport {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.next
	if l.trs[i] == nil {
		s := &shim{port: newPort(l.e.hub, l.class), peer: l.peer}
		l.legs[i] = s
		l.trs[i] = &quic.Transport{Conn: s, ConnectionIDGenerator: classIDs{l.class}}
		if l.e.raw != nil {
			l.trs[i].Conn = &oobShim{oobPort: &oobPort{port: s.port, raw: l.e.raw}, shim: s}
		}
	}
	l.legs[i].gen.Store(uint32(gen))
	return l.trs[i]
}

func (l *Link) freePaths() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, tr := range l.trs {
		if tr != nil {
			_ = l.legs[i].Close()
			_ = tr.Close()
		}
	}
}

// Status is what a link tells about itself.
type Status struct {
	Path       string        // "direct", "relay", or "both" while a direct path is in doubt
	Remote     string        // the peer's address when direct, else the relay's ID
	RTT        time.Duration // smoothed, as QUIC measures it
	Why        Why           // why it is relayed, when it is, in a word
	Reason     string        // the same for people, with what was seen last
	NAT        string        // what this instance is behind, such as "symmetric with random ports"
	PeerNAT    string        // what the peer says it is behind
	Generation uint16        // how many paths there were; 1 is the relay
	Since      time.Time     // when the link came up
	Sent, Lost uint64        // QUIC packets
	History    []PathChange  // the last changes of path, oldest first
}

// Status returns a snapshot.
func (l *Link) Status() Status {
	st, _ := l.peer.watch()
	stats := l.conn.ConnectionStats()
	s := Status{
		Path: "relay", RTT: stats.SmoothedRTT, Since: l.since, Generation: l.generation(),
		Sent: stats.PacketsSent, Lost: stats.PacketsLost, NAT: st.Here.String(), PeerNAT: st.There.String(),
	}
	direct, relay := l.peer.route.Load().choose(l.class, s.Generation, l.peer.leg() != nil)
	switch {
	case direct && relay:
		s.Path = "both"
	case direct:
		s.Path = "direct"
	}
	if direct {
		s.Remote = st.Path.String()
	} else {
		if leg := l.peer.leg(); leg != nil {
			s.Remote = leg.ID()
		}
		s.Why, s.Reason = why(l.class, st), reasonOf(st)
		if l.class == RelayOnly {
			s.Reason = "asked for relay only"
		}
	}
	h := l.peer.pathHistory()
	if i := slices.IndexFunc(h, func(c PathChange) bool { return c.At.After(l.since) }); i >= 0 && l.class != RelayOnly {
		s.History = h[i:]
	}
	return s
}

// generation is that of the path QUIC sends on.
func (l *Link) generation() uint16 {
	if !l.dialled {
		if u, ok := l.conn.RemoteAddr().(*net.UDPAddr); ok && u.Port < firstFresh {
			return uint16(u.Port)
		}
		return relayGeneration
	}
	return uint16(l.gen.Load())
}

// Identity returns the peer's short address, under which relays know it.
func (l *Link) Identity() ident.Short { return l.peer.short }
