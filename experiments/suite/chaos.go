package suite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/service"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
)

// chaos is a world in which everything is killed, frozen and restarted.
type chaos struct {
	w       *world.World
	store   *world.Store
	members []*member

	mu     sync.Mutex // guards what follows
	counts map[string]int
	works  []work
}

// newChaos has all functions join.
func newChaos(ctx context.Context, w *world.World, functions int) (*chaos, error) {
	c := &chaos{w: w, counts: make(map[string]int)}
	var err error
	if c.store, err = w.StartRedis(ctx, world.OnDisk, service.Model{}); err != nil {
		return nil, err
	}
	joining, jctx := errgroup.WithContext(ctx)
	joining.SetLimit(4)
	for i := range functions {
		m := &member{c: c, name: memberName(i), changed: make(chan struct{})}
		c.members = append(c.members, m)
		joining.Go(func() error { return m.start(ctx, jctx) })
	}
	return c, joining.Wait()
}

// mishap is one kind of thing that goes wrong.
type mishap struct {
	name   string
	weight int
	slots  int // how many things it may happen to
	// what must not happen to one of them at a time with this: mishaps of one group exclude each other in a slot.
	group string
	lone  bool // only one slot of the group at a time
	// do breaks the i-th and returns how to mend it after that time; neither returns before it is done.
	do func(ctx context.Context, i int) (mend func(context.Context) error, err error)
	// from and to bound how long it lasts.
	from, to time.Duration
}

func (c *chaos) mishaps() []mishap {
	proc := func(get func(int) *world.Proc, again func(context.Context, int) error) func(context.Context, int) (func(context.Context) error, error) {
		return func(_ context.Context, i int) (func(context.Context) error, error) {
			get(i).Kill()
			return func(ctx context.Context) error { return again(ctx, i) }, nil
		}
	}
	freeze := func(get func(int) *world.Proc) func(context.Context, int) (func(context.Context) error, error) {
		return func(_ context.Context, i int) (func(context.Context) error, error) {
			p := get(i)
			return func(context.Context) error { return p.Thaw() }, p.Freeze()
		}
	}
	const short, some, long = 300 * time.Millisecond, 3 * time.Second, 6 * time.Second
	n := len(c.members)
	return []mishap{
		{name: "functions killed", weight: 6, slots: n, group: "function", to: some, do: func(_ context.Context, i int) (func(context.Context) error, error) {
			c.members[i].kill()
			return c.members[i].again, nil
		}},
		{name: "functions ended", weight: 3, slots: n, group: "function", to: some, do: func(ctx context.Context, i int) (func(context.Context) error, error) {
			return c.members[i].again, c.members[i].leave(ctx)
		}},
		{name: "functions frozen", weight: 5, slots: n, group: "function", from: short, to: long, do: func(_ context.Context, i int) (func(context.Context) error, error) {
			return c.members[i].thaw, c.members[i].freeze()
		}},
		{name: "relays killed", weight: 2, slots: handoffRelays, group: "relay", from: short, to: some, do: proc(c.w.RelayAt, c.w.StartRelay)},
		{name: "relays frozen", weight: 1, slots: handoffRelays, group: "relay", from: short, to: some, do: freeze(c.w.RelayAt)},
		{name: "relays drained", weight: 1, slots: handoffRelays, group: "relay", from: short, to: some, do: func(_ context.Context, i int) (func(context.Context) error, error) {
			return func(ctx context.Context) error { return c.w.StartRelay(ctx, i) }, c.w.RelayAt(i).Terminate()
		}},
		{name: "rendezvous killed", weight: 2, slots: copies, group: "rendezvous", from: short, to: some, do: proc(c.w.CopyAt, c.w.StartCopy)},
		{name: "rendezvous frozen", weight: 1, slots: copies, group: "rendezvous", from: short, to: some, do: freeze(c.w.CopyAt)},
		{name: "NATS killed", weight: 1, slots: natsMembers, group: "nats", lone: true, from: short, to: some, do: proc(c.w.NATSAt, c.w.StartNATS)},
		{name: "NATS frozen", weight: 1, slots: natsMembers, group: "nats", lone: true, from: short, to: some, do: freeze(c.w.NATSAt)},
		{name: "store killed", weight: 2, slots: 1, group: "store", from: short, to: some, do: func(context.Context, int) (func(context.Context) error, error) {
			c.store.Kill()
			return c.store.Start, nil
		}},
		{name: "store frozen", weight: 1, slots: 1, group: "store", from: short, to: some, do: func(context.Context, int) (func(context.Context) error, error) {
			return func(context.Context) error { return c.store.Thaw() }, c.store.Freeze()
		}},
	}
}

