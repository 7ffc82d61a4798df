package fnlib

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/fnwire/fnwire/internal/seal"
	"github.com/fnwire/fnwire/transport"
)

// Incoming is a state that a peer is sending, or has stored. The application reads it to io.EOF, which comes only if
// the digest is right, and then accepts it, which the sender is waiting for. What was not accepted when the process ends is not
// lost: the next instance of the name gets it. It is an io.Reader for one goroutine.
type Incoming struct {
	From string // the sender's name, as its offer has proven
	Key  string
	Size int64 // -1 if the sender did not know

	n       *Node
	id      stateID
	began   time.Time
	state   stateReader
	said    int64             // the last TAKEN
	bound   *transport.Stream // that state reads from
	end     error
	verdict *reply      // what was said of it; nil before
	stored  *stored     // where it is, if it is in the store
	early   string      // its sender's peer ID, if it has come early: state has all of it
	expiry  *time.Timer // of such a one, if neither application nor stream has come
	again   bool        // it is in the store too; this and taken are guarded by inbound.mu
	taken   bool        // by the application

	mu       sync.Mutex        // guards what follows
	s        *transport.Stream // that it comes on, at present; nil if it has come early and on none yet
	resumed  bool              // s is not the first: its sender waits for a word
	moved    chan struct{}     // closed and replaced when s, or the deadline, has changed
	deadline time.Time
}

// resumeWithin is how long a state waits for a sender whose link broke, and lookAfter when the rendezvous is asked whether there is such
// a sender.
const (
	resumeWithin = 30 * time.Second
	lookAfter    = 2 * time.Second
)

// errGaveUp is what a sender's reset means.
var errGaveUp = errors.New("the sender gave up")

func newIncoming(n *Node, from string, h sendHeader) *Incoming {
	in := &Incoming{From: from, Key: h.key, Size: -1, n: n, id: h.id, began: time.Now(), moved: make(chan struct{})}
	if h.size != unknownSize {
		in.Size = int64(h.size)
	}
	in.state = newStateReader(nil, in.Size)
	if n != nil {
		in.state.codec = &n.codec
	}
	return in
}

func (in *Incoming) key() inboundKey { return inboundKey{in.From, in.id} }

// stream is what the state comes on at present.
func (in *Incoming) stream() *transport.Stream {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.s
}

// move has the state go on by another stream, of which Read says from where; what is said of an early one is said there too.
func (in *Incoming) move(s *transport.Stream) {
	in.mu.Lock()
	old := in.s
	in.s, in.resumed = s, true
	_ = s.SetReadDeadline(in.deadline)
	close(in.moved)
	in.moved = make(chan struct{})
	in.mu.Unlock()
	if old != nil {
		old.Reset(resetMoved) // which ends a Read
	}
	in.watch(s)
}

// watch drops the state when the stream that it comes on has ended before anybody has taken it, since nobody reads it to find out. A
// sender whose link was lost has some time to come back.
func (in *Incoming) watch(s *transport.Stream) {
	if s == nil {
		return
	}
	s.AfterAborted(func() {
		if in.n.inbound.took(in) {
			return
		}
		select {
		case <-s.Link().Done(): // streams end a moment before their link does
			if !s.Link().Finished() {
				time.AfterFunc(resumeWithin, func() { in.n.inbound.drop(in, s) })
				return
			}
		case <-time.After(retryPause):
		}
		in.n.inbound.drop(in, s)
	})
}

// bind has the state reader read from the stream at hand, and tells the sender how far the application has come.
func (in *Incoming) bind() {
	in.mu.Lock()
	s, resumed := in.s, in.resumed
	in.mu.Unlock()
	if s == in.bound {
		return
	}
	in.bound = s
	in.state.goOn(s)
	if resumed || in.Size < 0 || untakenCost(uint64(in.Size)) > 0 {
		in.say()
	}
}

// say tells the sender how far the application has come. It waits for nothing; if the link is gone, Read tells.
func (in *Incoming) say() {
	in.said = in.state.read
	_, _ = in.bound.Write(appendTaken(nil, in.said))
}

