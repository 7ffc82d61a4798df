package fnlib

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/transport"
)

const (
	absentWait = time.Second // before a holder that has left is believed gone: it, or the rendezvous, may be about to return
	badTries   = 5           // links in a row over which a holder sends nothing of use
)

var (
	errAbsent = errors.New("nobody holds the name")
	errBusy   = errors.New("it has as many requests under way as it takes")
	errPassed = errors.New("it is too far ahead")
)

// statusErr is a holder's word that it does not have the state. settled: nobody has.
type statusErr struct {
	error
	settled bool
}

func (e *statusErr) Unwrap() error { return e.error }

// fromHolder fetches from a function, over as many links as it takes, until it has no more to give.
func (p *pull) fromHolder(name string) {
	pause, bad := retryPause, 0
	for {
		before := p.bytesFrom(name)
		err := p.overLink(p.ctx, name)
		if p.bytesFrom(name) > before {
			pause, bad = retryPause, 0
		}
		var status *statusErr
		switch {
		case p.ctx.Err() != nil:
			return
		case errors.Is(err, errAbsent):
			if !p.returns(name) {
				p.ended(fmt.Errorf("%w: %q, which kept it, has left the job", ErrNotFound, name))
				return
			}
		case errors.As(err, &status), errors.Is(err, ErrDigest), errors.Is(err, errWire), bad == badTries:
			p.change(func() {
				p.present--
				if status != nil && status.settled && name == p.ref.holders[0] { // others cannot know
					p.over = err
				}
			})
			p.ended(err)
			return
		case !errors.Is(err, errBusy):
			bad++
		}
		p.n.log.Debug("fnlib: a state is asked for again", "from", name, "state", p.ref.id, "error", err)
		select {
		case <-time.After(pause):
		case <-p.ctx.Done():
			return
		}
		pause = min(2*pause, maxRetry)
	}
}

func (p *pull) bytesFrom(source string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.from[source]
}

// returns waits a moment for a holder that has left, while the store may be asked.
func (p *pull) returns(name string) bool {
	p.change(func() { p.present-- })
	select {
	case <-time.After(absentWait):
	case <-p.ctx.Done():
	}
	if _, err := p.n.client.Lookup(p.ctx, name); errors.Is(err, rendezvous.ErrNotFound) {
		return false
	}
	p.change(func() { p.present++ })
	return true
}

// overLink fetches over one link until that breaks, or the holder has no more.
func (p *pull) overLink(ctx context.Context, name string) error {
	l, err := p.n.reach(ctx, name, p.path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, pullLanes)
	for lane := range pullLanes {
		wg.Go(func() {
			errs <- p.lane(ctx, l, name, lane)
			cancel()
		})
	}
	wg.Wait()
	return <-errs // the first says why
}

// reach is link, and fails with errAbsent if nobody holds the name.
func (n *Node) reach(ctx context.Context, name string, path Path) (*transport.Link, error) {
	n.mu.Lock()
	l := n.upLocked(name, path)
	n.mu.Unlock()
	if l != nil {
		return l, nil
	}
	call, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found := make(chan struct{})
	go func() {
		defer close(found)
		for {
			_, err := n.client.Lookup(call, name)
			if errors.Is(err, rendezvous.ErrNotFound) {
				cancel(errAbsent)
			}
			select {
			case <-time.After(lookAfter):
			case <-call.Done():
				return
			}
		}
	}()
	l, _, err := n.link(call, name, path)
	cancel(nil)
	<-found
	if err != nil && errors.Is(context.Cause(call), errAbsent) {
		return nil, errAbsent
	}
	return l, err
}

// lane claims and fetches again and again.
func (p *pull) lane(ctx context.Context, l *transport.Link, name string, lane int) (err error) {
	a := &asker{n: p.n, l: l}
	defer func() { a.close(err) }()
	for {
		c, ok := p.claim(ctx, name, lane)
		if !ok {
			return ctx.Err()
		}
		err := a.ask(ctx, p.request(c), func(g gotHeader, r io.Reader) error {
			return p.read(name, l, c, g, r)
		})
		p.unclaim(c)
		if err != nil {
			return err
		}
	}
}

