package fnlib

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/portmap"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/internal/zchunk"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/transport"
)

const (
	leaveTimeout   = time.Second
	lingerTimeout  = 2 * time.Second
	lingerLeast    = 100 * time.Millisecond // when storing has used up Config.Grace
	helloQueue     = 256
	noticeQueue    = 1024
	maxMembers     = 16384 // peers whose hellos are remembered
	relayTimeout   = time.Second
	stunSettle     = 50 * time.Millisecond
	headerDeadline = 10 * time.Second
)

// Node is this function's membership in a job. All methods are safe for concurrent use.
type Node struct {
	cfg Config
	key job.Key
	id  ident.Identity
	log *slog.Logger

	client  *rendezvous.Client
	ep      *transport.Endpoint
	relays  relays
	hellos  chan rendezvous.Envelope
	answers chan struct{} // one for each answer under way
	again   chan struct{} // closed and replaced (under mu) when the rendezvous came back

	disturbances, doubts, udpUp chan struct{} // for runNetwork, capacity 1
	remap                       chan struct{} // for mapPort, capacity 1

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	once   sync.Once
	ending atomic.Pointer[error] // why, from the moment that links are closed
	joined Timings

	inbound    inbound
	kept       keeper
	busy       busy
	leaving    chan struct{}               // closed (under mu) when the node begins to close
	sends      sync.WaitGroup              // that may store their states; Add under mu
	words      busy                        // with words on early states
	lastStored time.Time                   // in the name of a state; guarded by mu
	look       chan struct{}               // for runStored, capacity 1: look into the store
	notices    chan string                 // for runStored: names of stored states
	more       atomic.Bool                 // there are stored states that did not fit
	mapped     atomic.Pointer[PortMapping] // nil: not asked, or no answer yet
	codec      zchunk.Codec

	mu        sync.Mutex // guards what follows
	epoch     uint64
	seq       uint64
	members   map[peer.ID]*member
	calls     map[callKey]*call
	listeners map[string]*Listener
	traffic   map[*transport.Link]*traffic

	claims  map[string]claims // by the name to which they went
	awaited map[stateID]*said
}

// Timings says how long the parts of Join took.
type Timings struct {
	Connect time.Duration // NATS connection
	Join    time.Duration // request to the rendezvous
	Relay   time.Duration // until a relay could be used; 0 if none
	STUN    time.Duration // until the mapped address was known; 0 if unknown
	Total   time.Duration
}

// Join connects to the rendezvous, takes the name and gets ready to be called: it returns when a relay
// and the node's own mapped address are known, or a second later without them. Errors match ErrName,
// or those of package rendezvous: ErrUnreachable, ErrUnauthorized, ErrNotAllowed, ErrHeld, ErrNoService.
func Join(ctx context.Context, cfg Config) (*Node, error) {
	n, err := join(ctx, cfg, wires{})
	if err != nil {
		return nil, fmt.Errorf("fnlib: join: %w", err)
	}
	return n, nil
}

// wires are what connects a node to the world. The zero value is the system's network and a fresh identity.
type wires struct {
	identity  ident.Identity
	sockets   []udpx.Socket
	inProcess rendezvous.InProcess
}

