package fnlib

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/internal/seal"
)

// fromStore fetches from the store, once no holder seems to be there or the application has waited for a block for Config.SpillAfter.
func (p *pull) fromStore() {
	if !p.storeNeeded() {
		return
	}
	name := p.n.cfg.Store.String()
	pause := storedPause
	for try := 1; ; try++ {
		o := &refObject{n: p.n, ref: p.ref}
		before := p.bytesFrom(name)
		err := p.fromObject(o, name)
		o.close()
		if p.bytesFrom(name) > before {
			try, pause = 1, storedPause
		}
		switch {
		case p.ctx.Err() != nil:
			return
		case errors.Is(err, store.ErrNotFound):
			p.ended(fmt.Errorf("%w: it is not in %s", ErrNotFound, name))
			return
		case try == storedTries, errors.Is(err, store.ErrDenied), errors.Is(err, seal.ErrForged), errors.Is(err, ErrDigest):
			p.ended(fmt.Errorf("%w: %w", ErrStore, err))
			return
		}
		select {
		case <-time.After(pause):
		case <-p.ctx.Done():
			return
		}
		pause *= 2
	}
}

// storeNeeded waits until it is; false: the pull has ended.
func (p *pull) storeNeeded() bool {
	for {
		p.mu.Lock()
		changed := p.changed
		here := p.hereLocked() != nil
		late := p.moved.Add(cmp.Or(p.n.cfg.SpillAfter, defaultSpillAfter))
		nobody := p.present == 0
		p.mu.Unlock()
		if nobody || !here && !time.Now().Before(late) {
			return true
		}
		wait := time.Until(late)
		if here {
			wait = time.Hour
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-p.ctx.Done():
		}
		timer.Stop()
		if p.ctx.Err() != nil {
			return false
		}
	}
}

// fromObject fetches until the store fails, or the pull ends.
func (p *pull) fromObject(o *refObject, name string) error {
	for {
		c, ok := p.claim(p.ctx, name, 0)
		if !ok {
			return p.ctx.Err()
		}
		err := o.fetch(p, c, name)
		p.unclaim(c)
		if err != nil {
			return err
		}
	}
}

// refObject reads a state of Put in the store.
type refObject struct {
	n    *Node
	ref  refInfo
	left uint32
	head []byte // of the sealed text
	body io.ReadCloser
	r    io.Reader // its plain text
	at   int       // the block that r is at
}

func (o *refObject) close() {
	if o.body != nil {
		_ = o.body.Close() // was only read
		o.body = nil
	}
}

// open reads what stands before the blocks.
func (o *refObject) open(ctx context.Context) ([]Digest, error) {
	key := o.n.refKey(o.ref.id)
	body, _, err := o.n.cfg.Store.Get(ctx, key, 0)
	if err != nil {
		return nil, err
	}
	o.body, o.at, o.head = body, 0, make([]byte, seal.HeadSize)
	if _, err := io.ReadFull(body, o.head); err != nil {
		return nil, unexpected(err)
	}
	if o.r, err = seal.NewReaderFrom(o.head, body, o.n.key.Derive(sealPurpose), key, 0); err != nil {
		return nil, err
	}
	var left [4]byte
	if _, err := io.ReadFull(o.r, left[:]); err != nil {
		return nil, unexpected(err)
	}
	o.left = binary.BigEndian.Uint32(left[:])
	return readDigests(o.r, o.ref)
}

// seek makes r begin with a block.
func (o *refObject) seek(ctx context.Context, block int) error {
	if block == o.at {
		return nil
	}
	o.close()
	from := 4 + int64(blocksOf(o.ref.size))*int64(len(Digest{})) + int64(block)*blockSize
	key := o.n.refKey(o.ref.id)
	body, _, err := o.n.cfg.Store.Get(ctx, key, seal.Offset(from))
	if err != nil {
		return err
	}
	o.body, o.at = body, block
	o.r, err = seal.NewReaderFrom(o.head, body, o.n.key.Derive(sealPurpose), key, from)
	return err
}

// fetch brings what a claim asks for.
func (o *refObject) fetch(p *pull, c claim, name string) error {
	if o.head == nil {
		digests, err := o.open(p.ctx)
		if err != nil {
			return err
		}
		p.learn(name, pathStore, o.left, digests, nil)
	}
	if c.count == 0 {
		return nil
	}
	if err := o.seek(p.ctx, c.first); err != nil {
		return err
	}
	err := p.readBlocks(name, pathStore, c.first, c.count, o.r)
	o.at += c.count
	return err
}
