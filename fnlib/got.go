package fnlib

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/transport"
)

// GetOptions change how Get works. The zero value is the default.
type GetOptions struct {
	Path Path // of links to holders
	// Hold has this node keep the state too, as if it had been Put here, and Got.Ref name it as one more holder, from which others get it. States of which reads are counted
	// have one holder only.
	Hold bool
}

// Got is a state that Get reads. It is an io.ReadCloser for one goroutine.
type Got struct {
	Size int64 // bytes

	p       *pull
	cur     []byte // of the block at hand, not read yet
	have    bool   // there is one
	read    int64
	end     error
	keep    *content // with GetOptions.Hold
	kept    Ref
	keepErr error
}

// Get opens the state that a ref stands for, and returns when a holder, or the store, has said that it is there. It asks all holders that the ref names at
// once, each for other blocks of 128 KiB, and goes on with the others, at the block where it was, when one is lost; each block is
// checked against the ref before a byte of it is given out. Config.Store is asked when no holder is there or nothing has come for Config.SpillAfter. At
// most 8 MiB are in memory. A name that somebody else has taken since is not waited for.
//
// Functions that get a state of 1 MiB or more at the same time, from one holder, form a chain: each asks the one that began before it first, and passes on what it has got,
// so that the line of the holder carries the state once. For that a Get keeps up to 2 MiB that were read, and 8 MiB while another function gets from it, until a
// second after its end. Nobody waits for another's application: who does not read on, ends or dies is left for the holder within half a second.
//
// The context bounds the reading too. If reads are counted (PutOptions.Reads), the one who has put it has counted this one, once, when Read
// returns io.EOF; a store cannot count, and is told only of the last that is allowed.
//
// Errors, of Get and of Got.Read, match ErrRef, ErrExpired, ErrNotFound, ErrReadOut, ErrDigest (a holder has sent something else, and there was no other), ErrStore,
// ErrClosed or the context's.
func (n *Node) Get(ctx context.Context, ref Ref, opt GetOptions) (*Got, error) {
	g, err := n.get(ctx, ref, opt)
	if err != nil {
		return nil, fmt.Errorf("fnlib: get: %w", err)
	}
	return g, nil
}

func (n *Node) get(ctx context.Context, ref Ref, opt GetOptions) (*Got, error) {
	info, err := openRef(n.key, ref)
	if err != nil {
		return nil, err
	}
	if err := n.dead(); err != nil {
		return nil, err
	}
	if !time.Now().Before(info.expires) {
		return nil, fmt.Errorf("%w, %v ago by this machine's clock", ErrExpired, time.Since(info.expires).Round(time.Second))
	}
	p := newPull(ctx, n, info, opt.Path)
	p.start()
	if err := p.known(); err != nil {
		p.end()
		return nil, err
	}
	g := &Got{Size: info.size, p: p, kept: ref}
	if opt.Hold {
		if p.counted() {
			g.keepErr = errors.New("its reads are counted, so that it has one holder only")
		} else {
			g.keep = &content{k: &n.kept}
		}
	}
	return g, nil
}

// start runs the sources.
func (p *pull) start() {
	h, got := p.n.kept.look(p.ref.id)
	switch first := slices.Index(p.ref.holders, p.n.cfg.Name) == 0; {
	case got.status == gotHere:
		p.begin(1)
		p.wg.Go(func() { p.fromSelf(h) })
		return
	case first && got.status != gotUnknown: // nobody else has to be asked
		p.failed = statusError(got.status, p.n.cfg.Name)
		return
	}
	others := slices.DeleteFunc(slices.Clone(p.ref.holders), func(name string) bool { return name == p.n.cfg.Name })
	p.begin(len(others))
	if p.failed = noSource(p.n, p.ref, others); p.failed == nil && p.n.cfg.Store != nil {
		p.live++
		p.wg.Go(p.fromStore)
	}
	if len(others) > 0 {
		p.n.kept.register(p)
	}
	for _, name := range others {
		p.wg.Go(func() { p.fromHolder(name) })
	}
}

// noSource is an error if there is nobody to ask.
func noSource(n *Node, i refInfo, others []string) error {
	switch {
	case n.cfg.Store != nil || len(others) > 0:
		return nil
	case len(i.holders) > 0:
		return fmt.Errorf("%w: this node has kept it, and does no longer", ErrNotFound)
	}
	return fmt.Errorf("%w: it is in a store, and none is configured here (Config.Store)", ErrNotFound)
}

const pathLocal = "local"

// fromSelf reads what this node keeps itself.
func (p *pull) fromSelf(h *held) {
	for {
		c, ok := p.claim(p.ctx, p.n.cfg.Name, 0)
		if !ok {
			return
		}
		_, got := p.n.kept.look(h.id)
		err := statusError(got.status, p.n.cfg.Name)
		if err == nil {
			p.learn(p.n.cfg.Name, pathLocal, got.left, h.digests, nil)
			from := int64(c.first) * blockSize
			err = p.readBlocks(p.n.cfg.Name, pathLocal, c.first, c.count, io.NewSectionReader(h.content, from, h.size-from))
		}
		p.unclaim(c)
		if err != nil {
			p.ended(err)
			return
		}
	}
}

// Read returns io.EOF after the last byte; other errors are as Get tells. It goes on where it was after none of them.
func (g *Got) Read(b []byte) (int, error) {
	if len(g.cur) == 0 {
		if g.end == nil {
			g.end = g.next()
		}
		if g.end != nil {
			return 0, g.end
		}
	}
	n := copy(b, g.cur)
	g.cur = g.cur[n:]
	g.read += int64(n)
	return n, nil
}