func join(ctx context.Context, cfg Config, w wires) (*Node, error) {
	key, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if w.identity.Ed25519 == nil {
		if w.identity, err = ident.New(); err != nil {
			return nil, err
		}
	}
	n := &Node{
		cfg: cfg, key: key, id: w.identity, log: cfg.Logger,
		hellos:    make(chan rendezvous.Envelope, helloQueue),
		answers:   make(chan struct{}, maxAnswers),
		again:     make(chan struct{}),
		leaving:   make(chan struct{}),
		look:      make(chan struct{}, 1),
		notices:   make(chan string, noticeQueue),
		members:   make(map[peer.ID]*member),
		calls:     make(map[callKey]*call),
		listeners: make(map[string]*Listener),
		traffic:   make(map[*transport.Link]*traffic),

		claims:  make(map[string]claims),
		awaited: make(map[stateID]*said),

		disturbances: make(chan struct{}, 1), doubts: make(chan struct{}, 1), udpUp: make(chan struct{}, 1),
		remap: make(chan struct{}, 1),
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.inbound.init()
	n.kept.init(n)
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	if err := n.start(ctx, w); err != nil {
		n.close(err)
		return nil, err
	}
	return n, nil
}

// start does what Join must wait for. What it started is ended by close.
func (n *Node) start(ctx context.Context, w wires) error {
	began := time.Now()
	ep, err := transport.Open(transport.Config{
		Identity: n.id, Key: n.key, Listen4: n.cfg.Listen, NoIPv6: n.cfg.NoIPv6, Window: n.cfg.Window, Logger: n.log, OnLink: n.onLink,
		Gone: n.gone, OnDisturbed: n.disturbed, OnDoubt: n.doubted,
		Sockets: w.sockets,
	})
	if err != nil {
		return err
	}
	n.ep = ep
	if n.cfg.PortMap {
		n.wg.Go(n.mapPort)
	}
	n.relays.init(n)
	client, err := rendezvous.Dial(ctx, rendezvous.Config{
		URL: n.cfg.URL, Creds: n.cfg.Creds, Key: n.key, Name: n.cfg.Name, Exclusive: n.cfg.Exclusive,
		InProcess: w.inProcess, Identity: n.id, Logger: n.log,
		OnEnvelope: n.queueHello, OnRelays: n.relays.set, OnReconnect: n.onReconnect, OnWake: n.onWake,
		Linked: n.linkedTo, Hints: n.hints,
	})
	if err != nil {
		return err
	}
	n.client = client
	n.joined.Connect = time.Since(began)
	offers, call, err := n.expect(ctx)
	if err != nil {
		return err
	}
	joined, err := client.Join(ctx, offers...)
	if err != nil {
		return err
	}
	n.joined.Join = time.Since(began) - n.joined.Connect
	n.mu.Lock()
	n.epoch = joined.Epoch
	n.mu.Unlock()
	n.relays.set(joined.Relays)
	for _, e := range joined.Parked {
		n.queueHello(e)
	}
	if n.cfg.Store != nil {
		poke(n.look)
		n.wg.Go(n.runStored)
	}
	n.wg.Go(n.runHellos) // answers need not wait for the relay
	call()
	n.discover(ctx, joined.Relays)
	n.joined.Total = time.Since(began)
	n.wg.Go(n.runClient)
	n.wg.Go(n.runNetwork)
	n.log.Debug("fnlib: joined", "name", n.cfg.Name, "epoch", joined.Epoch, "relays", len(joined.Relays), "took", n.joined.Total)
	return ctx.Err()
}

// discover learns the mapped address and waits for a relay, both at once and not for long.
func (n *Node) discover(ctx context.Context, infos []rendezvous.RelayInfo) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	servers := stunServers(infos)
	var wg sync.WaitGroup
	if len(servers) > 0 {
		wg.Go(func() {
			if nat, err := n.ep.Discover(ctx, servers, stunSettle); err == nil {
				n.joined.STUN = time.Since(began)
				n.log.Debug("fnlib: address", "mapping", nat.Mapping, "reflexive", nat.Reflexive)
			} else {
				n.log.Warn("fnlib: own address unknown, direct paths are unlikely", "error", err)
			}
		})
	}
	if n.relays.wait(ctx) {
		n.joined.Relay = time.Since(began)
		if n.relays.overTLS() {
			cancel() // UDP is blocked: nobody answers STUN
			n.ep.SetBlocked()
		}
	} else if len(infos) > 0 {
		n.log.Warn("fnlib: no relay can be used", "error", n.relays.trouble())
	}
	wg.Wait()
}

// mapPort keeps a port of the router while the node is open.
func (n *Node) mapPort() {
	portmap.Run(n.ctx, portmap.Config{
		Port: n.ep.LocalPort(), Again: n.remap,
		OnChange: func(a netip.AddrPort) {
			n.mapped.Store(&PortMapping{Addr: a})
			n.ep.SetMapped(a)
			n.log.Debug("fnlib: the router forwards a port", "addr", a)
		},
		OnError: func(err error) {
			n.mapped.Store(&PortMapping{Err: err})
			n.log.Info("fnlib: no port of the router", "error", err)
		},
	})
}

