package fnlib

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/internal/zchunk"
	"github.com/fnwire/fnwire/transport"
)

// outgoing is a state on its way, by as many links as it takes. One goroutine works on it.
type outgoing struct {
	n      *Node
	to     string
	header sendHeader
	opt    SendOptions
	src    *source
	began  time.Time // of the first header
	went   time.Time // of that, or when the state went early

	said      *said       // the word that is awaited by the rendezvous; nil if the state has not gone early
	unsaid    error       // errNoWord, if the receiver may have it so
	delivered time.Time   // by the rendezvous; zero if that is not known
	early     atomic.Bool // it was

	window  window
	out     gathered // what the stream at hand is written by
	pump    *pump
	sure    int64     // offset up to which the pump works on nothing of the window
	hash    hash.Hash // of what was read
	reached int64     // the furthest byte that was read before a restart
	ended   bool      // the state was read to its end, and digest is set
	digest  Digest

	resumes bool            // the stream at hand is not the first
	last    *transport.Link // that it is, or was, on
	phases  callPhases      // of the first link
	linked  atomic.Bool     // there is a stream
	shut    time.Time       // since when links are gone as soon as they are up; zero if the last was not
	poured  time.Time       // when the last byte was handed to QUIC, the last time

	told   time.Time // when the progress was told
	path   string    // at that time; pathRendezvous: of the whole state
	direct int64     // bytes that were written while the link was direct
	wire   int64     // bytes that went over links, or into the store
}

const (
	retryPause   = 50 * time.Millisecond // before the second link, then twice as long each time
	maxRetry     = 2 * time.Second
	lastingRetry = 5 * time.Second // a link that lived for so long is not held against the next
)

// errNoLink is why a state was given to the store: no link within Config.SpillAfter, or no prospect of one.
var errNoLink = errors.New("the receiver was not reached in time")

// deliver sends the state until the receiver has said its last word. A link that breaks is made anew, and the state
// goes on where the receiver's application is; another instance of the name gets it from its beginning.
func (o *outgoing) deliver(ctx context.Context) error {
	if o.mayGoEarly() {
		if err := o.goEarly(ctx); err != nil {
			return err
		}
	}
	if o.said == nil {
		return o.deliverByLinks(ctx)
	}
	ctx, cancel := o.untilSaid(ctx)
	defer cancel()
	if !o.said.come() {
		if err := o.deliverByLinks(ctx); err == nil || !o.said.come() {
			return err
		}
	}
	o.path = pathRendezvous
	err := o.check(o.said.reply)
	if err == nil && o.opt.Progress != nil {
		o.opt.Progress(o.window.end, o.path)
	}
	return err
}

func (o *outgoing) deliverByLinks(ctx context.Context) error {
	pause := retryPause
	last := o.unsaid
	for {
		s, err := o.open(ctx)
		opened := time.Now()
		switch {
		case err == nil:
			o.header.resume = true
			o.linked.Store(true)
			if err = o.sendOn(ctx, s); !errors.Is(err, errLost) {
				return err
			}
		case !errors.Is(err, errLost):
			return lostBefore(last, err)
		}
		last = err
		o.linked.Store(false)
		o.n.log.Debug("fnlib: a state lost its link", "to", o.to, "state", o.header.id, "error", err)
		if time.Since(opened) > lastingRetry {
			pause = retryPause
		}
		if err := o.wait(ctx, pause); err != nil {
			return lostBefore(last, err)
		}
		pause = min(2*pause, maxRetry)
	}
}

// lostBefore adds to err what broke the last link.
func lostBefore(last, err error) error {
	if last == nil {
		return err
	}
	return fmt.Errorf("%w: %w; since then: %w", ErrLink, last, err)
}

// wait lets some time pass before the next link.
func (o *outgoing) wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-o.n.ctx.Done():
		return o.n.Err()
	}
}

