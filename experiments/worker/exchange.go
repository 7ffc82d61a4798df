package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store"
)

const (
	opExchange = "exchange"
	opBell     = "bell"
	opSettle   = "settle"
	opDrop     = "drop"

	smallBytes = 64 << 10
	settlePace = 50 * time.Millisecond // of each of many
)

// ExchangeArgs are a function's share of a round in which many functions send to one another.
type ExchangeArgs struct {
	Join *JoinArgs `json:"join,omitempty"` // first, if it has not joined
	At   int64     `json:"at"`             // when everybody begins

	Send    []Load `json:"send,omitempty"`
	Receive int    `json:"receive,omitempty"` // how many states come
	ByRef   bool   `json:"by_ref,omitempty"`  // what is sent is a ref, by which receivers get the state
	Path    string `json:"path,omitempty"`    // auto, direct or relay

	Store    *Store `json:"store,omitempty"`    // by which it goes, and not by fnwire; To then are bells
	Parallel int    `json:"parallel,omitempty"` // requests of the store at a time, each way
}

// Load is a state for some others.
type Load struct {
	Key    string          `json:"key"`
	To     []string        `json:"to"`
	Source workload.Source `json:"source"`
}

// Exchanged is what has come of it.
type Exchanged struct {
	Began  int64  `json:"began"`
	Joined int64  `json:"joined,omitempty"`
	Sent   []Edge `json:"sent,omitempty"` // of a store, one for each state
	Got    []Edge `json:"got,omitempty"`
}

// Edge is a state that was sent to one other, or has come.
type Edge struct {
	Key    string `json:"key"`
	Peer   string `json:"peer,omitempty"`
	Began  int64  `json:"began"` // when it was sent, or seen to come
	Ended  int64  `json:"ended"` // when it was accepted or put, or its last byte was there
	Bytes  int64  `json:"bytes,omitempty"`
	Digest string `json:"digest,omitempty"`
	Path   string `json:"path,omitempty"`
}

// Exchange has a function do its share of a round.
func (c *Client) Exchange(ctx context.Context, a ExchangeArgs) (e Exchanged, err error) {
	return e, c.Call(ctx, opExchange, a, &e)
}

func (f *function) exchange(ctx context.Context, a ExchangeArgs) (Exchanged, error) {
	x := &exchange{a: a, f: f, small: make(map[string][]byte)}
	if err := x.load(); err != nil {
		return x.done, err
	}
	select {
	case <-time.After(time.Until(time.Unix(0, a.At))):
	case <-ctx.Done():
		return x.done, ctx.Err()
	}
	x.done.Began = now()
	if a.Join != nil {
		if _, err := f.join(ctx, *a.Join); err != nil {
			return x.done, err
		}
		x.done.Joined = now()
	}
	var err error
	if a.Store != nil {
		err = x.byStore(ctx)
	} else {
		err = x.byLinks(ctx)
	}
	return x.done, err
}

// exchange is one under way.
type exchange struct {
	a    ExchangeArgs
	f    *function
	node *fnlib.Node
	path fnlib.Path

	small map[string][]byte // states that are in memory, by their keys

	mu   sync.Mutex // guards done
	done Exchanged
}

// load reads states that are small: functions have these in memory.
func (x *exchange) load() error {
	for _, l := range x.a.Send {
		if l.Source.Size() > smallBytes {
			continue
		}
		r := l.Source.Open()
		b, err := io.ReadAll(r)
		_ = r.Close() // of files that were read
		if err != nil {
			return err
		}
		x.small[l.Key] = b
	}
	return nil
}

func (x *exchange) open(l Load) io.ReadCloser {
	if b, ok := x.small[l.Key]; ok {
		return inMemory{bytes.NewReader(b)}
	}
	return l.Source.Open()
}

type inMemory struct{ *bytes.Reader }

// Close implements io.Closer.
func (inMemory) Close() error { return nil }

func (x *exchange) sent(e Edge) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.done.Sent = append(x.done.Sent, e)
}

func (x *exchange) got(e Edge) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.done.Got = append(x.done.Got, e)
}

