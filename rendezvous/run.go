package rendezvous

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Run keeps the name: it renews the lease when half of it has passed, or a little sooner, joins again after the connection or the
// service was away, and hands new relays and tokens to OnRelays. It needs a Join before. It returns
// ErrFenced when a newer instance has taken the name, ErrClosed after Close, and otherwise ctx's error.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	lease, epoch := c.lease, c.epoch
	c.mu.Unlock()
	if epoch == 0 {
		return fmt.Errorf("rendezvous: run: %w", ErrUnknown)
	}
	if c.isFenced() {
		return ErrFenced
	}
	var watch sync.WaitGroup
	defer watch.Wait()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watch.Go(func() { c.watch(watching) })
	// Instances that have joined together, as those of a job do, need not renew together.
	due := time.Now().Add(lease/2 - rand.N(lease*3/8))
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	failed := 0
	for {
		away := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.closed:
			return ErrClosed
		case <-timer.C:
		case w := <-c.wake:
			switch w {
			case wakeFenced:
				return ErrFenced
			case wakeRejoin:
				away = true
			case wakeRenew:
			case wakeRelays:
				c.mu.Lock()
				spread := min(c.spread, lease/2)
				c.mu.Unlock()
				if at := time.Now().Add(rand.N(spread)); at.Before(due) {
					due = at
					timer.Reset(time.Until(due))
				}
				continue
			}
		}
		err := c.keep(ctx, away || failed > 0)
		switch {
		case errors.Is(err, ErrFenced):
			c.fence()
			return ErrFenced
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			c.log.Warn("rendezvous: name not renewed; trying again", "err", err)
			if errors.Is(err, ErrUnavailable) {
				c.proven(ctx, proveWithinBusy)
			}
			failed++
			due = time.Now().Add(jitter(min(reconnectMin<<min(failed, 10), lease/6)))
		default:
			failed = 0
			due = time.Now().Add(jitter(lease / 2))
		}
		timer.Reset(time.Until(due))
	}
}

// How long the server may take to answer a ping before its connection is remade: after a freeze, and after a request that was not answered, which
// a server that is too busy may be the reason for.
const (
	proveWithin     = 500 * time.Millisecond
	proveWithinBusy = 2 * time.Second
)

// watch does what Check asks for, beside Run, which may be waiting for an answer on a connection that is dead.
func (c *Client) watch(ctx context.Context) {
	for {
		select {
		case <-c.checks:
			if c.proven(ctx, proveWithin) {
				c.poke(wakeRenew)
			} // else the new connection has Run join again
		case <-ctx.Done():
			return
		case <-c.closed:
			return
		}
	}
}

// proven reports whether the server answers. If not, the connection is remade, without the pause between two attempts.
func (c *Client) proven(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := nats.ErrDisconnected
	if c.nc.IsConnected() {
		if err = c.nc.FlushWithContext(ctx); err == nil || errors.Is(err, context.Canceled) {
			return true
		}
	}
	c.log.Info("rendezvous: the connection is remade", "because", err)
	_ = c.nc.ForceReconnect() // fails only when closed
	return false
}

// relayNewsSpread is the least time over which those who hear of new relays renew.
const relayNewsSpread = 200 * time.Millisecond

func (c *Client) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return ErrClosed
	}
}

// keep renews once, or joins again if the service may have lost us.
func (c *Client) keep(ctx context.Context, away bool) error {
	c.mu.Lock()
	lease, seen, tag := c.lease, c.seen, c.tag
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, max(lease/6, time.Second))
	defer cancel()
	if away {
		return c.rejoin(ctx)
	}
	req := c.renewal()
	req.Seen, req.RelaysTag = seen, tag
	var r RenewReply
	err := c.request(ctx, VerbRenew, req, &r)
	if errors.Is(err, ErrUnknown) {
		return c.rejoin(ctx)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.seen, c.newer, c.hints = max(c.seen, r.ParkedTo), 0, r.Hard
	c.mu.Unlock()
	if r.RelaysTag == "" || r.RelaysTag != req.RelaysTag {
		c.tell(r.Relays, r.RelaysTag, false)
	}
	c.deliver(r.Parked...)
	return nil
}

// rejoin joins under the epoch held before and delivers what was parked meanwhile.
func (c *Client) rejoin(ctx context.Context) error {
	j, err := c.join(ctx, nil)
	if err != nil {
		return err
	}
	c.log.Info("rendezvous: joined again", "name", c.cfg.Name)
	c.tell(j.Relays, j.tag, false)
	c.deliver(j.Parked...)
	if c.cfg.OnReconnect != nil {
		c.callbacks.Lock()
		defer c.callbacks.Unlock()
		c.cfg.OnReconnect()
	}
	return nil
}
