package suite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
)

// member is a function of the chaos, by name: one instance of it after the other.
type member struct {
	c    *chaos
	name string

	mu       sync.Mutex    // guards what follows
	proc     *world.Proc   // nil while there is none that has joined
	changed  chan struct{} // closed and replaced when proc has changed
	serial   int           // of instances
	frozen   []span
	freezing time.Time // zero if it is not frozen
}

type span struct{ from, to int64 }

// start starts an instance, which ends with ctx, and has it join and serve, for as long as starting allows. Servers may be away: it tries again.
func (m *member) start(ctx, starting context.Context) error {
	for until := time.Now().Add(joinPatience); ; {
		err := m.startOne(ctx, starting)
		if err == nil || starting.Err() != nil || time.Now().After(until) {
			return err
		}
		if err := pause(starting, joinPause); err != nil {
			return err
		}
	}
}

func (m *member) startOne(ctx, starting context.Context) error {
	p, err := m.c.w.Function(ctx, m.name)
	if err != nil {
		return err
	}
	a := m.c.w.JoinArgsAt(m.name, m.name)
	store := m.c.store.Opened()
	a.Store, a.SpillAfter = &store, handoffSpill
	if _, err := p.Join(starting, a); err != nil {
		p.Kill()
		return fmt.Errorf("%s: %w", m.name, err)
	}
	m.mu.Lock()
	m.serial++
	instance := fmt.Sprintf("%s#%d", m.name, m.serial)
	m.mu.Unlock()
	go func() {
		_ = p.Serve(ctx, func(t worker.Taken) { m.c.note(m.name, instance, t) }) // it ends with the process
	}()
	m.set(p)
	return nil
}

func (m *member) again(ctx context.Context) error { return m.start(ctx, ctx) }

func (m *member) set(p *world.Proc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proc = p
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *member) current() (*world.Proc, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proc, m.changed
}

// present waits for an instance.
func (m *member) present(ctx context.Context) (*world.Proc, error) {
	for {
		p, changed := m.current()
		if p != nil {
			return p, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (m *member) kill() {
	p, _ := m.current()
	m.set(nil)
	p.Kill()
}

// leave has the instance close, with what it is sending, and end.
func (m *member) leave(ctx context.Context) error {
	p, _ := m.current()
	m.set(nil)
	return errors.Join(p.Leave(ctx), p.Stop())
}

func (m *member) freeze() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.freezing = time.Now()
	return m.proc.Freeze()
}

func (m *member) thaw(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = append(m.frozen, span{m.freezing.UnixNano(), time.Now().UnixNano()})
	m.freezing = time.Time{}
	return m.proc.Thaw()
}

// frozenBetween is how much of a time it was frozen.
func (m *member) frozenBetween(from, to int64) (d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.frozen {
		d += time.Duration(max(min(s.to, to)-max(s.from, from), 0))
	}
	return d
}

// send makes a transfer, and returns what its sender was told.
func (m *member) send(ctx context.Context, p planned) (handedOver, error) {
	s := p.state
	proc, err := m.present(ctx)
	if err != nil {
		return s, err
	}
	s.began = time.Now().UnixNano()
	sent, err := proc.Send(ctx, p.args)
	s.told = time.Now().UnixNano()
	s.frozen = m.frozenBetween(s.began, s.told)
	s.receipt = sent.Digest
	switch {
	case ctx.Err() != nil:
		return s, ctx.Err()
	case errors.Is(err, worker.ErrGone):
		s.outcome = died
	case err != nil:
		s.outcome, s.said = refused, err.Error()
	case sent.Receipt.Stored != "":
		s.outcome = stored
	default:
		s.outcome = accepted
	}
	return s, nil
}