func (p *pull) request(c claim) getRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := getRequest{id: p.ref.id, by: p.by, first: uint32(c.first), count: uint32(c.count), place: p.place}
	if c.digests {
		g.what = getDigests
	}
	return g
}

// asker makes requests on a link, one after the other, on a stream of its own: QUIC's window for it grows with them.
type asker struct {
	n *Node
	l *transport.Link
	s *transport.Stream // nil before the first
}

// ask makes a request and has the answer read. After an error there is no other.
func (a *asker) ask(ctx context.Context, g getRequest, read func(gotHeader, io.Reader) error) error {
	t := a.n.trafficOf(a.l)
	if a.s == nil {
		s, err := openOn(ctx, a.l, appendGet(nil, g))
		if err != nil {
			return err
		}
		a.s = s
		defer t.begin(true)()
		defer context.AfterFunc(ctx, func() { s.Reset(resetAborted) })()
	} else {
		t.update(func() { t.reading++ })
		defer t.update(func() { t.reading-- })
		defer context.AfterFunc(ctx, func() { a.s.Reset(resetAborted) })()
		if _, err := a.s.Write(appendGet(nil, g)); err != nil {
			return cause(ctx, err)
		}
	}
	got, err := readGot(a.s)
	if err == nil {
		err = read(got, a.s)
	}
	if err != nil {
		return cause(ctx, err)
	}
	return nil
}

func (a *asker) close(err error) {
	switch {
	case a.s == nil:
	case err != nil:
		a.s.Reset(resetAborted)
	default:
		_ = a.s.Close() // it was all read
	}
}

// read reads an answer, and checks each block before it delivers it.
func (p *pull) read(name string, l *transport.Link, c claim, g gotHeader, r io.Reader) error {
	switch {
	case g.status == gotBusy:
		return errBusy
	case (g.status == gotPassed || g.status == gotComing) && !p.ledBy(name): // it gets the state itself: who is named in the ref is to have it
		return &statusErr{statusError(gotUnknown, name), false}
	case g.lead != "" && !c.digests:
		return fmt.Errorf("%w: %q names a lead again", errWire, name)
	case g.status == gotPassed:
		return p.passed(c, g.left)
	case g.status == gotComing:
		return p.readComing(name, l.Status().Path, c, r)
	case g.status != gotHere:
		return &statusErr{statusError(g.status, name), g.status != gotUnknown}
	case g.size != uint64(p.ref.size):
		return fmt.Errorf("%w: %q has %d bytes, and the ref stands for %d", ErrDigest, name, g.size, p.ref.size)
	}
	var digests []Digest
	if c.digests {
		var err error
		if digests, err = readDigests(r, p.ref); err != nil {
			return fmt.Errorf("from %q: %w", name, err)
		}
	}
	st := l.Status()
	way := st.Path
	p.learn(name, way, g.left, digests, func() {
		if p.place = g.place; g.lead != "" {
			p.followLocked(g.lead, st.RTT)
		}
	})
	if g.lead != "" {
		return nil
	}
	return p.readBlocks(name, way, c.first, c.count, r)
}

// readBlocks delivers blocks that come one after the other.
func (p *pull) readBlocks(source, way string, first, count int, r io.Reader) error {
	for i := first; i < first+count; i++ {
		if err := p.readBlock(source, way, i, r); err != nil {
			return err
		}
	}
	return nil
}

func (p *pull) readBlock(source, way string, i int, r io.Reader) error {
	p.mu.Lock()
	digest := p.digests[i]
	p.mu.Unlock()
	b := newBlock(p.ref.blockLen(i))
	if err := readBlock(r, b.data, digest); err != nil {
		b.release()
		return fmt.Errorf("from %q: %w", source, err)
	}
	p.deliver(source, way, i, b)
	return nil
}