// open opens a stream for the state, within Config.SpillAfter if there is a store. errLost: links came up, and were gone at once.
func (o *outgoing) open(ctx context.Context) (*transport.Stream, error) {
	spills := o.n.cfg.Store != nil && !o.opt.NoStore
	if spills {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.n.spillAfter(), errNoLink)
		defer cancel()
	}
	o.resumes = o.header.resume
	s, phases, err := o.n.openStream(ctx, o.to, o.opt.Path, o.opening)
	if o.last == nil {
		o.phases = phases
	}
	if err != nil {
		late := context.Cause(ctx) == errNoLink //nolint:errorlint // the very cause given above
		if ctx.Err() == nil && errors.Is(err, transport.ErrLinkClosed) {
			if o.shut.IsZero() {
				o.shut = time.Now()
			}
			if late = spills && time.Since(o.shut) >= o.n.spillAfter(); !late {
				return nil, fmt.Errorf("%w: %w", errLost, err)
			}
		}
		if late || spills && ctx.Err() == nil && o.n.dead() == nil && !errors.Is(err, ErrName) && !errors.Is(err, ErrNoDirect) {
			return nil, fmt.Errorf("%w: %w", errNoLink, err)
		}
		return nil, err
	}
	o.shut = time.Time{}
	o.last, o.out.w = s.Link(), s
	if o.began.IsZero() {
		o.began = time.Now()
		if o.went.IsZero() {
			o.went = o.began
		}
	}
	return s, nil
}

// errLost is a link that broke before the receiver's last word.
var errLost = errors.New("the link was lost")

// sendOn sends the state on a stream that has its header, and waits for the receiver's word, which may
// come before the state has been sent: a refusal, or what it said before.
func (o *outgoing) sendOn(ctx context.Context, s *transport.Stream) error {
	defer context.AfterFunc(ctx, func() { s.Reset(resetAborted) })() // which ends word too
	t := o.n.trafficOf(s.Link())
	defer t.begin(true)()
	defer func() {
		if o.out.held { // the peer does not see the stream
			t.update(func() { t.opened-- })
		}
	}()
	word := listenFor(s)
	o.startPump(&o.out, t.lastRate(), true)
	defer func() {
		s.Reset(resetAborted) // does nothing to a stream that is closed
		<-word.come
		o.stopPump()
		t.noteRate(o.pump)
	}()
	stop := stops{ctx.Done(), o.n.ctx.Done(), s.Link().Done(), word.come}
	if err := o.pour(s, t, word, stop); err != nil {
		return o.failed(ctx, s, word, err)
	}
	<-word.come
	if word.err != nil {
		return o.failed(ctx, s, word, word.err)
	}
	_ = s.Close() // which tells the receiver that its word has come
	return o.check(word.reply)
}

// pour writes what the receiver does not have. It returns early if the receiver has said its last word.
func (o *outgoing) pour(s *transport.Stream, t *traffic, word *word, stop stops) error {
	from := int64(0)
	if o.resumes {
		select {
		case <-word.taken:
			from = word.offset.Load()
		case <-word.come:
			return word.err
		case <-stop[0]:
			return errStopped
		case <-stop[1]:
			return errStopped
		}
	} else {
		if err := word.await(t, o.header.size, o.out.release); err != nil {
			return err
		}
	}
	if err := o.goTo(from, stop); err != nil {
		return err
	}
	err := o.pourHeld(from)
	if err == nil && !o.resumes && o.window.end > 0 { // read before, to go early or to the store
		o.account(s, o.window.end)
	}
	for err == nil && !o.ended {
		err = o.pourNext(s, word, stop)
	}
	if err == nil {
		err = o.pump.flush()
	}
	if err != nil {
		return err
	}
	o.poured = time.Now()
	if _, err := o.out.Write(appendTrailer(nil, uint64(o.window.end), o.digest)); err != nil {
		return err
	}
	if err := o.out.release(); err != nil {
		return err
	}
	o.account(s, 0)
	return nil
}

// pourHeld writes what the window holds from an offset on.
func (o *outgoing) pourHeld(from int64) error {
	err := o.window.from(from, func(raw []byte) error { return o.pump.put(appendChunk(raw)) })
	o.sure = o.window.end
	return err
}

// appendChunk frames what is sent again.
func appendChunk(raw []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, frameHead+len(raw)), uint32(len(raw))), raw...)
}

