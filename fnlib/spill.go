package fnlib

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/internal/seal"
	"github.com/fnwire/fnwire/rendezvous"
)

const (
	pathStore    = "store"
	sealPurpose  = "store"
	spillReserve = 500 * time.Millisecond // before a deadline, and what the bytes take at spillRate
	spillRate    = 50 << 20               // bytes a second that a store takes, at a careful guess
	spillTries   = 5                      // of a store that fails, Config.SpillAfter apart, in which the receiver may come too
	smallStored  = 1 << 20
	noticeWithin = 2 * time.Second

	defaultSpillAfter = 5 * time.Second
	defaultStoreTTL   = 24 * time.Hour
	defaultGrace      = 2 * time.Second
)

var (
	errStoreOnly = errors.New("as asked")
	errDeadline  = errors.New("the deadline was near")
	errLeaving   = errors.New("the sender had to end")
)

// spillCause is why a state is not delivered but stored; nil: it is not.
func spillCause(ctx context.Context, err error) error {
	if errors.Is(err, errNoLink) {
		return errNoLink
	}
	for _, why := range []error{errDeadline, errLeaving} {
		if errors.Is(context.Cause(ctx), why) {
			return why
		}
	}
	return nil
}

func (n *Node) spillAfter() time.Duration { return cmp.Or(n.cfg.SpillAfter, defaultSpillAfter) }

// deliverOrStore hands the state over by links, or gives it to the store when time runs out.
func (o *outgoing) deliverOrStore(ctx context.Context, rc *Receipt) error {
	if !o.opt.StoreOnly && (o.n.cfg.Store == nil || o.opt.NoStore) {
		err := o.deliver(ctx)
		o.fill(rc)
		return err
	}
	if !o.n.begin() {
		return cmp.Or(o.n.dead(), ErrClosed)
	}
	defer o.n.sends.Done()
	o.n.log.Debug("fnlib: sending", "to", o.to, "state", o.header.id)
	if o.opt.StoreOnly {
		return o.store(ctx, errStoreOnly, rc)
	}
	live, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if t, ok := ctx.Deadline(); ok {
		defer time.AfterFunc(time.Until(t)-o.reserve(time.Until(t)), func() { cancel(errDeadline) }).Stop()
	}
	done := make(chan struct{})
	defer close(done)
	go o.cancelWhenLeaving(cancel, done)
	for try := 1; ; try++ {
		err := o.deliver(live)
		o.fill(rc)
		why := spillCause(live, err)
		if err == nil || why == nil || ctx.Err() != nil || errors.Is(err, ErrRejected) || errors.Is(err, ErrDigest) {
			return err
		}
		serr := o.store(ctx, why, rc)
		if serr == nil {
			return nil
		}
		if !errors.Is(why, errNoLink) || ctx.Err() != nil || try == spillTries || errors.Is(serr, store.ErrDenied) || errors.Is(serr, store.ErrFull) ||
			errors.As(serr, new(*readError)) {
			return errors.Join(err, serr)
		}
		o.n.log.Warn("fnlib: a state cannot be stored at the moment; its receiver is waited for on", "to", o.to, "error", serr)
	}
}

// cancelWhenLeaving ends the delivery when the node closes: at once if the receiver has nothing of it, else after half of Config.Grace.
func (o *outgoing) cancelWhenLeaving(cancel context.CancelCauseFunc, done <-chan struct{}) {
	select {
	case <-o.n.leaving:
	case <-done:
		return
	}
	if o.linked.Load() || o.early.Load() {
		select {
		case <-time.After(o.n.grace() / 2):
		case <-done:
			return
		}
	}
	cancel(errLeaving)
}

// reserve is how long before its deadline a state is given to the store.
func (o *outgoing) reserve(left time.Duration) time.Duration {
	d := spillReserve
	if o.header.size != unknownSize {
		d += time.Duration(o.header.size/spillRate) * time.Second
	}
	return min(d, left/2)
}

