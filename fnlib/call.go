package fnlib

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/transport"
)

const (
	reofferDelivered = time.Second      // first repeat of an offer that was delivered and not answered
	reofferParked    = 30 * time.Second // an offer that is parked is repeated long before it expires
	linkTimeout      = 10 * time.Second // from the answer to the link
	linkTries        = 3
	expectFor        = 10 * time.Second       // Config.Call is tried on its own
	comingFor        = 500 * time.Millisecond // from a peer's offer, for its link
)

type callKey struct {
	name string
	path Path
}

// call is one search for a link, shared by all who want it. It ends when the last of them gives up.
type call struct {
	waiters int
	ctx     context.Context //nolint:containedctx // of the search, which several wait for
	cancel  context.CancelFunc
	answer  chan peer.ID // an instance of the name was admitted
	offered bool         // the first offer went with the join
	done    chan struct{}

	woken   string             // what became of the name's wake hook, if it has one; guarded by Node.mu
	told    []netip.AddrPort   // candidates in the last offer; guarded by Node.mu
	attempt *transport.Attempt // goes with the first offer; guarded by Node.mu; nil if there is none

	link   *transport.Link // set before done is closed
	err    error
	phases callPhases
}

// errSlowLink is not a deadline error: those mean the caller's context.
var errSlowLink = fmt.Errorf("not up after %v", linkTimeout)

// callPhases are the times that a call took; zero for a link that was there.
type callPhases struct {
	answer time.Duration // until the peer's answer (or its own offer) was there
	link   time.Duration // from there until the link was up
}

// link returns a link to name, made if there is none.
func (n *Node) link(ctx context.Context, name string, path Path) (*transport.Link, callPhases, error) {
	if err := ctx.Err(); err != nil {
		return nil, callPhases{}, err
	}
	n.mu.Lock()
	if err := n.dead(); err != nil {
		n.mu.Unlock()
		return nil, callPhases{}, err
	}
	if l := n.upLocked(name, path); l != nil {
		n.mu.Unlock()
		return l, callPhases{}, nil
	}
	k := callKey{name, path}
	c := n.calls[k]
	if c == nil {
		c = n.callLocked(k)
		n.wg.Go(func() { n.runCall(k, c) })
	}
	c.waiters++
	n.mu.Unlock()
	return n.await(ctx, k, c)
}