// Read returns io.EOF after the last byte, if all bytes are those that were sent; else ErrDigest, or
// ErrLink if the sender gave up or is gone. If the link broke, it waits for the sender to go on, for half a minute at most.
// After os.ErrDeadlineExceeded (see SetReadDeadline) it may be called again.
func (in *Incoming) Read(b []byte) (int, error) {
	if in.end != nil {
		return 0, in.end
	}
	if len(b) == 0 {
		return 0, nil
	}
	for {
		in.open()
		n, err := in.read(b)
		if n > 0 {
			if in.bound != nil && in.state.read-in.said >= takenEvery {
				in.say()
			}
			return n, nil // an error comes again
		}
		if err == nil || in.goesOn(err) {
			continue
		}
		return 0, in.ended(in.why(err))
	}
}

// read reads from the state reader. Of an early state, which has all of it, nothing else keeps the deadline.
func (in *Incoming) read(b []byte) (int, error) {
	if in.early != "" {
		in.mu.Lock()
		deadline := in.deadline
		in.mu.Unlock()
		if !deadline.IsZero() && !time.Now().Before(deadline) {
			return 0, os.ErrDeadlineExceeded
		}
	}
	return in.state.Read(b)
}

// open makes the state reader ready.
func (in *Incoming) open() {
	switch {
	case in.early != "":
	case in.stored == nil:
		in.bind()
	case in.state.r == nil:
		in.state.goOn(in.stored.open())
	}
}

// goesOn reports, after the stream has failed, whether there is another one. It waits for it if the link was lost.
func (in *Incoming) goesOn(err error) bool {
	if in.bound == nil || errors.Is(err, errWire) || errors.Is(err, ErrDigest) || err == io.EOF { //nolint:errorlint // as Read returns it
		return false
	}
	lost := errors.Is(err, transport.ErrLinkClosed)
	look, timer := time.NewTimer(lookAfter), time.NewTimer(resumeWithin)
	defer look.Stop()
	defer timer.Stop()
	for {
		in.mu.Lock()
		s, moved, deadline := in.s, in.moved, in.deadline
		in.mu.Unlock()
		switch {
		case s != in.bound:
			return true
		case !lost || s.Link().Finished() || in.n.dead() != nil:
			return false
		}
		var late <-chan time.Time
		if !deadline.IsZero() {
			late = time.After(time.Until(deadline))
		}
		select {
		case <-moved:
		case <-late: // the stream says so if it is read again
			return false
		case <-look.C:
			if in.senderGone() {
				return false
			}
		case <-timer.C:
			return false
		case <-in.n.ctx.Done():
			return false
		}
	}
}

// senderGone asks the rendezvous whether the instance that was sending still holds its name.
func (in *Incoming) senderGone() bool {
	ctx, cancel := context.WithTimeout(in.n.ctx, askTimeout)
	defer cancel()
	m, err := in.n.client.Lookup(ctx, in.From)
	return err == nil && m.Peer != in.bound.Link().Peer().String()
}

// ended notes the end that Read has come to. A deadline is none.
func (in *Incoming) ended(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	in.end = err
	if in.verdict == nil && err != io.EOF { //nolint:errorlint // as Read returns it
		in.n.inbound.forget(in)
		if in.stored != nil && !errors.Is(err, seal.ErrForged) { // which would be no better then
			in.n.lookLater()
		}
	}
	return err
}

// why is what the application gets to see when the state reader has failed, or come to the end. The sender is told.
func (in *Incoming) why(err error) error {
	switch {
	case err == io.EOF: //nolint:errorlint // wrapped, it is no end of a state
		return err
	case errors.Is(err, errWire):
		return errors.Join(err, in.settle(reply{status: statusProtocol, reason: err.Error()}))
	case errors.Is(err, ErrDigest):
		return errors.Join(err, in.settle(reply{status: statusDigest}))
	case in.early != "" && !errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("%w: an early state is cut off: %w", errWire, err)
		return errors.Join(err, in.settle(reply{status: statusProtocol, reason: err.Error()}))
	}
	return in.broken(err)
}

// broken tells of a stream that ended before the state did.
func (in *Incoming) broken(err error) error {
	if dead := in.n.dead(); dead != nil {
		return dead
	}
	if in.late(err) {
		return fmt.Errorf("fnlib: state %q from %q: %w", in.Key, in.From, os.ErrDeadlineExceeded)
	}
	if in.stored != nil {
		return fmt.Errorf("%w: state %q from %q, after %d bytes: %w", ErrStore, in.Key, in.From, in.state.read, in.stored.trouble(err))
	}
	var reset *transport.ResetError
	if errors.As(err, &reset) && reset.Code == resetAborted || errors.Is(err, transport.ErrLinkClosed) && in.bound.Link().Left() {
		err = errGaveUp
	}
	return fmt.Errorf("%w: state %q from %q broke off after %d bytes: %w", ErrLink, in.Key, in.From, in.state.read, err)
}

