package fnlib

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/seal"
)

// States for a name are objects JOB/in/NAME/TIME-ID of the store, so that a listing has the oldest first. The receiver looks
// once it has joined, and when the rendezvous was away; in between their senders tell it.
const (
	storedTries  = 6
	storedPause  = 200 * time.Millisecond // before the second try, then twice as long each time
	storedWait   = 10 * time.Second       // between two looks into a store that fails
	maxWaiting   = 1024                   // states of the store that wait for the application
	openWaiting  = 4                      // of which so many are kept open
	removeWithin = 10 * time.Second
)

func storedPrefix(jobID, to string) string { return jobID + "/in/" + to + "/" }

func storedKey(jobID, to, name string) string { return storedPrefix(jobID, to) + name }

func storedName(at time.Time, id stateID) string {
	return fmt.Sprintf("%012x-%s", at.UnixMilli(), id)
}

func parseStoredName(name string) (stateID, error) {
	at, id, ok := strings.Cut(name, "-")
	b, err := hex.DecodeString(id)
	if !ok || len(at) != 12 || err != nil || len(b) != len(stateID{}) || hex.EncodeToString(b) != id {
		return stateID{}, fmt.Errorf("%.80q is no stored state", name)
	}
	return stateID(b), nil
}

// stored is a state in the store.
type stored struct {
	n   *Node
	key string

	mu       sync.Mutex // guards what follows
	body     io.ReadCloser
	conn     net.Conn // that the state is read from, so that reading has a deadline
	deadline time.Time
	err      error // what the body failed with
}

// noticed is told the name of a stored state. It must not block: what does not fit is found by looking.
func (n *Node) noticed(name string) {
	select {
	case n.notices <- name:
	default:
		poke(n.look)
	}
}

