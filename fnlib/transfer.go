package fnlib

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/fnwire/fnwire/transport"
)

// Digest is the SHA-256 of a state.
type Digest [sha256.Size]byte

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText makes a Digest a string in JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Receipt says that the receiving application has accepted a state, and how it got there.
type Receipt struct {
	From, To, Key string
	Bytes         int64
	Digest        Digest
	// Path tells over what the bytes went: "direct", "relay", or "relay+direct" if the link moved
	// while they did. DirectBytes of them were written while the link was direct.
	Path        string
	DirectBytes int64
	Reason      string // why the link was relayed at the end, if it was
	RTT         time.Duration
	Phases      Phases
}

// Phases are the times that a transfer took, one after the other.
type Phases struct {
	Answer   time.Duration // from the call to the peer's answer; 0 on a link that was up
	Link     time.Duration // from there until the QUIC handshake was done; 0 likewise
	Transfer time.Duration // from there until the last byte was handed to QUIC
	Confirm  time.Duration // from there to the receipt
	Total    time.Duration
}

// replaceTimeout bounds the search for another instance when the one that was sent to is gone.
const replaceTimeout = 3 * time.Second

// Progress is called from time to time during a transfer with the bytes so far.
type Progress func(bytes int64, path string)

// SendOptions change how Send works. The zero value is the default.
type SendOptions struct {
	Path     Path
	Size     int64    // of the state if known, for the receiver's progress; 0: asked of r if it can tell
	Progress Progress // called at most every 100 ms, and at the end
}

// Send hands a state to the function of that name and returns when its application has accepted it,
// with the digest checked by the receiver. If nobody holds the name, it waits until somebody joins. If the
// instance is replaced by a newer one before it has answered, and r is an io.Seeker, the newer gets it.
// Memory is constant whatever the size of the state. Errors match ErrRejected, ErrDigest, ErrLink,
// ErrNoDirect, ErrName, ErrClosed, the context's errors, or are r's own. Send does not outlast its context
// if r blocks: then r must not be used before its Read has returned, which Send does not wait for.
func (n *Node) Send(ctx context.Context, to, key string, r io.Reader) (Receipt, error) {
	return n.SendWith(ctx, to, key, r, SendOptions{})
}

// SendWith is Send with options.
func (n *Node) SendWith(ctx context.Context, to, key string, r io.Reader, opt SendOptions) (Receipt, error) {
	rc, err := n.send(ctx, to, key, r, opt)
	if err != nil {
		err = fmt.Errorf("fnlib: send to %s: %w", to, err)
	}
	if n.cfg.Metrics != nil {
		n.cfg.Metrics.Sent(rc, err)
	}
	return rc, err
}

// send tries once more if the instance that was sent to is gone and another one has taken the name, and
// r can be rewound. It never sends twice to one instance, which might then accept twice.
func (n *Node) send(ctx context.Context, to, key string, r io.Reader, opt SendOptions) (Receipt, error) {
	began := time.Now()
	rc := Receipt{From: n.cfg.Name, To: to, Key: key}
	if len(key) > MaxKey {
		return rc, fmt.Errorf("key of %d bytes, at most %d", len(key), MaxKey)
	}
	size := sizeOf(r, opt.Size)
	s, phases, err := n.openStream(ctx, to, opt.Path, appendSendHeader(nil, sendHeader{key: key, size: size}))
	rc.Phases.Answer, rc.Phases.Link = phases.answer, phases.link
	if err != nil {
		return rc, err
	}
	src := newSource(r)
	defer src.close()
	err = n.sendOn(ctx, s, src, size, opt, &rc)
	var unread *readError
	if errors.Is(err, ErrLink) && !errors.As(err, &unread) && n.replaced(ctx, to, opt.Path, s.Link()) && src.rewind() {
		n.log.Debug("fnlib: sending again to the new instance", "to", to)
		s, _, oerr := n.openStream(ctx, to, opt.Path, appendSendHeader(nil, sendHeader{key: key, size: size}))
		if oerr != nil {
			return rc, err
		}
		err = n.sendOn(ctx, s, src, size, opt, &rc)
	}
	rc.Phases.Total = time.Since(began)
	return rc, err
}

// replaced reports whether another instance than that of a lost link holds the name now.
func (n *Node) replaced(ctx context.Context, to string, path Path, lost *transport.Link) bool {
	ctx, cancel := context.WithTimeout(ctx, replaceTimeout)
	defer cancel()
	select {
	case <-lost.Done(): // its streams end a moment before it does
	case <-ctx.Done():
		return false
	}
	l, _, err := n.link(ctx, to, path)
	return err == nil && l.Peer() != lost.Peer()
}

// sendOn sends the state on a stream that has its header, and waits for the receiver's word, which may
// come before the state has been sent: a refusal.
func (n *Node) sendOn(ctx context.Context, s *transport.Stream, src *source, size uint64, opt SendOptions, rc *Receipt) error {
	defer context.AfterFunc(ctx, func() { s.Reset(resetAborted) })() // which ends word too
	t := n.trafficOf(s.Link())
	defer t.begin(true)()
	word := listenFor(s)
	defer func() {
		s.Reset(resetAborted) // does nothing to a stream that is closed
		<-word.come
	}()
	opened := time.Now()
	word.await(t, size)
	w := &stateWriter{s: s, progress: opt.Progress}
	if err := w.copy(src, ctx.Done(), n.ctx.Done(), s.Link().Done(), word.come); err != nil {
		return n.sendFailed(ctx, s, word, err)
	}
	rc.Phases.Transfer = time.Since(opened)
	confirm := time.Now()
	<-word.come
	if word.err != nil {
		return n.sendFailed(ctx, s, word, word.err)
	}
	_ = s.Close()
	rc.Phases.Confirm = time.Since(confirm)
	w.fill(rc)
	return w.check(word.reply)
}