// byLinks sends everything at once, and takes everything at once.
func (x *exchange) byLinks(ctx context.Context) (err error) {
	if x.node, err = x.f.joined(); err != nil {
		return err
	}
	if x.path, err = fnlib.ParsePath(x.a.Path); err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	for _, l := range x.a.Send {
		if x.a.ByRef {
			all.Go(func() error { return x.sendRef(ctx, l) })
			continue
		}
		for _, to := range l.To {
			all.Go(func() error {
				r := x.open(l)
				defer r.Close()
				if m, ok := r.(inMemory); ok {
					return x.send(ctx, now(), to, l.Key, m.Reader, l.Source.Size())
				}
				return x.send(ctx, now(), to, l.Key, r, l.Source.Size())
			})
		}
	}
	all.Go(func() error {
		for range x.a.Receive {
			in, err := x.node.Receive(ctx)
			if err != nil {
				return err
			}
			all.Go(func() error { return x.take(ctx, in) })
		}
		return nil
	})
	return all.Wait()
}

func (x *exchange) send(ctx context.Context, began int64, to, key string, r io.Reader, size int64) error {
	e := Edge{Key: key, Peer: to, Began: began}
	rc, err := x.node.SendWith(ctx, to, key, r, fnlib.SendOptions{Path: x.path, Size: size})
	if err != nil {
		return err
	}
	e.Ended, e.Path = now(), rc.Path
	x.sent(e)
	return nil
}

// sendRef puts a state, in the place of the one before, and sends its ref.
func (x *exchange) sendRef(ctx context.Context, l Load) error {
	began := now()
	x.f.mu.Lock()
	old := x.f.ref
	x.f.mu.Unlock()
	if old != "" {
		if err := x.node.Drop(ctx, old); err != nil {
			return err
		}
	}
	r := x.open(l)
	defer r.Close()
	ref, err := x.node.Put(ctx, r, fnlib.PutOptions{})
	if err != nil {
		return err
	}
	x.f.mu.Lock()
	x.f.ref = ref
	x.f.mu.Unlock()
	all, ctx := errgroup.WithContext(ctx)
	for _, to := range l.To {
		all.Go(func() error { return x.send(ctx, began, to, l.Key, strings.NewReader(string(ref)), int64(len(ref))) })
	}
	return all.Wait()
}

// take reads a state, or gets it by the ref that has come, and accepts it.
func (x *exchange) take(ctx context.Context, in *fnlib.Incoming) error {
	e := Edge{Key: in.Key, Peer: in.From, Began: now()}
	take := x.read
	if x.a.ByRef {
		take = x.byRef
	}
	if err := take(ctx, in, &e); err != nil {
		return err
	}
	x.got(e)
	return in.Accept()
}

func (x *exchange) read(_ context.Context, in *fnlib.Incoming, e *Edge) error {
	_, err := copyTo(io.Discard, in)
	e.Ended = now()
	e.Bytes, e.Digest, e.Path = in.Bytes(), in.Digest().String(), in.Path()
	return err
}

func (x *exchange) byRef(ctx context.Context, in *fnlib.Incoming, e *Edge) error {
	ref, err := io.ReadAll(io.LimitReader(in, fnlib.MaxRef))
	if err != nil {
		return err
	}
	g, err := x.node.Get(ctx, fnlib.Ref(ref), fnlib.GetOptions{Path: x.path})
	if err != nil {
		return err
	}
	defer g.Close()
	err = e.read(g)
	e.Path = g.Path()
	return err
}

// read reads what has come to its end.
func (e *Edge) read(r io.Reader) (err error) {
	h := sha256.New()
	if e.Bytes, err = copyTo(h, r); err != nil {
		return err
	}
	e.Digest = hex.EncodeToString(h.Sum(nil))
	e.Ended = now()
	return nil
}

// copyBufs are buffers for copyTo: many states are small.
var copyBufs = sync.Pool{New: func() any { return new([copyBytes]byte) }}

func copyTo(w io.Writer, r io.Reader) (int64, error) {
	b := copyBufs.Get().(*[copyBytes]byte)
	defer copyBufs.Put(b)
	return io.CopyBuffer(w, struct{ io.Reader }{r}, b[:])
}

