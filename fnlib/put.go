package fnlib

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// PutOptions change how Put works. The zero value is the default.
type PutOptions struct {
	TTL   time.Duration // after which nobody gets the state any more, rounded up to a second; 0 is an hour
	Reads int           // how many Gets may read it to its end, at most 4096, after which it is deleted; 0 is any number
	// Mirror has Put return when Config.Store has the state as well, so that it outlives the process however that ends.
	Mirror bool
	// StoreOnly has the state kept by Config.Store and not by this node.
	StoreOnly bool
	// NoStore keeps the state out of Config.Store, also when the node closes.
	NoStore bool
}

func (o PutOptions) check(n *Node) error {
	switch {
	case o.TTL < 0 || o.TTL > math.MaxInt32*time.Second:
		return fmt.Errorf("TTL %v: want 0 or more, and less than 68 years", o.TTL)
	case o.Reads < 0 || o.Reads > maxReads:
		return fmt.Errorf("%d reads: want 0 to %d", o.Reads, maxReads)
	case o.NoStore && (o.Mirror || o.StoreOnly):
		return errors.New("NoStore contradicts Mirror and StoreOnly")
	case (o.Mirror || o.StoreOnly) && n.cfg.Store == nil:
		return fmt.Errorf("%w: none is configured (Config.Store)", ErrStore)
	}
	return nil
}

// Put reads a state to its end, keeps it, and returns a text by which any function of the job can get it (see Get) until it expires, was read as
// often as opt.Reads allows, or is dropped. Nothing is sent before somebody asks.
//
// The node keeps all such states in Config.PutMemory bytes of memory, and what does not fit in temporary files, unencrypted and for its own user only. If
// it closes, Config.Store gets what was not read out, within Config.Grace; without a store the refs lead nowhere from then on. A node keeps
// at most 4096 states, of 32 GiB at most.
//
// Errors match ErrStore, ErrClosed, the context's errors, or are r's own or the temporary file's. Put does not outlast its context if r blocks: then r must
// not be used before its Read has returned, which Put does not wait for.
func (n *Node) Put(ctx context.Context, r io.Reader, opt PutOptions) (Ref, error) {
	ref, err := n.put(ctx, r, opt)
	if err != nil {
		return "", fmt.Errorf("fnlib: put: %w", err)
	}
	return ref, nil
}

func (n *Node) put(ctx context.Context, r io.Reader, opt PutOptions) (Ref, error) {
	if err := opt.check(n); err != nil {
		return "", err
	}
	c, digests, err := n.readContent(ctx, r)
	if err != nil {
		return "", err
	}
	ttl := defaultPutTTL
	if opt.TTL > 0 {
		ttl = opt.TTL
	}
	h := &held{
		refInfo: refInfo{
			id: newStateID(), size: c.size, root: rootOf(digests),
			expires: time.Unix(time.Now().Add(ttl+time.Second-1).Unix(), 0),
		},
		digests: digests, reads: opt.Reads, spills: !opt.NoStore, content: c,
	}
	if opt.Mirror || opt.StoreOnly {
		if err := n.storeHeld(ctx, h); err != nil {
			c.close()
			return "", err
		}
	}
	if opt.StoreOnly {
		c.close()
		return sealRef(n.key, h.refInfo)
	}
	h.holders = []string{n.cfg.Name}
	if err := n.kept.add(h); err != nil {
		c.close()
		if h.stored {
			n.removeStored(h.id)
		}
		return "", err
	}
	return sealRef(n.key, h.refInfo)
}

// readContent reads a state to its end.
func (n *Node) readContent(ctx context.Context, r io.Reader) (*content, []Digest, error) {
	src := newSource(r)
	defer src.close()
	buf := newBlock(blockSize)
	defer func() {
		if !src.left { // else the reader may write to it yet
			buf.release()
		}
	}()
	c := &content{k: &n.kept}
	digests := []Digest{} // an empty state has none, which is known
	for {
		have, err := fillBlock(src, buf.data, stops{ctx.Done(), n.ctx.Done(), nil, nil})
		if have > 0 && (err == nil || err == io.EOF) { //nolint:errorlint // wrapped, it is a failure and not the end of the state
			digests = append(digests, sha256.Sum256(buf.data[:have]))
			if aerr := c.add(buf.data[:have]); aerr != nil {
				err = aerr
			}
		}
		switch {
		case err == io.EOF: //nolint:errorlint // likewise
			return c, digests, nil
		case err != nil:
			c.close()
			if errors.Is(err, errStopped) {
				return nil, nil, cause(ctx, n.Err())
			}
			return nil, nil, err
		}
	}
}

// fillBlock reads until b is full.
func fillBlock(src *source, b []byte, stop stops) (have int, err error) {
	for have < len(b) && err == nil {
		var m int
		m, err = src.read(b[have:], stop)
		have += m
	}
	if err != nil && err != io.EOF && !errors.Is(err, errStopped) { //nolint:errorlint // likewise
		err = &readError{err}
	}
	return have, err
}

// Holding is how a node stands with a state that it keeps for others.
type Holding struct {
	Size    int64     // bytes
	Expires time.Time // a whole second
	Reads   int       // Gets that have ended well, if PutOptions.Reads has them counted
	InFile  bool      // it is in a temporary file
	Stored  bool      // Config.Store has it as well
	// Released is closed when the node keeps the state no longer: it was read out, has expired, was dropped, or the node is closed.
	Released <-chan struct{}
}

// Holding tells of a state that this node keeps. Errors match ErrRef, and ErrExpired, ErrReadOut or ErrNotFound if it does not, or no longer.
func (n *Node) Holding(ref Ref) (Holding, error) {
	h, err := n.holding(ref)
	if err != nil {
		return Holding{}, fmt.Errorf("fnlib: holding: %w", err)
	}
	n.kept.mu.Lock()
	defer n.kept.mu.Unlock()
	return Holding{
		Size: h.size, Expires: h.expires, Reads: len(h.done), InFile: h.content.file != nil, Stored: h.stored, Released: h.released,
	}, nil
}

func (n *Node) holding(ref Ref) (*held, error) {
	info, err := openRef(n.key, ref)
	if err != nil {
		return nil, err
	}
	h, got := n.kept.look(info.id)
	if err := statusError(got.status, n.cfg.Name); err != nil {
		return nil, err
	}
	return h, nil
}

// statusError is what a holder's status other than gotHere means.
func statusError(status byte, holder string) error {
	switch status {
	case gotHere:
		return nil
	case gotExpired:
		return fmt.Errorf("%w (as %q says)", ErrExpired, holder)
	case gotReadOut:
		return fmt.Errorf("%w (as %q says)", ErrReadOut, holder)
	case gotDropped:
		return fmt.Errorf("%w: it was dropped (as %q says)", ErrNotFound, holder)
	}
	return fmt.Errorf("%w: %q does not keep it any more", ErrNotFound, holder)
}

// Spill has Config.Store keep a state too that this node keeps, until it expires, and returns the store's name. Closing the node does the same; this is for who wants
// to know that it was done. Errors match ErrRef, ErrExpired, ErrNotFound, ErrStore and the context's errors.
func (n *Node) Spill(ctx context.Context, ref Ref) (store string, err error) {
	h, err := n.holding(ref)
	if err == nil && n.cfg.Store == nil {
		err = fmt.Errorf("%w: none is configured (Config.Store)", ErrStore)
	}
	if err == nil {
		err = n.storeHeld(ctx, h)
	}
	if err != nil {
		return "", fmt.Errorf("fnlib: spill: %w", err)
	}
	return n.cfg.Store.String(), nil
}
