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

// Run keeps the name: it renews the lease when half of it has passed, 50 s at most, or a little sooner, joins again after the connection or the
// service was away, and hands new relays and tokens to OnRelays. It needs a Join before. It returns
// ErrFenced when a newer instance has taken the name, ErrClosed after Close, and otherwise ctx's error.
func (c *Client) Run(ctx context.Context) error {
	if c.Epoch() == 0 {
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
	due := time.Now().Add(c.apart())
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	failed, tries := 0, 0
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
				if at := time.Now().Add(c.soon()); at.Before(due) {
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
			if !unanswered(err) || !c.proven(ctx, c.proveWithinBusy()) { // else it is busy, and has not forgotten us
				failed++
			}
			tries++
			due = time.Now().Add(jitter(min(reconnectMin<<min(tries, 10), c.period()/3)))
		case away || tries > 0:
			failed, tries = 0, 0
			due = time.Now().Add(c.apart())
		default:
			due = time.Now().Add(jitter(c.period()))
		}
		timer.Reset(time.Until(due))
	}
}

// period is from one renewal to the next.
func (c *Client) period() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(c.lease/2, renewMost)
}

// apart is until the first renewal after a join: instances that have joined together, as those of a job do and all do when the service
// returns, need not renew together.
func (c *Client) apart() time.Duration {
	p := c.period()
	return p - rand.N(p*3/4)
}

// soon is until the renewal that news of relays asks for.
func (c *Client) soon() time.Duration {
	p := c.period()
	c.mu.Lock()
	defer c.mu.Unlock()
	return rand.N(min(max(c.spread, relayNewsSpread), p))
}

const (
	// renewMost is the longest time between two renewals, which show that the connection is dead. NATs and proxies that keep what is
	// silent for a minute keep the connection.
	renewMost = 50 * time.Second
	// proveLeast and proveMost bound proveWithin: a join of which the service was slow says little of the round trip.
	proveLeast, proveMost = 500 * time.Millisecond, 6 * time.Second
)

// proveWithin is how long the server may take to answer a ping, after a freeze, before its connection is remade: three round trips.
func (c *Client) proveWithin() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(max(proveLeast, 3*c.rtt), proveMost)
}

// proveWithinBusy is the same after a request that was not answered. A server that is too busy may be the reason, and many may ask it.
func (c *Client) proveWithinBusy() time.Duration {
	return max(c.proveWithin(), 2*time.Second+rand.N(2*time.Second))
}

// answered notes that something that was sent at began is answered now.
func (c *Client) answered(began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rtt = time.Since(began)
}

// unanswered tells whether nobody has said anything to a request.
func unanswered(err error) bool {
	var refused *RefusedError
	return errors.Is(err, ErrUnavailable) && !errors.As(err, &refused)
}

// watch does what Check asks for, beside Run, which may be waiting for an answer on a connection that is dead.
func (c *Client) watch(ctx context.Context) {
	for {
		select {
		case <-c.checks:
			if c.proven(ctx, c.proveWithin()) {
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
func (c *Client) proven(asked context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(asked, within)
	defer cancel()
	err := nats.ErrDisconnected
	if c.nc.IsConnected() {
		began := time.Now()
		if err = c.nc.FlushWithContext(ctx); err == nil {
			c.answered(began)
		}
		if err == nil || asked.Err() != nil {
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
	seen, tag := c.seen, c.tag
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, min(max(c.period()/2, time.Second), attempt))
	defer cancel()
	if away {
		return c.rejoin(ctx)
	}
	req := c.renewal()
	req.Seen, req.RelaysTag = seen, tag
	var r RenewReply
	began := time.Now()
	err := c.request(ctx, VerbRenew, req, &r)
	if errors.Is(err, ErrUnknown) {
		return c.rejoin(ctx)
	}
	if err != nil {
		return err
	}
	c.answered(began)
	c.mu.Lock()
	c.seen, c.newer, c.hints = max(c.seen, r.ParkedTo), 0, r.Hard
	c.setLease(r.LeaseMS)
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