// goTo makes the window hold the byte at an offset, if that can be: of a state that began anew at another instance the first.
func (o *outgoing) goTo(offset int64, stop stops) error {
	if offset >= o.window.start && offset <= o.window.end {
		return nil
	}
	if offset > o.window.end && offset <= o.reached {
		return o.readOn(offset, stop)
	}
	if offset != 0 {
		return fmt.Errorf("%w: the receiver asks for byte %d, and %d to %d are kept", errWire, offset, o.window.start, o.window.end)
	}
	err := o.restart(stop)
	if err != nil && !errors.Is(err, errStopped) {
		err = fmt.Errorf("%w: the receiver was replaced and begins anew, and of %d bytes read the first %d are gone: %w",
			ErrLink, o.window.end, o.window.start, err)
	}
	return err
}

// restart begins the state anew.
func (o *outgoing) restart(stop stops) error {
	if err := o.src.rewind(stop); err != nil {
		return err
	}
	o.reached = max(o.reached, o.window.end)
	o.window.clear(0, false)
	o.hash.Reset()
	o.ended = false
	return nil
}

// readOn reads again, after a restart, what the receiver has already. If the state is not what it was, the digest tells.
func (o *outgoing) readOn(offset int64, stop stops) error {
	for o.window.end < offset {
		if o.ended {
			return fmt.Errorf("%w: read again, the state has %d bytes, and the receiver has %d of it", ErrDigest, o.window.end, offset)
		}
		o.window.release(o.window.end)
		if err := o.readHashed(stop); err != nil {
			return err
		}
	}
	return nil
}

// readHashed reads a chunk that is not written to a stream now.
func (o *outgoing) readHashed(stop stops) error {
	chunk, err := o.next(o.window.room(), stop)
	if err != nil || chunk == nil {
		return err
	}
	_, _ = o.hash.Write(chunk[frameHead:]) // never fails (hash.Hash)
	return nil
}

// pourNext reads and writes a chunk. One read, one chunk: what a pipe gives is not held up until a chunk is full.
func (o *outgoing) pourNext(s *transport.Stream, word *word, stop stops) error {
	o.window.release(min(word.offset.Load(), o.sure))
	room := o.window.room()
	if room == nil {
		select {
		case <-word.further:
			return nil
		case <-word.come:
			return word.early()
		case <-stop[0]:
		case <-stop[1]:
		}
		return errStopped
	}
	chunk, err := o.next(room, stop)
	if err != nil || chunk == nil {
		return err
	}
	if err := o.write(chunk); err != nil {
		return err
	}
	o.account(s, int64(len(chunk)-frameHead))
	return nil
}

// next reads a chunk into the window. None and no error is the end of the state, or a reader that gave nothing.
func (o *outgoing) next(room []byte, stop stops) ([]byte, error) {
	n, err := o.src.read(room, stop)
	if n > 0 {
		chunk := o.window.add(n) // an error comes again
		return chunk, o.checkSize(false)
	}
	switch {
	case err == io.EOF: //nolint:errorlint // wrapped, it is a failure and not the end of the state
		if err := o.checkSize(true); err != nil {
			return nil, err
		}
		o.ended = true
		o.hash.Sum(o.digest[:0])
		return nil, nil
	case o.src.left:
		return nil, errStopped
	case err != nil:
		return nil, &readError{err}
	}
	return nil, nil
}

// checkSize fails if the state is not as long as its header says, which the receiver holds against it.
func (o *outgoing) checkSize(whole bool) error {
	size, read := o.header.size, uint64(o.window.end)
	if size == unknownSize || read == size || read < size && !whole {
		return nil
	}
	return &readError{fmt.Errorf("it has %d bytes or more, and %d were announced (by SendOptions.Size, the reader's Len or the file's size, which must not change meanwhile)",
		read, size)}
}

// write hands a chunk to the pump, and hashes it meanwhile.
func (o *outgoing) write(chunk []byte) error {
	err := o.pump.put(chunk)
	o.sure = o.window.end - int64(len(chunk)-frameHead)
	_, _ = o.hash.Write(chunk[frameHead:]) // never fails (hash.Hash)
	return err
}

// startPump makes ready to write chunks to w, which takes rate bytes a second, as far as is known.
func (o *outgoing) startPump(w io.Writer, rate float64, compress bool) {
	var c *zchunk.Chooser
	if compress && !o.opt.NoCompress && !o.n.cfg.NoCompress {
		c = zchunk.NewChooser(&o.n.codec, rate)
	}
	o.pump = newPump(w, c)
}

