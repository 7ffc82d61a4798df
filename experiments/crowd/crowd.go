// Package crowd is many instances of a job in one process, as far as a rendezvous can tell: each has an identity, a connection and a name of
// its own, holds that by renewals, and takes offers; or a relay, if each has a session there too. It has no links: what it measures is the
// servers.
package crowd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

const (
	joining    = 32 // instances that join at a time
	mostJoined = 1 << 14
)

// JoinArgs say who joins: the instances First to First+Count-1.
type JoinArgs struct {
	URL   string `json:"url"`
	Key   string `json:"key"`
	First int    `json:"first"`
	Count int    `json:"count"`
}

// State is what has become of the instances.
type State struct {
	Joined  int   `json:"joined"`
	Lost    int   `json:"lost"`    // that hold their names no more
	Arrived int64 `json:"arrived"` // offers that were opened
	Refused int64 `json:"refused"` // offers that could not be
	Packets int64 `json:"packets"` // that came by the relay
}

// Crowd is instances that have joined. The zero value has none. Its methods may be called from several goroutines.
type Crowd struct {
	key              job.Key
	lost             atomic.Int64
	arrived, refused atomic.Int64
	packets          atomic.Int64

	mu        sync.Mutex // guards what follows
	instances []*instance
	stop      []context.CancelFunc // of their renewals and sessions; none before Join
	running   sync.WaitGroup       // those
}

type instance struct {
	*rendezvous.Client
	id    ident.Identity
	name  string
	nonce rendezvous.Nonce
	seq   atomic.Uint64
	relay []rendezvous.RelayInfo // with tokens
	leg   *leg                   // nil before Bind
}

// name is that of the i-th instance of the job.
func name(i int) string { return fmt.Sprint("one-", i) }

// Join has all instances connect and join, some at a time, and returns how long each of them took. It can be called once.
func (c *Crowd) Join(ctx context.Context, a JoinArgs) ([]time.Duration, error) {
	if a.Count < 1 || a.Count > mostJoined || a.First < 0 {
		return nil, fmt.Errorf("crowd: %d instances from %d: want 1 to %d", a.Count, a.First, mostJoined)
	}
	key, err := job.ParseKey(a.Key)
	if err != nil {
		return nil, fmt.Errorf("crowd: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.stop) > 0 {
		return nil, errors.New("crowd: has joined before")
	}
	life := c.outlive(ctx)
	c.key, c.instances = key, make([]*instance, a.Count)
	took := make([]time.Duration, a.Count)
	all, jctx := errgroup.WithContext(ctx)
	all.SetLimit(joining)
	for i := range a.Count {
		all.Go(func() error {
			began := time.Now()
			in, err := c.join(jctx, a.URL, name(a.First+i))
			if err != nil {
				return err
			}
			c.instances[i], took[i] = in, time.Since(began)
			c.running.Go(func() {
				if err := in.Run(life); life.Err() == nil && err != nil {
					c.lost.Add(1)
				}
			})
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		c.leave()
		return nil, fmt.Errorf("crowd: %w", err)
	}
	return took, nil
}

func (c *Crowd) join(ctx context.Context, url, name string) (*instance, error) {
	id, err := ident.New()
	if err != nil {
		return nil, err
	}
	in := &instance{id: id, name: name, nonce: rendezvous.Nonce(id.Ed25519.Seed()[:16])}
	in.Client, err = rendezvous.Dial(ctx, rendezvous.Config{
		URL: url, Key: c.key, Name: name, Exclusive: true, Identity: id,
		OnEnvelope: func(e rendezvous.Envelope) {
			if _, err := rendezvous.Open(c.key, e, rendezvous.Self{Name: name, Peer: id.Peer}); err != nil {
				c.refused.Add(1)
			} else {
				c.arrived.Add(1)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	j, err := in.Join(ctx)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	in.relay = j.Relays
	return in, nil
}

// outlive returns a context that ends with the crowd, and not with ctx. mu is held.
func (c *Crowd) outlive(ctx context.Context) context.Context {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = append(c.stop, stop)
	return life
}

// State returns what has become of the instances so far.
func (c *Crowd) State(context.Context, struct{}) (State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return State{Joined: len(c.instances), Lost: int(c.lost.Load()), Arrived: c.arrived.Load(), Refused: c.refused.Load(), Packets: c.packets.Load()}, nil
}

// Close ends all instances, which do not leave: their names are held until their leases run out.
func (c *Crowd) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, stop := range c.stop {
		stop()
	}
	c.leave()
	c.running.Wait()
	return nil
}

// leave closes all connections. mu is held.
func (c *Crowd) leave() {
	for _, in := range c.instances {
		if in != nil { // one that did not join
			_ = in.Client.Close() // never fails
			in.leg.close()
		}
	}
	c.instances = nil
}
