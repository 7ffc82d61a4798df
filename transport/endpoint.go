package transport

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/udpx"
)

// MaxPeers is the most peers an endpoint keeps; of those without a link the one that was idle longest makes room.
const MaxPeers = 4096

// Nonce is an instance's share of the key that authenticates punch probes.
type Nonce [16]byte

// Errors that callers branch on.
var (
	ErrClosed   = errors.New("transport: endpoint is closed")
	ErrTooMany  = errors.New("transport: too many linked peers")
	ErrNoDirect = errors.New("transport: no direct path")
	// ErrNATs goes with ErrNoDirect when waiting is in vain: the NATs of the two sides, or blocked UDP, rule it out.
	ErrNATs = errors.New("allow a relay (path auto), or give one side a NAT that keeps its port for all destinations")
)

// Relay is how an Endpoint reaches peers that it cannot (yet) reach directly. All methods may be
// called at the same time, and none blocks.
type Relay interface {
	// ID names the relay in offers and answers.
	ID() string
	// Addr is where its frames go to and come from on the endpoint's socket.
	Addr() netip.AddrPort
	// Ready is closed once packets can be sent.
	Ready() <-chan struct{}
	// Usable reports whether packets flow now, as far as it knows. Before Ready they do not.
	Usable() bool
	// Send forwards packets of seg bytes each (the last may be shorter) to a peer. The 24 bits of tag
	// arrive with them. A packet that cannot be sent is dropped.
	Send(to ident.Short, tag uint32, b []byte, seg int) error
	// HandlePacket takes a datagram from Addr. ok is false for frames that are the relay's own
	// business; else packet, which aliases b, came from a peer.
	HandlePacket(b []byte) (from ident.Short, tag uint32, packet []byte, ok bool)
}

// Config is what an Endpoint needs.
type Config struct {
	Identity ident.Identity
	Key      job.Key
	// Listen4 and Listen6 are the local addresses; the zero value means all interfaces and a free port.
	Listen4, Listen6 netip.AddrPort
	// NoIPv6 leaves the IPv6 socket out. It is left out anyway where the system has no IPv6.
	NoIPv6 bool
	// Window is how many bytes a stream's receive window grows to; 0 is MaxWindow.
	Window int
	// OnLink is told of each new link, whoever dialled. It must not block.
	OnLink func(*Link)
	// Gone is asked about a linked peer from which nothing has been heard for seconds, since the time given, though something was
	// sent. If it says twice that the peer is gone, its links end. nil: they end when they have been idle for minutes. It may block.
	Gone func(ctx context.Context, id peer.ID, since time.Time) bool
	// OnDisturbed is told that the process was frozen, or the machine has other addresses: relays and the mapped address are to be
	// looked after. OnDoubt is told that a path has failed, which may have the same reasons. Neither must block.
	OnDisturbed, OnDoubt func()
	// Logger is silent when nil.
	Logger *slog.Logger
	// Sockets, when set, are used instead of the system's: an in-memory network in virtual time.
	Sockets []udpx.Socket
}

// Endpoint is an instance's end of all its links. All methods are safe for concurrent use.
type Endpoint struct {
	cfg   Config
	log   *slog.Logger
	hub   *hub
	tls   *libp2ptls.Identity
	nonce Nonce

	flightWait time.Duration

	raw syscall.RawConn // of the IPv4 socket; nil in memory

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	looks chan struct{} // for mind, capacity 1

	split split // touched by mind only

	closing  sync.Once
	closeErr error // of the one close

	mu     sync.Mutex // guards what follows
	host   []netip.AddrPort
	local  []netip.AddrPort
	nat    NAT
	relays map[string]Relay
	peers  map[peer.ID]*remote
	trs    [classes]*quic.Transport
	links  map[linkKey]*slot
	closed bool
}

// Open binds the sockets and starts reading them. Close ends everything it started.
func Open(cfg Config) (*Endpoint, error) {
	cfg.Window = cmp.Or(cfg.Window, MaxWindow)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	id, err := libp2ptls.NewIdentity(cfg.Identity.Private)
	if err != nil {
		return nil, fmt.Errorf("transport: identity: %w", err)
	}
	v4, v6, err := openSockets(cfg)
	if err != nil {
		return nil, err
	}
	pub, err := ident.PublicKey(cfg.Identity.Peer)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	e := &Endpoint{
		flightWait: flightWait,
		cfg:        cfg, log: cfg.Logger, tls: id, looks: make(chan struct{}, 1),
		hub:    newHub(ident.ShortOf(cfg.Key.ID(), pub), cfg.Logger, v4, v6),
		relays: make(map[string]Relay),
		peers:  make(map[peer.ID]*remote),
		links:  make(map[linkKey]*slot),
	}
	if c, ok := v4.(syscall.Conn); ok {
		if e.raw, err = c.SyscallConn(); err != nil {
			return nil, fmt.Errorf("transport: UDP socket: %w", err)
		}
	}
	_, _ = rand.Read(e.nonce[:]) // never fails (crypto/rand)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.host = e.hostCandidates()
	e.local = e.host
	// quic-go prints to stderr when the kernel grants small buffers, as on most function platforms.
	// A library must be silent; the Endpoint logs it instead.
	if os.Getenv(quicBufferWarning) == "" {
		_ = os.Setenv(quicBufferWarning, "true")
	}
	e.hub.start()
	e.wg.Go(e.mind)
	if err := e.listen(Auto); err != nil {
		_ = e.Close()
		return nil, err
	}
	return e, nil
}