// run has things go wrong until over, and returns when all is mended.
func (c *chaos) run(ctx context.Context, over <-chan struct{}, random *rand.Rand, every time.Duration) error {
	all := c.mishaps()
	total := 0
	for _, m := range all {
		total += m.weight
	}
	mending, mctx := errgroup.WithContext(ctx)
	busy := newBusy()
	for {
		select {
		case <-time.After(time.Duration(random.ExpFloat64() * float64(every))):
		case <-over:
			return mending.Wait()
		case <-mctx.Done():
			return mending.Wait()
		}
		at, m := random.IntN(total), mishap{}
		for _, m = range all {
			if at -= m.weight; at < 0 {
				break
			}
		}
		i, lasts := random.IntN(m.slots), m.from+time.Duration(random.Float64()*float64(m.to-m.from))
		if !busy.take(m, i) {
			continue
		}
		c.count(m.name)
		mending.Go(func() error {
			defer busy.release(m, i)
			mend, err := m.do(mctx, i)
			if err == nil {
				err = pause(mctx, lasts)
			}
			if mend != nil && ctx.Err() == nil {
				err = errors.Join(err, mend(ctx))
			}
			if err != nil {
				return fmt.Errorf("%s (%d): %w; the rendezvous said: %s; %s", m.name, i+1, err, c.w.CopyAt(0).Said(), c.w.CopyAt(1).Said())
			}
			return nil
		})
	}
}

// busy is what something is wrong with at the moment.
type busy struct {
	mu    sync.Mutex // guards slots
	slots map[string]map[int]bool
}

func newBusy() *busy { return &busy{slots: make(map[string]map[int]bool)} }

func (b *busy) take(m mishap, i int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.slots[m.group]
	if taken == nil {
		taken = make(map[int]bool)
		b.slots[m.group] = taken
	}
	if taken[i] || m.lone && len(taken) > 0 {
		return false
	}
	taken[i] = true
	return true
}

func (b *busy) release(m mishap, i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.slots[m.group], i)
}

func (c *chaos) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
}

// tally says what went wrong so far.
func (c *chaos) tally() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, what := range slices.Sorted(maps.Keys(c.counts)) {
		all = append(all, fmt.Sprintf("%s %d", what, c.counts[what]))
	}
	return strings.Join(all, ", ")
}

func (c *chaos) note(name, instance string, t worker.Taken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.works = append(c.works, work{name: name, instance: instance, Taken: t})
}

// done is all that receivers have done.
func (c *chaos) done() []work {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.works)
}

// settle waits until receivers have what is stored for them. Those that have not found all after a while get a
// successor, which must find the rest when it joins. It returns how many states took that.
func (c *chaos) settle(ctx context.Context, states []handedOver) (found int, err error) {
	left, err := c.await(ctx, states)
	if err != nil || len(left) == 0 {
		return 0, err
	}
	var ending errgroup.Group
	for _, m := range c.members {
		if left[m.name] > 0 {
			ending.Go(func() error { return errors.Join(m.leave(ctx), m.again(ctx)) })
		}
		found += left[m.name]
	}
	if err := ending.Wait(); err != nil {
		return 0, err
	}
	left, err = c.await(ctx, states)
	for _, n := range left {
		found -= n
	}
	return found, err
}

// await waits until all stored states are worked on, and until receivers have told of all that were accepted, which may take longer to reach
// the harness than the receipt. It returns how many are not, by receiver.
func (c *chaos) await(ctx context.Context, states []handedOver) (left map[string]int, err error) {
	for until := time.Now().Add(handoffCalm); ; {
		there, told := make(map[string]bool), make(map[string]bool)
		for _, w := range c.done() {
			there[w.Key], told[w.Key] = there[w.Key] || w.Accepted, true
		}
		left = make(map[string]int)
		for _, s := range states {
			if s.outcome == stored && !there[s.key] || s.outcome == accepted && !told[s.key] {
				left[s.to]++
			}
		}
		if len(left) == 0 || time.Now().After(until) {
			return left, nil
		}
		if err := pause(ctx, joinPause); err != nil {
			return left, err
		}
	}
}