func (n *Node) callLocked(k callKey) *call {
	c := &call{answer: make(chan peer.ID, 1), done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(n.ctx)
	n.calls[k] = c
	return c
}

// attemptLocked begins what goes with the call's first offer. It runs under n.mu.
func (n *Node) attemptLocked(k callKey, c *call) {
	if k.path == DirectOnly {
		return
	}
	var err error
	if c.attempt, err = n.ep.Attempt(k.path); err != nil {
		n.log.Debug("fnlib: no flight for the offer", "to", k.name, "error", err)
	}
}

// coming waits for the link of a peer that has called a moment ago, or for what another instance of the name says: to call it as well would
// have both begin two links.
func (n *Node) coming(ctx context.Context, k callKey, c *call) (id peer.ID, come bool) {
	n.mu.Lock()
	var left time.Duration
	if _, m := n.memberLocked(k.name); m != nil {
		left = comingFor - time.Since(m.called[k.path])
	}
	n.mu.Unlock()
	if left <= 0 {
		return "", false
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case id := <-c.answer:
		return id, true
	case <-timer.C:
	case <-ctx.Done():
	}
	return "", false
}

// expect begins the calls of Config.Call. Their offers are for the join.
func (n *Node) expect(ctx context.Context) (offers []rendezvous.Envelope, begin func(), err error) {
	calls := make(map[callKey]*call)
	for _, name := range n.cfg.Call {
		k := callKey{name, Auto}
		if calls[k] != nil || name == n.cfg.Name {
			continue
		}
		n.mu.Lock()
		c := n.callLocked(k)
		n.attemptLocked(k, c)
		n.mu.Unlock()
		calls[k] = c
		if len(offers) == rendezvous.MaxJoinOffers {
			continue
		}
		env, err := n.offer(ctx, k, c)
		if err != nil {
			return nil, nil, err
		}
		c.offered = true
		offers = append(offers, env)
	}
	return offers, func() {
		for k, c := range calls {
			n.wg.Go(func() { n.runCall(k, c) })
			time.AfterFunc(expectFor, func() {
				n.mu.Lock()
				defer n.mu.Unlock()
				if c.waiters == 0 && n.calls[k] == c {
					delete(n.calls, k)
					c.cancel()
				}
			})
		}
	}, nil
}

// await waits for a call's end. The last one to give up ends the call.
func (n *Node) await(ctx context.Context, k callKey, c *call) (*transport.Link, callPhases, error) {
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	n.mu.Lock()
	c.waiters--
	last := c.waiters == 0
	if last && n.calls[k] == c {
		delete(n.calls, k)
	}
	n.mu.Unlock()
	if last {
		c.cancel()
		<-c.done // it ends at once, and tells what it was waiting for
	}
	select {
	case <-c.done:
		if c.link != nil {
			return c.link, c.phases, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, c.phases, fmt.Errorf("%w: %w", err, stripCanceled(c.err))
		}
		if err := n.dead(); err != nil {
			return nil, c.phases, fmt.Errorf("%w: %w", err, stripCanceled(c.err))
		}
		return nil, c.phases, c.err
	default:
		return nil, c.phases, ctx.Err()
	}
}

// stripCanceled leaves what a call was waiting for when its context was cancelled from here.
func stripCanceled(err error) error {
	var w *waitingError
	if errors.As(err, &w) {
		return w
	}
	return err
}

// waitingError tells what a call was waiting for when it was given up.
type waitingError struct {
	what string
	last error // of an earlier attempt
}

func (e *waitingError) Error() string {
	if e.last != nil {
		return fmt.Sprintf("%s (before that: %v)", e.what, e.last)
	}
	return e.what
}

func (e *waitingError) Unwrap() error { return e.last }

// upLocked returns a link to the newest known instance of name. It runs under n.mu.
func (n *Node) upLocked(name string, path Path) *transport.Link {
	id, m := n.memberLocked(name)
	if m == nil {
		return nil
	}
	return n.ep.Up(id, path)
}

// memberLocked returns the newest known instance of name, or nil. It runs under n.mu.
func (n *Node) memberLocked(name string) (id peer.ID, best *member) {
	for p, m := range n.members {
		if m.name == name && (best == nil || m.epoch > best.epoch) {
			id, best = p, m
		}
	}
	return id, best
}

func (n *Node) runCall(k callKey, c *call) {
	ctx := c.ctx
	defer close(c.done)
	defer c.cancel()
	defer func() {
		if c.attempt != nil {
			c.attempt.Cancel()
		}
	}()
	began := time.Now()
	var last error
	for range linkTries {
		id, err := n.invite(ctx, k, c, last)
		if err != nil {
			c.err = err
			break
		}
		if c.phases.answer == 0 {
			c.phases.answer = time.Since(began)
		}
		lctx, cancel := context.WithTimeoutCause(ctx, linkTimeout, errSlowLink)
		c.link, err = n.ep.Link(lctx, id, k.path)
		cancel()
		if err == nil {
			c.phases.link = time.Since(began) - c.phases.answer
			break
		}
		if k.path != DirectOnly {
			if t := n.relays.trouble(); t != nil {
				err = fmt.Errorf("%w; relay: %w", err, t)
			}
		}
		if ctx.Err() != nil {
			// That it was given up is the caller's to say; what is left may tell why there was no link.
			why := strings.ReplaceAll(": "+err.Error(), ": "+context.Canceled.Error(), "")
			c.err = &waitingError{what: fmt.Sprintf("%q answered; the link was not up yet%s", k.name, why), last: last}
			break
		}
		last = err
		c.err = fmt.Errorf("link to %q: %w", k.name, err)
		n.log.Debug("fnlib: link failed", "to", k.name, "error", err)
		if errors.Is(err, transport.ErrNATs) {
			break
		}
	}
	n.mu.Lock()
	if n.calls[k] == c {
		delete(n.calls, k)
	}
	n.mu.Unlock()
	if c.link != nil {
		c.err = nil
		if n.cfg.Metrics != nil {
			// On its own, since Close waits for this goroutine, and Linked may want to close.
			go n.cfg.Metrics.Linked(LinkEvent{Peer: k.name, Path: c.link.Status().Path, Took: time.Since(began)})
		}
	}
}

// offerOnce makes one offer, unless the first has gone with the join.
func (n *Node) offerOnce(ctx context.Context, k callKey, c *call) (rendezvous.OfferResult, error) {
	if c.offered {
		c.offered = false
		return rendezvous.OfferResult{}, nil // what became of it is not told
	}
	env, err := n.offer(ctx, k, c)
	if err != nil {
		return rendezvous.OfferResult{}, err
	}
	n.mu.Lock()
	c.woken = ""
	n.mu.Unlock()
	res, err := n.client.Offer(ctx, k.name, env)
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.woken == "" { // else onWake was told something newer
		c.woken = res.Wake
	}
	return res, err
}

// invite offers until an instance of the name was admitted. An offer for a name that nobody holds is
// parked at the rendezvous and answered by the instance that joins; nobody polls.
func (n *Node) invite(ctx context.Context, k callKey, c *call, last error) (peer.ID, error) {
	select {
	case id := <-c.answer: // of an earlier offer; the instance may be gone by now
		if last == nil {
			return id, nil
		}
	default:
	}
	if c.attempt == nil && last == nil {
		if id, come := n.coming(ctx, k, c); come {
			return id, nil
		}
		if ctx.Err() != nil {
			return "", &waitingError{what: fmt.Sprintf("%q has called; the link was not up yet", k.name)}
		}
		n.mu.Lock()
		n.attemptLocked(k, c)
		n.mu.Unlock()
	}
	for wait := reofferDelivered; ; wait = min(2*wait, reofferParked) {
		n.mu.Lock()
		again := n.again
		n.mu.Unlock()
		rode := c.offered
		res, err := n.offerOnce(ctx, k, c)
		what := fmt.Sprintf("%q has not joined yet", k.name)
		switch {
		case err != nil && ctx.Err() != nil:
			return "", &waitingError{what: fmt.Sprintf("the rendezvous did not take the offer for %q: %v", k.name, err), last: last}
		case err != nil:
			return "", fmt.Errorf("offer to %q: %w", k.name, err)
		case rode:
			what = fmt.Sprintf("%q has not joined yet, or has not answered", k.name)
		case res.Delivered:
			what = fmt.Sprintf("%q got the offer and has not answered", k.name)
		default:
			wait = reofferParked
		}
		timer := time.NewTimer(wait)
		select {
		case id := <-c.answer:
			timer.Stop()
			return id, nil
		case <-timer.C:
		case <-again:
			timer.Stop()
			wait = reofferDelivered / 2
		case <-ctx.Done():
			timer.Stop()
			return "", &waitingError{what: what + n.wakeNote(c), last: last}
		}
	}
}

// onWake notes what became of the hook of a name that is called.
func (n *Node) onWake(name, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, c := range n.calls {
		if k.name == name {
			c.woken = what
		}
	}
}

func (n *Node) wakeNote(c *call) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.woken == "" {
		return ""
	}
	return "; its wake hook: " + c.woken
}