// late reports whether Read fails because of its deadline.
func (in *Incoming) late(err error) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, transport.ErrLinkClosed) && !in.deadline.IsZero() && !time.Now().Before(in.deadline) && !in.s.Link().Finished()
}

// SetReadDeadline makes Read fail with os.ErrDeadlineExceeded from t on; the zero time, or a later one, takes that
// back, and no byte is lost. Unlike the other methods
// it may be called while another goroutine reads: it is how to stop waiting for a sender.
func (in *Incoming) SetReadDeadline(t time.Time) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.deadline = t
	close(in.moved)
	in.moved = make(chan struct{})
	if in.stored != nil {
		return in.stored.setReadDeadline(t)
	}
	if in.early != "" {
		return nil
	}
	return in.s.SetReadDeadline(t)
}

// Bytes is how much was read so far.
func (in *Incoming) Bytes() int64 { return in.state.read }

// Path is what the bytes come over at the moment: "direct", "relay", "both", "store" or "rendezvous".
func (in *Incoming) Path() string {
	if in.stored != nil {
		return pathStore
	}
	if in.early != "" {
		return pathRendezvous
	}
	return in.stream().Link().Status().Path
}

// Digest is the SHA-256 of what was read so far.
func (in *Incoming) Digest() Digest { return Digest(in.state.hash.Sum(nil)) }

// Accept notes that the application has the state, and tells the sender; if that cannot be told at the moment, the sender will ask. It
// must have been read to io.EOF, and not been rejected. More than once is as once. ErrStore means that it was accepted and is in the store yet: this
// node does not get it again, the next instance of its name may.
func (in *Incoming) Accept() error {
	switch {
	case in.verdict != nil && in.verdict.status == statusRejected:
		return errors.New("fnlib: accept: the state was rejected before")
	case in.end == nil:
		return errors.New("fnlib: accept: the state was not read to its end")
	case !errors.Is(in.end, io.EOF):
		return in.end
	}
	return in.settle(reply{status: statusAccepted})
}

// Reject tells the sender that the application does not want the state, and why. What was not read is
// dropped, and what is in the store deleted: nobody gets it any more (see Release). A state that was accepted cannot be rejected.
func (in *Incoming) Reject(reason string) error {
	if in.verdict != nil && in.verdict.status == statusAccepted {
		return errors.New("fnlib: reject: the state was accepted before")
	}
	return in.settle(reply{status: statusRejected, reason: cmp.Or(reason, "rejected by the application")})
}

// Release is for a state that this node cannot take, such as for a full disk, and another may. A sender that waits for its receipt is told
// as by Reject, and has the state yet. What is in the store stays there: this node does not get it again, the next instance of its name does.
func (in *Incoming) Release(reason string) error {
	if in.verdict != nil && in.verdict.status == statusAccepted {
		return errors.New("fnlib: release: the state was accepted before")
	}
	return in.settle(reply{status: statusRejected, reason: cmp.Or(reason, "the receiver cannot take it"), released: true})
}

// settle says the last word on the state, once.
func (in *Incoming) settle(p reply) error {
	if in.verdict != nil {
		return nil
	}
	p.bytes = uint64(in.state.read)
	in.state.hash.Sum(p.digest[:0])
	in.verdict = &p
	if before := in.n.inbound.settle(in, p); before != nil && before.status != p.status {
		return fmt.Errorf("fnlib: state %q from %q came twice, and was settled before", in.Key, in.From)
	}
	var err error
	switch {
	case in.stored == nil:
		in.reply(p)
	case p.released:
		in.stored.end()
	default:
		err = in.stored.remove()
	}
	if in.n.cfg.Metrics != nil {
		in.n.cfg.Metrics.Received(in.From, in.Key, in.state.read, time.Since(in.began), err)
	}
	return err
}

// reply tells the sender. If its link is lost, it will resume, and be told then.
func (in *Incoming) reply(p reply) {
	s := in.stream()
	if in.early != "" {
		in.n.sayWord(in, p)
	}
	if s == nil {
		return
	}
	if err := in.n.conclude(s, p); err != nil {
		in.n.log.Debug("fnlib: last word not said yet", "to", in.From, "state", in.id, "error", err)
	}
}