// sendFailed resets the stream, so that the receiver notices, and finds the cause that says most.
func (n *Node) sendFailed(ctx context.Context, s *transport.Stream, word *word, err error) error {
	var unread *readError
	own := errors.As(err, &unread) || !errors.Is(err, transport.ErrReset) && !errors.Is(err, transport.ErrLinkClosed)
	if own {
		s.Reset(resetAborted)
	} else if <-word.come; word.err == nil && word.reply.status != statusAccepted { // said before it reset
		return (&stateWriter{}).check(word.reply)
	}
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	if dead := n.dead(); dead != nil {
		return dead
	}
	if !own {
		return fmt.Errorf("%w: %w", ErrLink, err)
	}
	return err
}

// sizeOf finds the size of a reader that can tell, such as a file or a bytes.Reader.
func sizeOf(r io.Reader, given int64) uint64 {
	if given > 0 {
		return uint64(given)
	}
	switch v := r.(type) {
	case interface{ Len() int }:
		return uint64(v.Len())
	case *os.File:
		if st, err := v.Stat(); err == nil && st.Mode().IsRegular() {
			if at, err := v.Seek(0, io.SeekCurrent); err == nil && at <= st.Size() {
				return uint64(st.Size() - at)
			}
		}
	}
	return unknownSize
}

// buffers are the chunks of sends under way.
var buffers = sync.Pool{New: func() any { b := make([]byte, 4+chunkSize); return &b }}

// stateWriter writes a state in chunks and hashes it on the way.
type stateWriter struct {
	s        *transport.Stream
	progress Progress
	told     time.Time

	total, direct int64
	digest        Digest
	path          string
}

func (w *stateWriter) copy(src *source, stop ...<-chan struct{}) error {
	bp := buffers.Get().(*[]byte)
	defer func() {
		if !src.left { // else the reader may still write to it
			buffers.Put(bp)
		}
	}()
	buf := *bp
	hash := sha256.New()
	for {
		n, err := src.read(buf[4:], stop...) // one read, one chunk: what a pipe gives is not held up until a chunk is full
		if n > 0 {
			binary.BigEndian.PutUint32(buf, uint32(n))
			if werr := w.write(hash, buf[:4+n]); werr != nil {
				return werr
			}
			w.account(int64(n))
		}
		if err == io.EOF { //nolint:errorlint // wrapped, it is a failure and not the end of the state
			break
		}
		if src.left {
			return fmt.Errorf("%w: %w", transport.ErrLinkClosed, err) // unless there is a better cause
		}
		if err != nil {
			return &readError{err}
		}
	}
	hash.Sum(w.digest[:0])
	if _, err := w.s.Write(appendTrailer(nil, uint64(w.total), w.digest)); err != nil {
		return err
	}
	w.account(0)
	return w.s.CloseWrite()
}

// write writes a chunk and hashes it meanwhile: QUIC takes bytes only while Write is called, and must not
// wait for the hash.
func (w *stateWriter) write(hash io.Writer, chunk []byte) error {
	hashed := make(chan struct{})
	go func() {
		defer close(hashed)
		_, _ = hash.Write(chunk[4:]) // never fails (hash.Hash)
	}()
	_, err := w.s.Write(chunk)
	<-hashed
	return err
}

// account notes over what path a chunk went and tells the progress.
func (w *stateWriter) account(n int64) {
	w.total += n
	now := time.Now()
	if n > 0 && !w.told.IsZero() && now.Sub(w.told) < 100*time.Millisecond && w.path != "" {
		if w.path != "relay" {
			w.direct += n
		}
		return
	}
	w.told = now
	path := w.s.Link().Status().Path
	if path != "relay" {
		w.direct += n
		path = "direct"
	}
	w.path = path
	if w.progress != nil {
		w.progress(w.total, path)
	}
}

func (w *stateWriter) fill(rc *Receipt) {
	st := w.s.Link().Status()
	rc.Bytes, rc.Digest, rc.DirectBytes = w.total, w.digest, w.direct
	rc.RTT, rc.Reason = st.RTT, st.Reason
	switch {
	case w.direct == 0 && (w.total > 0 || w.path == "relay"):
		rc.Path = "relay"
	case w.direct < w.total:
		rc.Path = "relay+direct"
	default:
		rc.Path = "direct"
	}
}

// check compares the receiver's word with what was sent.
func (w *stateWriter) check(p reply) error {
	switch {
	case p.status == statusRejected:
		return fmt.Errorf("%w: %s", ErrRejected, p.reason)
	case p.status == statusDigest:
		return fmt.Errorf("%w (as the receiver found)", ErrDigest)
	case p.status != statusAccepted:
		return fmt.Errorf("%w: %s", ErrRejected, p.reason)
	case p.bytes != uint64(w.total) || p.digest != w.digest:
		return ErrDigest
	}
	return nil
}