func (n *Node) runClient() {
	err := n.client.Run(n.ctx)
	if err != nil && n.ctx.Err() == nil {
		if errors.Is(err, rendezvous.ErrFenced) {
			err = ErrFenced
		}
		n.log.Error("fnlib: membership ended", "error", err)
		n.wg.Go(func() { n.shut(err) })
	}
}

func (n *Node) onReconnect() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.epoch = n.client.Epoch()
	close(n.again)
	n.again = make(chan struct{})
	poke(n.look) // a notice may have been lost
}

// Name is the node's name in the job.
func (n *Node) Name() string { return n.cfg.Name }

// Epoch counts the holders that the name has had; this node is the newest as long as it is open.
func (n *Node) Epoch() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.epoch
}

// Identity is the node's libp2p peer ID, made fresh by Join.
func (n *Node) Identity() string { return n.id.Peer.String() }

// Timings says how long the parts of Join took.
func (n *Node) Timings() Timings { return n.joined }

// Done is closed when the node is closed, by Close or because it was fenced off (see Err).
func (n *Node) Done() <-chan struct{} { return n.ctx.Done() }

// Err tells why the node is closed: ErrClosed or ErrFenced; nil while it is open.
func (n *Node) Err() error {
	if n.ctx.Err() == nil {
		return nil
	}
	return context.Cause(n.ctx)
}

// dead is Err, but tells a little earlier: what fails because links are being closed fails by that.
func (n *Node) dead() error {
	if why := n.ending.Load(); why != nil {
		return *why
	}
	return n.Err()
}

// Member is a function of the job that has joined.
type Member = rendezvous.Member

// List returns who has joined the job, sorted by name.
func (n *Node) List(ctx context.Context) ([]Member, error) {
	ms, err := n.client.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("fnlib: list: %w", err)
	}
	slices.SortFunc(ms, func(a, b Member) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return ms, nil
}

// Stats are the counters of the node's packets.
func (n *Node) Stats() transport.Stats { return n.ep.Stats() }

// NAT is what the node knows of the NAT it is behind.
func (n *Node) NAT() transport.NAT { return n.ep.NAT() }

// Close leaves the job and ends everything that Join started. Before that states that are not delivered yet go to Config.Store,
// and then what was written to connections and closed there is delivered, for two seconds at most and both within
// Config.Grace. Close may be called more than once.
func (n *Node) Close() error {
	n.shut(ErrClosed)
	n.wg.Wait()
	return nil
}

// shut ends the node without waiting for its goroutines.
func (n *Node) shut(why error) {
	n.once.Do(func() {
		if !errors.Is(why, ErrFenced) {
			by := time.Now().Add(n.grace())
			n.spill()
			n.linger(by)
			n.leave()
		}
		n.teardown(why)
		if errors.Is(why, ErrFenced) {
			n.spillKept() // under its own key, whoever holds the name now
		}
		n.kept.close()
	})
}

func (n *Node) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := n.client.Leave(ctx); err != nil {
		n.log.Debug("fnlib: leave", "error", err)
	}
}

// teardown closes the links first, while the relays can still carry the news to the peers.
func (n *Node) teardown(why error) {
	n.mu.Lock()
	n.ending.Store(&why) // under n.mu: nobody listens or calls after this
	ls := make([]*Listener, 0, len(n.listeners))
	for _, l := range n.listeners {
		ls = append(ls, l)
	}
	n.mu.Unlock()
	for _, l := range ls {
		_ = l.Close()
	}
	if n.ep != nil {
		if err := n.ep.Close(); err != nil {
			n.log.Debug("fnlib: close", "error", err)
		}
	}
	n.cancel(why)
	if n.client != nil {
		_ = n.client.Close()
	}
}

// close is for a Join that failed. A name that it has taken is free again.
func (n *Node) close(why error) {
	n.once.Do(func() {
		if n.client != nil && n.Epoch() != 0 {
			n.leave()
		}
		n.teardown(why)
		n.kept.close()
	})
	n.wg.Wait()
}
