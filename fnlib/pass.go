package fnlib

import (
	"errors"
	"fmt"
	"time"

	"github.com/fnwire/fnwire/transport"
)

// What a pull keeps for a follower (see lead.go), beyond its window: the blocks that the application was given last.
const (
	pastLeast = 16               // blocks, for one that may come
	pastMost  = 64               // while there is one
	pastFor   = time.Second      // that it has to ask for the last ones when the application has read all, and that Flush waits for it
	lastFor   = 10 * time.Second // that it has to take them

	stillEvery = 100 * time.Millisecond // a follower hears that its lead is well
)

var errGone = errors.New("the block is there no more")

// passesOn reports whether others may get from here what a pull has got.
func (p *pull) passesOn() bool { return p.registered && p.ref.size >= leadLeast && p.left == noLimit }

// keepPastLocked keeps a block that the application was given, for a follower.
func (p *pull) keepPastLocked(b *block) {
	if !p.passesOn() {
		b.release()
		return
	}
	p.past = append(p.past, b)
	most := pastLeast
	if p.followed {
		most = pastMost
	}
	for len(p.past) > most {
		p.past[0].release()
		p.past[0] = nil
		p.past = p.past[1:]
	}
}

// serve notes that a follower asks for blocks from first on. It returns the first one that is still here.
func (p *pull) serve() (first int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.forgotten || !p.passesOn() {
		return 0, false
	}
	p.serving++
	p.followed = true
	return p.next - len(p.past), true
}

// served notes the end of that, and the block after the last one that was sent.
func (p *pull) served(next int) {
	p.mu.Lock()
	if p.serving--; p.serving == 0 && p.flushed != nil {
		p.flushed()
	}
	all := !p.stopped.IsZero() && next == blocksOf(p.ref.size)
	p.clearLocked()
	p.mu.Unlock()
	if all {
		p.forget()
	}
}

// stop ends a pull for all but its follower, who may ask for the last blocks yet.
func (p *pull) stop() {
	wanted := false
	p.change(func() {
		p.stopped = time.Now()
		if p.serving > 0 {
			p.flushed = p.n.busy.begin()
			time.AfterFunc(pastFor, p.flushed)
		}
		wanted = p.followed && p.next == blocksOf(p.ref.size)
	})
	if wanted {
		time.AfterFunc(pastFor, p.forget)
	} else {
		p.forget()
	}
}

// forget has nobody ask any more.
func (p *pull) forget() {
	p.n.kept.unregister(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgotten = true
	p.clearLocked()
}

// clearLocked lets go all blocks when nobody wants them.
func (p *pull) clearLocked() {
	if !p.forgotten || p.serving > 0 {
		return
	}
	for i := range p.slots {
		p.dropLocked(i)
	}
	for _, b := range p.past {
		b.release()
	}
	p.past = nil
}

// blockFor returns a block, held, when it has come, for the Get that has a place in the chain. While that was asked for, it calls still again and again; else it waits for the application to read on.
func (p *pull) blockFor(i int, place uint32, stop <-chan struct{}, still func() error) (*block, error) {
	timer := time.NewTimer(stillEvery)
	defer timer.Stop()
	for {
		p.mu.Lock()
		changed, b := p.changed, p.haveLocked(i)
		if b != nil {
			b.hold()
		}
		never := i < p.next || !p.stopped.IsZero()
		ring := p.place > 0 && place <= p.place // who was before waits for nobody who came after
		asked := p.slots[i] != nil
		p.mu.Unlock()
		switch {
		case b != nil && !ring:
			return b, nil
		case b != nil:
			b.release()
			return nil, errGone
		case never, ring:
			return nil, errGone
		}
		select {
		case <-changed:
		case <-timer.C:
			timer.Reset(stillEvery)
			if !asked {
				continue
			}
			if err := still(); err != nil {
				return nil, err
			}
		case <-stop:
			return nil, errStopped
		}
	}
}

// writeBy is by when a follower has to take what is written next.
func (p *pull) writeBy() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped.IsZero() {
		return time.Now().Add(getStall)
	}
	return p.stopped.Add(lastFor)
}

// haveLocked is a block that is here, or nil.
func (p *pull) haveLocked(i int) *block {
	if back := p.next - i; back > 0 {
		if back > len(p.past) {
			return nil
		}
		return p.past[len(p.past)-back]
	}
	if s := p.slots[i]; s != nil {
		return s.block
	}
	return nil
}

// passOn answers a follower of a Get that is under way here; nil: none is.
func (n *Node) passOn(s *transport.Stream, p *pull, g getRequest, aborted <-chan struct{}) error {
	first, ok := 0, false
	if p != nil && g.what == getBlocks && g.count > 0 {
		first, ok = p.serve()
	}
	if !ok {
		return n.writeGot(s, appendGot(nil, gotHeader{status: gotUnknown}), nil)
	}
	sent := int(g.first)
	defer func() { p.served(sent) }()
	if uint64(g.first)+uint64(g.count) > uint64(blocksOf(p.ref.size)) {
		return fmt.Errorf("%w: GET of %d blocks from %d, of %d", errWire, g.count, g.first, blocksOf(p.ref.size))
	}
	if int(g.first) < first {
		return n.writeGot(s, appendGot(nil, gotHeader{status: gotPassed, left: uint32(first)}), nil)
	}
	if err := n.writeGot(s, appendGot(nil, gotHeader{status: gotComing, left: noLimit, size: uint64(p.ref.size)}), nil); err != nil {
		return err
	}
	write := func(b ...[]byte) error {
		_ = s.SetWriteDeadline(p.writeBy())
		for _, b := range b {
			if _, err := s.Write(b); err != nil {
				return err
			}
		}
		return nil
	}
	for ; sent < int(g.first)+int(g.count); sent++ {
		b, err := p.blockFor(sent, g.place, aborted, func() error { return write([]byte{comingYet}) })
		if err != nil {
			return err
		}
		err = write([]byte{comingHere}, b.data)
		b.release()
		if err != nil {
			return err
		}
	}
	return nil
}