// next takes the next block, or ends the state.
func (g *Got) next() (err error) {
	if g.have {
		g.have = false
		g.p.taken()
	}
	if g.read == g.Size {
		err = g.finish()
	} else if g.cur, err = g.p.take(); err == nil {
		g.have = true
		if g.keep != nil && g.keepErr == nil {
			g.keepErr = g.keep.add(g.cur)
		}
		return nil
	}
	g.close()
	if err != nil && err != io.EOF { //nolint:errorlint // as finish returns it
		if dead := g.p.n.dead(); dead != nil {
			err = dead
		}
		return fmt.Errorf("fnlib: get, after %d of %d bytes: %w", g.read, g.Size, err)
	}
	return err
}

// finish has the Get counted and keeps the state. It returns io.EOF if all went well.
func (g *Got) finish() error {
	p := g.p
	if p.counted() {
		if err := p.count(); err != nil {
			return err
		}
	}
	if g.keep == nil || g.keepErr != nil {
		return io.EOF
	}
	info := p.ref.add(p.n.cfg.Name)
	g.keepErr = p.n.kept.add(&held{refInfo: info, digests: p.digests, content: g.keep})
	switch {
	case errors.Is(g.keepErr, errHeld):
		g.keepErr = nil
	case g.keepErr == nil:
		g.keep = nil // the keeper's now
	}
	if g.keepErr == nil {
		g.kept, g.keepErr = sealRef(p.n.key, info)
	}
	return io.EOF
}

// close ends the pull.
func (g *Got) close() {
	g.p.end()
	g.cur, g.have = nil, false
	if g.keep != nil {
		g.keep.close()
		g.keep = nil
	}
}

// Close ends the reading. It must be called unless Read has returned an error, and may be called more than once; it never fails.
func (g *Got) Close() error {
	if g.end == nil {
		g.end = ErrClosed
		g.close()
	}
	return nil
}

// Ref is the ref that was got, with this node as one more holder if GetOptions.Hold asked for that. Then the state must have been read to
// io.EOF; the error says why this node does not keep it.
func (g *Got) Ref() (Ref, error) {
	if g.keepErr != nil {
		return g.kept, fmt.Errorf("fnlib: get: the state is not kept here: %w", g.keepErr)
	}
	return g.kept, nil
}

// Bytes is how much was read so far.
func (g *Got) Bytes() int64 { return g.read }

// From tells how many bytes have come from each holder, by name, and from the store, by its URL.
func (g *Got) From() map[string]int64 {
	g.p.mu.Lock()
	defer g.p.mu.Unlock()
	return maps.Clone(g.p.from)
}

// Path is how the last block has come: "direct", "relay", "both", "store" or "local".
func (g *Got) Path() string {
	g.p.mu.Lock()
	defer g.p.mu.Unlock()
	return g.p.way
}

// count tells who counts that this Get has read the state, until that has noted it.
func (p *pull) count() error {
	status, err := p.n.tellHolders(p.ctx, p.ref, p.path, getRequest{what: getDone, id: p.ref.id, by: p.by})
	switch {
	case err != nil:
		return err
	case status == gotUnknown && p.last() && p.n.cfg.Store != nil: // it was spilled; this was the last
		if err := p.n.cfg.Store.Delete(p.ctx, p.n.refKey(p.ref.id)); err != nil {
			return fmt.Errorf("%w: the state was read and could not be deleted: %w", ErrStore, err)
		}
	case status != gotUnknown:
		return statusError(status, p.ref.holders[0])
	}
	return nil
}

// tellHolders makes a request for a state as a whole of who has put it. gotUnknown: it does not have it, or has left.
func (n *Node) tellHolders(ctx context.Context, i refInfo, path Path, g getRequest) (status byte, err error) {
	if len(i.holders) == 0 {
		return gotUnknown, nil
	}
	return n.tell(ctx, i.holders[0], path, g)
}

// tell makes a request that is answered by a status, over as many links as it takes.
func (n *Node) tell(ctx context.Context, name string, path Path, g getRequest) (status byte, err error) {
	if name == n.cfg.Name {
		if g.what == getDrop {
			return n.kept.drop(g.id), nil
		}
		return n.kept.count(g.id, g.by), nil
	}
	for pause := retryPause; ; pause = min(2*pause, maxRetry) {
		var l *transport.Link
		if l, err = n.reach(ctx, name, path); err == nil {
			a := &asker{n: n, l: l}
			err = a.ask(ctx, g, func(got gotHeader, _ io.Reader) error {
				status = got.status
				return nil
			})
			a.close(err)
		}
		switch {
		case errors.Is(err, errAbsent):
			return gotUnknown, nil
		case errors.Is(err, errWire), err == nil && status != gotBusy:
			return status, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return 0, cause(ctx, err)
		case <-n.ctx.Done():
			return 0, n.Err()
		}
	}
}

// Drop has a state deleted before its time: by all holders that the ref names and can be reached, and from Config.Store. A holder that has left is no
// error. Errors match ErrRef, ErrStore, ErrClosed or the context's.
func (n *Node) Drop(ctx context.Context, ref Ref) error {
	i, err := openRef(n.key, ref)
	if err != nil {
		return fmt.Errorf("fnlib: drop: %w", err)
	}
	for _, name := range i.holders {
		if _, terr := n.tell(ctx, name, Auto, getRequest{what: getDrop, id: i.id}); terr != nil && err == nil {
			err = fmt.Errorf("%q: %w", name, terr)
		}
	}
	if n.cfg.Store != nil {
		if serr := n.cfg.Store.Delete(ctx, n.refKey(i.id)); serr != nil && !errors.Is(serr, store.ErrNotFound) && err == nil {
			err = fmt.Errorf("%w: %w", ErrStore, serr)
		}
	}
	if err != nil {
		return fmt.Errorf("fnlib: drop: %w", err)
	}
	return nil
}