func (o *outgoing) stopPump() {
	o.pump.close()
	o.wire += o.pump.wire
}

// failed resets the stream, so that the receiver notices, and finds the cause that says most.
func (o *outgoing) failed(ctx context.Context, s *transport.Stream, word *word, err error) error {
	var unread *readError
	var reset *transport.ResetError
	own := errors.As(err, &unread) || !errors.Is(err, transport.ErrReset) && !errors.Is(err, transport.ErrLinkClosed) && !errors.Is(err, errStopped)
	if own {
		s.Reset(resetAborted)
	} else if <-word.come; word.err == nil { // said before the end, whatever that was
		return o.check(word.reply)
	} else if errors.Is(err, errStopped) {
		err = word.err
	}
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	if dead := o.n.dead(); dead != nil {
		return dead
	}
	switch {
	case own:
		return err
	case errors.As(err, &reset) && reset.Code != resetMoved:
		return fmt.Errorf("%w: %w", ErrLink, err)
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

// account notes over what path a chunk went and tells the progress.
func (o *outgoing) account(s *transport.Stream, n int64) {
	now := time.Now()
	if n > 0 && !o.told.IsZero() && now.Sub(o.told) < 100*time.Millisecond && o.path != "" {
		if o.path != "relay" {
			o.direct += n
		}
		return
	}
	o.told = now
	path := s.Link().Status().Path
	if path != "relay" {
		o.direct += n
		path = "direct"
	}
	o.path = path
	if o.opt.Progress != nil {
		o.opt.Progress(o.window.end, path)
	}
}

// fill completes the receipt of a state that went over links, or early.
func (o *outgoing) fill(rc *Receipt) {
	if o.path == pathRendezvous {
		rc.Bytes, rc.Digest, rc.WireBytes, rc.Path = o.window.end, o.digest, o.wire, o.path
		if !o.delivered.IsZero() {
			rc.Phases.Transfer, rc.Phases.Confirm = o.delivered.Sub(o.went), time.Since(o.delivered)
		}
		return
	}
	rc.Phases.Answer, rc.Phases.Link = o.phases.answer, o.phases.link
	if !o.poured.IsZero() {
		rc.Phases.Transfer, rc.Phases.Confirm = o.poured.Sub(o.began), time.Since(o.poured)
	}
	if o.last == nil || !o.ended {
		return
	}
	st := o.last.Status()
	rc.Bytes, rc.Digest, rc.DirectBytes = o.window.end, o.digest, min(o.direct, o.window.end)
	rc.RTT, rc.Reason, rc.WireBytes = st.RTT, st.Reason, o.wire
	switch {
	case o.direct == 0 && (rc.Bytes > 0 || o.path == "relay"):
		rc.Path = "relay"
	case o.direct < rc.Bytes:
		rc.Path = "relay+direct"
	default:
		rc.Path = "direct"
	}
}

// check compares the receiver's word with what was sent.
func (o *outgoing) check(p reply) error {
	switch {
	case p.status == statusDigest:
		return fmt.Errorf("%w (as the receiver found)", ErrDigest)
	case p.status == statusUnknown:
		return fmt.Errorf("%w: %s", ErrLink, p.reason)
	case p.status != statusAccepted:
		return fmt.Errorf("%w: %s", ErrRejected, p.reason)
	case !o.ended || p.bytes != uint64(o.window.end) || p.digest != o.digest:
		return ErrDigest
	}
	return nil
}

func newOutgoing(n *Node, to, key string, r io.Reader, opt SendOptions) *outgoing {
	size := sizeOf(r, opt.Size)
	return &outgoing{
		n: n, to: to, opt: opt, src: newSource(r), hash: sha256.New(), window: window{size: size},
		header: sendHeader{key: key, size: size, id: newStateID()},
	}
}

// close lets go the source and the buffers.
func (o *outgoing) close() {
	if o.said != nil {
		o.n.forgetWord(o.header.id)
	}
	o.window.clear(o.window.end, o.src.left)
	o.src.close()
}