// store gives the state to the store and tells the receiver, if it is there.
func (o *outgoing) store(ctx context.Context, why error, rc *Receipt) error {
	n := o.n
	if n.cfg.Store == nil {
		return fmt.Errorf("%w: none is configured (Config.Store)", ErrStore)
	}
	if err := n.checkTo(o.to); err != nil {
		return err
	}
	ctx, cancel := n.spillContext(ctx)
	defer cancel()
	if o.window.start > 0 {
		if err := o.restart(stops{ctx.Done(), nil, nil, nil}); err != nil {
			return fmt.Errorf("%w: the first %d bytes were sent and are gone: %w", ErrStore, o.window.start, cause(ctx, err))
		}
	}
	began := time.Now()
	name := storedName(n.storedAt(), o.header.id)
	key := storedKey(n.key.ID().String(), o.to, name)
	pr, pw := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_ = pw.CloseWithError(o.writeSealed(ctx, pw, key)) // never fails (io.PipeWriter)
	}()
	err := n.cfg.Store.Put(ctx, key, pr, store.PutOptions{TTL: n.storeTTL()})
	_ = pr.CloseWithError(errStopped) // never fails; ends the writer if Put has ended early
	<-written
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	rc.Stored, rc.Path, rc.Reason = n.cfg.Store.String(), pathStore, why.Error()
	rc.Bytes, rc.Digest, rc.DirectBytes, rc.WireBytes = o.window.end, o.digest, 0, o.wire
	rc.Phases.Transfer, rc.Phases.Confirm = time.Since(began), 0
	if o.opt.Progress != nil {
		o.opt.Progress(o.window.end, pathStore)
	}
	n.sends.Add(1) // beside this send's own: Close waits for the notice, the caller does not
	go func() {
		defer n.sends.Done()
		n.tellStored(context.WithoutCancel(ctx), o.to, name)
	}()
	return nil
}

// writeSealed writes what the store gets: the sender's name, then what a SEND stream carries, sealed.
func (o *outgoing) writeSealed(ctx context.Context, w io.Writer, key string) error {
	buffered := bufio.NewWriterSize(w, 256<<10)
	sealed, err := seal.NewWriter(buffered, o.n.key.Derive(sealPurpose), key)
	if err != nil {
		return err
	}
	header := o.header
	header.resume, header.age = false, 0
	head := appendSendHeader(append([]byte{byte(len(o.n.cfg.Name))}, o.n.cfg.Name...), header)
	if _, err := sealed.Write(head); err != nil {
		return err
	}
	if err := o.storeChunks(ctx, sealed); err != nil {
		return err
	}
	if _, err := sealed.Write(appendTrailer(nil, uint64(o.window.end), o.digest)); err != nil {
		return err
	}
	if err := sealed.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// storeChunks writes all chunks of the state.
func (o *outgoing) storeChunks(ctx context.Context, w io.Writer) error {
	// A small state is stored before compressing it has paid: the sender may have half a second to live.
	o.startPump(w, 0, o.header.size > smallStored)
	defer o.stopPump()
	err := o.pourHeld(0)
	for err == nil && !o.ended {
		o.window.release(o.sure) // what is stored is not sent again
		var chunk []byte
		if chunk, err = o.next(o.window.room(), stops{ctx.Done(), nil, nil, nil}); err == nil && chunk != nil {
			err = o.write(chunk)
		}
	}
	if err != nil {
		return err
	}
	return o.pump.flush()
}

// storedAt is the time in the name of a stored state: now, or so much later that what is stored after something else comes after it.
func (n *Node) storedAt() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := time.Now()
	if next := n.lastStored.Add(time.Millisecond); at.Before(next) {
		at = next
	}
	n.lastStored = at
	return at
}

// tellStored tells the receiver, if it has joined, where a state is. One that joins later, maybe because the rendezvous wakes it now, finds
// it by itself.
func (n *Node) tellStored(ctx context.Context, to, name string) {
	ctx, cancel := context.WithTimeout(ctx, noticeWithin)
	defer cancel()
	env, err := n.hello(rendezvous.Hello{Kind: rendezvous.KindStored, ToName: to, Class: uint8(RelayOnly), Stored: name})
	if err == nil {
		_, err = n.client.Offer(ctx, to, env)
	}
	if err != nil {
		n.log.Info("fnlib: a state is stored, its receiver was not told and finds it when it joins", "to", to, "error", err)
	}
}

// spillContext bounds what is stored while the node closes.
func (n *Node) spillContext(ctx context.Context) (context.Context, context.CancelFunc) {
	select {
	case <-n.leaving:
		return context.WithTimeout(ctx, n.grace())
	default:
		return context.WithCancel(ctx)
	}
}

func (n *Node) grace() time.Duration { return cmp.Or(n.cfg.Grace, defaultGrace) }

func (n *Node) storeTTL() time.Duration { return cmp.Or(n.cfg.StoreTTL, defaultStoreTTL) }

// begin notes a send that Close waits for; false if the node is closing.
func (n *Node) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ends() {
		return false
	}
	n.sends.Add(1)
	return true
}

// ends reports whether the node is closing, or closed.
func (n *Node) ends() bool {
	select {
	case <-n.leaving:
		return true
	default:
		return n.dead() != nil
	}
}

// spill has the sends under way give their states to the store, within Config.Grace.
func (n *Node) spill() {
	n.mu.Lock()
	close(n.leaving)
	n.mu.Unlock()
	if n.cfg.Store == nil {
		n.spillKept()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.spillKept()
		n.sends.Wait()
	}()
	timer := time.NewTimer(n.grace())
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		n.log.Error("fnlib: closing before all states were stored; their senders get an error", "within", n.grace())
	}
}
