package fnlib

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/rendezvous"
)

// rehomeLeast is what a nearer home must save: less does not matter to anybody.
const rehomeLeast = 2 * time.Millisecond

// relays are the node's legs to the relays that the rendezvous has named. The first one that answers
// is the node's home: peers reach it there, until it fails or another turns out to be much nearer. Others are used to reach
// peers whose home they are.
type relays struct {
	n          *Node
	udpBlocked atomic.Bool // what the legs found out

	mu    sync.Mutex // guards what follows
	legs  map[string]*leg
	home  *relay.Client
	ready chan struct{} // closed when home is set
	since time.Time     // when the first was named
}

type leg struct {
	client *relay.Client
	info   rendezvous.RelayInfo
	stop   context.CancelFunc
}

func (r *relays) init(n *Node) {
	r.n = n
	r.legs = make(map[string]*leg)
	r.ready = make(chan struct{})
}

// set brings the legs in line with what the rendezvous says: new relays are bound, new tokens are
// handed on, relays that are gone are given up unless they are the home and still work.
func (r *relays) set(infos []rendezvous.RelayInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n.ctx.Err() != nil {
		return
	}
	seen := make(map[string]bool, len(infos))
	for _, info := range infos {
		seen[info.ID] = true
		l := r.legs[info.ID]
		if l != nil && l.info.Addr == info.Addr {
			if !slices.Equal(l.info.Token, info.Token) {
				l.client.SetToken(info.Token)
			}
			if l.info.HTTPS != info.HTTPS || !slices.Equal(l.info.CertSHA256, info.CertSHA256) {
				l.client.SetHTTPS(info.HTTPS, info.CertSHA256) // it was restarted
			}
			l.info = info
			continue
		}
		if l != nil {
			r.drop(info.ID)
		}
		r.add(info)
	}
	for id, l := range r.legs {
		if !seen[id] && (l.client != r.home || !works(l.client)) {
			r.drop(id)
		}
	}
}

func (r *relays) add(info rendezvous.RelayInfo) {
	ctx, cancel := context.WithCancel(r.n.ctx)
	c := relay.NewClient(relay.Config{
		ID: info.ID, Addr: info.Addr, Token: info.Token, Identity: r.n.id, Job: r.n.key.ID(),
		Send: r.n.ep.Write, Logger: r.n.log,
		OnGone: func(peer ident.Short) { r.n.ep.RelayGone(info.ID, peer) }, OnChange: r.n.ep.RelayChanged, OnMoved: r.n.disturbed,
		OnUDP: func() { poke(r.n.udpUp) },
		HTTPS: info.HTTPS, CertSHA256: info.CertSHA256, UDPBlocked: &r.udpBlocked,
		Deliver: func(leg *relay.Client, frames []byte, seg int) { r.n.ep.HandleRelayed(leg, frames, seg) },
	})
	if r.since.IsZero() {
		r.since = time.Now()
	}
	r.legs[info.ID] = &leg{client: c, info: info, stop: cancel}
	r.n.ep.AddRelay(c)
	r.n.wg.Go(func() {
		if err := c.Run(ctx); err != nil && ctx.Err() == nil {
			r.n.log.Warn("fnlib: relay leg ended", "relay", info.ID, "error", err)
		}
	})
	r.n.wg.Go(func() {
		select {
		case <-c.Ready():
			r.settle(c)
		case <-ctx.Done():
		}
	})
}

func (r *relays) drop(id string) {
	l := r.legs[id]
	l.stop()
	delete(r.legs, id)
	r.n.ep.RemoveRelay(id)
	if r.home == l.client {
		r.home = nil
		r.ready = make(chan struct{})
		for _, other := range r.legs {
			select {
			case <-other.client.Ready():
				r.setHome(other.client)
				return
			default:
			}
		}
	}
}

func (r *relays) settle(c *relay.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.home == nil {
		r.setHome(c)
	}
}

func (r *relays) setHome(c *relay.Client) {
	r.home = c
	close(r.ready)
}