const quicBufferWarning = "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"

func openSockets(cfg Config) (v4, v6 udpx.Socket, err error) {
	for _, s := range cfg.Sockets {
		if s.LocalAddr().Addr().Unmap().Is4() {
			v4 = s
		} else {
			v6 = s
		}
	}
	if v4 != nil || v6 != nil {
		return v4, v6, nil
	}
	l4, l6 := cfg.Listen4, cfg.Listen6
	if !l4.IsValid() {
		l4 = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	if !l6.IsValid() {
		l6 = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	c4, err := udpx.Listen("udp4", l4)
	if err != nil {
		return nil, nil, fmt.Errorf("transport: UDP socket: %w", err)
	}
	if cfg.NoIPv6 {
		return c4, nil, nil
	}
	if c6, err := udpx.Listen("udp6", l6); err == nil {
		return c4, c6, nil
	}
	return c4, nil, nil
}

// PeerID is the identity of this instance.
func (e *Endpoint) PeerID() peer.ID { return e.cfg.Identity.Peer }

// Nonce is what offers and answers carry of this instance, for ProbeKey at the peer.
func (e *Endpoint) Nonce() Nonce { return e.nonce }

// LocalPort is the UDP port of the IPv4 socket.
func (e *Endpoint) LocalPort() uint16 { return e.hub.v4.LocalAddr().Port() }

// Write sends packets of seg bytes each to an address; relay legs are given it as their way out.
func (e *Endpoint) Write(to netip.AddrPort, b []byte, seg int) error { return e.hub.write(b, seg, to) }

// AddRelay makes a relay usable. A relay with the same ID is replaced.
func (e *Endpoint) AddRelay(r Relay) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.relays[r.ID()] = r
	e.publishLegs()
}

// HandleRelayed takes frames of seg bytes each (the last may be shorter), at most 64 KiB, that reached a relay's
// leg not by the endpoint's socket but by a connection of the leg's own. It asks leg.HandlePacket about
// each, as for those of the socket, neither keeps b nor waits, and is for one goroutine for each leg.
func (e *Endpoint) HandleRelayed(leg Relay, b []byte, seg int) {
	if seg > 0 {
		e.hub.dispatchRelayed(leg, b, seg)
	}
}

// RemoveRelay forgets a relay.
func (e *Endpoint) RemoveRelay(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.relays, id)
	e.publishLegs()
}

// publishLegs runs under e.mu.
func (e *Endpoint) publishLegs() {
	e.hub.update(func(t *tables) {
		clear(t.legs)
		for _, r := range e.relays {
			t.legs[r.Addr()] = r
		}
	})
	byID := make(map[string]Relay, len(e.relays))
	for id, r := range e.relays {
		byID[id] = r
	}
	e.hub.legs.Store(&byID)
}

// listen makes the quic.Transport of a class and accepts its links.
func (e *Endpoint) listen(class Class) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	if e.trs[class] != nil {
		return nil
	}
	p := newPort(e.hub, class)
	tr := &quic.Transport{Conn: p, ConnectionIDGenerator: classIDs{class}, DisableVersionNegotiationPackets: true}
	if e.raw != nil {
		tr.Conn = &oobPort{port: p, raw: e.raw}
	}
	ln, err := tr.ListenEarly(&tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: e.serverTLS}, e.quicConfig())
	if err != nil {
		return fmt.Errorf("transport: QUIC: %w", err)
	}
	e.trs[class] = tr
	e.hub.ports[class].Store(p)
	e.wg.Go(func() { e.accept(ln, class) })
	return nil
}

// Stats are counters since Open.
type Stats struct {
	DirectIn, DirectOut, RelayIn, RelayOut uint64 // bytes of QUIC packets
	Dropped                                uint64 // batches that QUIC or a state machine could not take in time
	Strangers                              uint64 // packets of nobody that was admitted
	Cut                                    uint64 // QUIC packets that were sent in pieces
	Peers, Links                           int
}

// Stats returns the counters.
func (e *Endpoint) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := &e.hub.stats
	links := 0
	for _, s := range e.links {
		if s.up() {
			links++
		}
	}
	return Stats{
		DirectIn: h.directIn.Load(), DirectOut: h.directOut.Load(),
		RelayIn: h.relayIn.Load(), RelayOut: h.relayOut.Load(),
		Dropped: h.dropped.Load(), Strangers: h.strangers.Load(), Cut: h.cut.Load(),
		Peers: len(e.peers), Links: links,
	}
}

// Close ends all links and goroutines and closes the sockets. It may be called more than once; each call returns when all has ended,
// with the same error.
func (e *Endpoint) Close() error {
	e.closing.Do(func() { e.closeErr = e.close() })
	return e.closeErr
}

func (e *Endpoint) close() error {
	e.mu.Lock()
	e.closed = true
	links := make([]*Link, 0, len(e.links))
	for _, s := range e.links {
		if s.link != nil {
			links = append(links, s.link)
		}
	}
	trs := e.trs
	e.mu.Unlock()

	var ending sync.WaitGroup
	for _, l := range links {
		ending.Go(func() { _ = l.Close() })
	}
	ending.Wait()
	e.cancel()
	var err error
	for class, tr := range trs {
		if tr != nil {
			err = errors.Join(err, tr.Close())
			_ = e.hub.ports[class].Load().Close()
		}
	}
	e.hub.close()
	e.wg.Wait()
	for _, r := range e.hub.tables.Load().peers {
		r.endTalks()
	}
	return err
}