// byStore puts everything, rings the bells of those whom it is for, and gets what its own bell is rung for.
func (x *exchange) byStore(ctx context.Context) error {
	st, err := x.f.opened(ctx, *x.a.Store)
	if err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	var puts, gets errgroup.Group
	puts.SetLimit(x.a.Parallel)
	gets.SetLimit(x.a.Parallel)
	all.Go(func() error {
		for _, l := range x.a.Send {
			puts.Go(func() error { return x.put(ctx, st, l) })
		}
		return puts.Wait()
	})
	all.Go(func() error {
		for range x.a.Receive {
			key, err := x.f.rung(ctx)
			if err != nil {
				return errors.Join(err, gets.Wait())
			}
			gets.Go(func() error { return x.get(ctx, st, key) })
		}
		return gets.Wait()
	})
	return all.Wait()
}

func (x *exchange) put(ctx context.Context, st store.Store, l Load) error {
	e := Edge{Key: l.Key, Began: now()}
	r := x.open(l)
	defer r.Close()
	if err := st.Put(ctx, l.Key, r, store.PutOptions{Size: l.Source.Size()}); err != nil {
		return err
	}
	e.Ended = now()
	x.sent(e)
	for _, bell := range l.To {
		if err := ring(bell, l.Key); err != nil {
			return err
		}
	}
	return nil
}

func (x *exchange) get(ctx context.Context, st store.Store, key string) error {
	e := Edge{Key: key, Began: now()}
	object, _, err := st.Get(ctx, key, 0)
	if err != nil {
		return err
	}
	defer object.Close()
	if err := e.read(object); err != nil {
		return err
	}
	x.got(e)
	return nil
}

// Bell has a function hear of what is stored for it, by datagrams with the key, which are local to the machine: as if it knew at once and for
// nothing. path is a socket's, for the life of the worker.
func (c *Client) Bell(ctx context.Context, path string) error {
	return c.Call(ctx, opBell, path, nil)
}

func (f *function) listenBell(_ context.Context, path string) (None, error) {
	bell, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return None{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bell != nil {
		return None{}, errors.Join(errors.New("has a bell already"), bell.Close())
	}
	f.bell = bell
	return None{}, nil
}

// ring tells whoever has the bell that something is stored.
func ring(bell, key string) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: bell, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(key))
	return err
}

// rung waits for the bell.
func (f *function) rung(ctx context.Context) (key string, err error) {
	f.mu.Lock()
	bell := f.bell
	f.mu.Unlock()
	if bell == nil {
		return "", errors.New("has no bell")
	}
	if err := bell.SetReadDeadline(time.Time{}); err != nil {
		return "", err
	}
	defer context.AfterFunc(ctx, func() { _ = bell.SetReadDeadline(time.Unix(1, 0)) })()
	b := make([]byte, store.MaxKey)
	n, err := bell.Read(b)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return string(b[:n]), err
}

// SettleArgs say whom to have direct paths to.
type SettleArgs struct {
	Peers []string      `json:"peers"`
	Wait  time.Duration `json:"wait"` // for all of them
}

// Settle waits until the links to all peers are direct, and returns those that are not, with the reasons.
func (c *Client) Settle(ctx context.Context, a SettleArgs) (relayed []string, err error) {
	return relayed, c.Call(ctx, opSettle, a, &relayed)
}

func (f *function) settle(ctx context.Context, a SettleArgs) (relayed []string, err error) {
	until := time.Now().Add(a.Wait)
	for _, peer := range a.Peers {
		p, err := f.path(ctx, PathArgs{Peer: peer, Want: "direct", Wait: time.Until(until), Pace: settlePace})
		if err != nil {
			return nil, err
		}
		if p.Path != "direct" {
			relayed = append(relayed, fmt.Sprintf("to %s: %s", peer, p.Reason))
		}
	}
	return relayed, nil
}

// DropArgs say what to delete.
type DropArgs struct {
	Store    Store    `json:"store"`
	Keys     []string `json:"keys"`
	Parallel int      `json:"parallel"`
}

// Drop deletes what is stored.
func (c *Client) Drop(ctx context.Context, a DropArgs) error { return c.Call(ctx, opDrop, a, nil) }

func (f *function) drop(ctx context.Context, a DropArgs) (None, error) {
	st, err := f.opened(ctx, a.Store)
	if err != nil {
		return None{}, err
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(a.Parallel)
	for _, key := range a.Keys {
		all.Go(func() error { return st.Delete(ctx, key) })
	}
	return None{}, all.Wait()
}