// runStored brings states from the store to the application.
func (n *Node) runStored() {
	for {
		select {
		case name := <-n.notices:
			if err := n.find(name); err != nil {
				n.log.Warn("fnlib: a stored state cannot be read yet", "error", err)
				n.lookLater()
			}
		case <-n.look:
			if err := n.lookInto(); err != nil {
				n.log.Warn("fnlib: the store cannot be looked into; trying again", "error", err)
				n.lookLater()
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// refill has the store looked into for what did not fit, when there is room again.
func (n *Node) refill() {
	if n.inbound.storedWaiting() <= maxWaiting/2 && n.more.Swap(false) {
		poke(n.look)
	}
}

func (n *Node) lookLater() {
	time.AfterFunc(storedWait, func() { poke(n.look) })
}

// lookInto finds all states that are stored for this name.
func (n *Node) lookInto() error {
	prefix := storedPrefix(n.key.ID().String(), n.cfg.Name)
	var names []string
	err := n.cfg.Store.List(n.ctx, prefix, func(i store.Info) bool {
		names = append(names, strings.TrimPrefix(i.Key, prefix))
		return len(names) < 1<<16
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	var failed error
	for _, name := range names {
		if err := n.find(name); err != nil {
			failed = err
		}
		if n.full() {
			break
		}
	}
	return failed
}

// full reports whether enough states of the store wait, and notes that there are more.
func (n *Node) full() bool {
	if n.inbound.storedWaiting() < maxWaiting {
		return false
	}
	n.more.Store(true)
	n.refill() // all may have been taken meanwhile
	return true
}

// find queues a stored state.
func (n *Node) find(name string) error {
	id, err := parseStoredName(name)
	if err != nil {
		n.log.Warn("fnlib: store", "error", err)
		return nil
	}
	st := &stored{n: n, key: storedKey(n.key.ID().String(), n.cfg.Name, name)}
	if n.inbound.reads(st.key) || n.full() {
		return nil
	}
	from, h, err := st.head(n.ctx)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil // accepted, or expired
	case errors.Is(err, seal.ErrForged), errors.Is(err, errWire), err == nil && h.id != id:
		n.log.Error("fnlib: what is stored is not what was", "key", st.key, "error", err)
		return nil
	case err != nil:
		return err
	}
	in := newIncoming(n, from, h)
	in.stored = st
	live, verdict := n.inbound.add(in, 0)
	if live != nil || verdict != nil {
		st.close()
	}
	if live != nil && live.stored == nil {
		n.inbound.comesAgain(live) // its sender has given it up, or will
	}
	if verdict != nil && !verdict.released && (verdict.status == statusAccepted || verdict.status == statusRejected) {
		if err := st.remove(); err != nil { // it came over a link after all, or could not be deleted before
			n.log.Warn("fnlib: store", "key", st.key, "error", err)
		}
		return nil
	}
	if n.inbound.storedWaiting() > openWaiting {
		st.close()
	}
	return nil
}

// head opens the object and reads who has sent what.
func (st *stored) head(ctx context.Context) (from string, h sendHeader, err error) {
	body, _, err := st.n.cfg.Store.Get(ctx, st.key, 0)
	if err != nil {
		return "", h, err
	}
	r := seal.NewReader(body, st.n.key.Derive(sealPurpose), st.key)
	from, h, err = readStoredHead(r)
	if err != nil {
		_ = body.Close()
		return "", h, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.body = &opened{r, body}
	return from, h, nil
}

// opened is the plain text of an object, and what closes it.
type opened struct {
	io.Reader
	io.Closer
}

// readStoredHead reads what stands before the chunks.
func readStoredHead(r io.Reader) (from string, h sendHeader, err error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", h, unexpected(err)
	}
	name := make([]byte, n[0])
	if _, err := io.ReadFull(r, name); err != nil {
		return "", h, unexpected(err)
	}
	if err := job.CheckName(string(name)); err != nil {
		return "", h, fmt.Errorf("%w: sender: %w", errWire, err)
	}
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", h, unexpected(err)
	}
	if n[0] != streamSend {
		return "", h, fmt.Errorf("%w: type %#x", errWire, n[0])
	}
	h, err = readSendHeader(r)
	return string(name), h, unexpected(err)
}

// open returns what the state's chunks are read from.
func (st *stored) open() io.Reader {
	ours, theirs := net.Pipe()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.conn = ours
	_ = ours.SetReadDeadline(st.deadline) // never fails
	st.n.wg.Go(func() {
		err := st.feed(theirs)
		st.mu.Lock()
		st.err = err
		st.mu.Unlock()
		_ = theirs.Close()
	})
	return ours
}

// feed copies the object to w, beginning anew, and skipping what w has, when the store fails.
func (st *stored) feed(w net.Conn) error {
	defer st.close()
	defer context.AfterFunc(st.n.ctx, func() { _ = w.Close() })()
	var done int64
	pause := storedPause
	for try := 1; ; try++ {
		n, err := st.feedFrom(w, done)
		if n > 0 {
			try = 1
		}
		done += n
		if err == nil || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDenied) ||
			errors.Is(err, seal.ErrForged) || try == storedTries {
			return err
		}
		st.n.log.Debug("fnlib: reading a stored state again", "key", st.key, "error", err)
		select {
		case <-time.After(pause):
		case <-st.n.ctx.Done():
			return err
		}
		pause *= 2
		st.close()
	}
}

// feedFrom copies what follows the first done bytes.
func (st *stored) feedFrom(w io.Writer, done int64) (n int64, err error) {
	st.mu.Lock()
	body := st.body
	st.mu.Unlock()
	if body == nil {
		if _, _, err := st.head(st.n.ctx); err != nil {
			return 0, err
		}
		st.mu.Lock()
		body = st.body
		st.mu.Unlock()
	}
	if _, err := io.CopyN(io.Discard, body, done); err != nil {
		return 0, unexpected(err)
	}
	return io.Copy(w, body)
}

func (st *stored) setReadDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.deadline = t
	if st.conn == nil {
		return nil
	}
	return st.conn.SetReadDeadline(t)
}

// trouble is what the object failed with, if that is why the state broke off with err.
func (st *stored) trouble(err error) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return st.err
	}
	return err
}

// close ends the reading of the object. It is opened again if need be.
func (st *stored) close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.body != nil {
		_ = st.body.Close() // nothing was written
		st.body = nil
	}
}

// end ends everything.
func (st *stored) end() {
	st.mu.Lock()
	if st.conn != nil {
		_ = st.conn.Close() // never fails (net.Pipe)
	}
	st.mu.Unlock()
	st.close()
}

// remove deletes the object, whose state was settled.
func (st *stored) remove() error {
	st.end()
	ctx, cancel := context.WithTimeout(context.Background(), removeWithin)
	defer cancel()
	if err := st.n.cfg.Store.Delete(ctx, st.key); err != nil {
		return fmt.Errorf("%w: the state is settled and could not be deleted: %w", ErrStore, err)
	}
	return nil
}