// works reports whether packets flow over a leg.
func works(c *relay.Client) bool { return c.Usable() }

// nearer is how near another relay must be to become the home in place of one that works: at most two thirds of the way, so that
// two that are about as near do not take turns.
func nearer(home time.Duration) time.Duration { return min(home*2/3, home-rehomeLeast) }

// rehome takes another home if this one does not work, or if another is much nearer. It runs under r.mu.
func (r *relays) rehome() {
	if r.home == nil {
		return
	}
	before, limit := r.home, nearer(r.home.RTT())
	if !works(r.home) {
		limit = time.Hour
	}
	for _, l := range r.legs {
		if rtt := l.client.RTT(); l.client != r.home && works(l.client) && rtt > 0 && rtt <= limit {
			r.home, limit = l.client, rtt // ready stays closed
		}
	}
	if r.home != before {
		r.n.log.Info("fnlib: another home relay", "relay", r.home.ID(), "rtt", r.home.RTT(), "before", before.ID(), "rtt_before", before.RTT())
	}
}

// look takes another home if there is a reason. Peers learn of it with the next offer or answer, and reach the node by the relay
// before as well, as long as that works.
func (r *relays) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rehome()
}

// check asks every relay whether it still knows the node.
func (r *relays) check() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.legs {
		l.client.Check()
	}
}

func (r *relays) stunServers() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	infos := make([]rendezvous.RelayInfo, 0, len(r.legs))
	for _, l := range r.legs {
		infos = append(infos, l.info)
	}
	slices.SortFunc(infos, func(a, b rendezvous.RelayInfo) int { return strings.Compare(a.ID, b.ID) })
	return stunServers(infos)
}

// wait returns true when there is a home relay, or false when ctx ends or there are no relays.
func (r *relays) wait(ctx context.Context) bool {
	r.mu.Lock()
	ready, none := r.ready, len(r.legs) == 0
	r.mu.Unlock()
	if none {
		return false
	}
	select {
	case <-ready:
		return true
	case <-ctx.Done():
		return false
	}
}

// where returns the home relay's ID and address, or nothing. In the moment after the join, which is when an offer
// that was parked is answered, it trusts that one of the relays will be the home.
func (r *relays) where() (id string, addr netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rehome()
	home := r.home
	if home == nil && time.Since(r.since) < relayTimeout {
		for _, l := range r.legs {
			if home == nil || l.client.ID() < home.ID() {
				home = l.client
			}
		}
	}
	if home == nil {
		return "", netip.AddrPort{}
	}
	return home.ID(), home.Addr()
}

// overTLS tells whether the home relay was reached by TLS only.
func (r *relays) overTLS() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.home != nil && r.home.Via() == "wss"
}

// overUDP tells whether a relay is reached by UDP, so that STUN can be answered.
func (r *relays) overUDP() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.legs {
		if l.client.Via() == "udp" {
			return true
		}
	}
	return false
}

// trouble tells why there is no home relay, or nil.
func (r *relays) trouble() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.home != nil {
		return nil
	}
	if len(r.legs) == 0 {
		return errors.New("the rendezvous knows of no relay")
	}
	var errs []error
	for _, l := range r.legs {
		if _, err := l.client.State(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return errors.New("no relay has answered (is UDP blocked, or the relay down?)")
	}
	return errors.Join(errs...)
}

func stunServers(infos []rendezvous.RelayInfo) []netip.AddrPort {
	var out []netip.AddrPort
	for _, i := range infos {
		for _, a := range i.STUN {
			if !slices.Contains(out, a) && len(out) < 8 {
				out = append(out, a)
			}
		}
	}
	return out
}

// WaitRelay waits until the node can be reached over a relay. Join has waited for it for a second.
func (n *Node) WaitRelay(ctx context.Context) error {
	for {
		n.relays.mu.Lock()
		ready := n.relays.ready
		n.relays.mu.Unlock()
		select {
		case <-ready:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("fnlib: %w: %w", ctx.Err(), n.relays.trouble())
		case <-n.ctx.Done():
			return n.Err()
		}
	}
}
