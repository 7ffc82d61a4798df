package natsobj

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/rendezvous/bucket"
)

// Get opens an object.
func (s *Store) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, store.Info, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, store.Info{}, err
	}
	m, o, err := s.look(ctx, key)
	if err == nil && (offset < 0 || offset > o.size) {
		err = fmt.Errorf("offset %d of %d bytes", offset, o.size)
	}
	if err != nil {
		return nil, store.Info{}, s.fail(ctx, "get "+key, err)
	}
	info := store.Info{Key: key, Size: o.size}
	if o.chunk == 0 {
		return &whole{ctx, bytes.NewReader(m.Data[offset:])}, info, nil
	}
	r := &reader{s: s, key: key, o: o, next: offset / o.chunk, skip: offset % o.chunk, window: 1}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.ask()
	return r, info, nil
}

// whole reads an object that was in its message.
type whole struct {
	ctx context.Context
	r   *bytes.Reader
}

func (w *whole) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}

func (w *whole) Close() error { return nil }

// reader reads an object that was cut into chunks. It asks for more of them at a time the more are read.
type reader struct {
	s      *Store
	key    string
	o      object
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	next   int64 // chunk to ask for
	queue  []chan answer
	window int
	rest   []byte // of the chunk that is read
	skip   int64  // bytes before the offset in the first chunk
	err    error
}

type answer struct {
	body []byte
	err  error
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil && r.err == nil {
		r.err = r.s.fail(r.ctx, "get "+r.key, err)
	}
	for r.err == nil && len(r.rest) == 0 {
		r.err = r.more()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// more waits for a chunk. It returns io.EOF after the last.
func (r *reader) more() error {
	r.ask()
	if len(r.queue) == 0 {
		return io.EOF
	}
	a := <-r.queue[0]
	r.queue = r.queue[1:]
	if a.err != nil {
		return r.s.fail(r.ctx, "get "+r.key, a.err)
	}
	r.rest, r.skip = a.body[r.skip:], 0
	r.window = min(2*r.window, window)
	r.ask()
	return nil
}

// ask asks for as many chunks as may be under way.
func (r *reader) ask() {
	for ; len(r.queue) < r.window && r.next < r.o.chunks(); r.next++ {
		n, c := r.next, make(chan answer, 1)
		r.queue = append(r.queue, c)
		r.wait.Go(func() {
			body, err := r.s.fetch(r.ctx, r.o, n)
			c <- answer{body, err}
		})
	}
}

// Close ends what is under way.
func (r *reader) Close() error {
	r.cancel()
	r.wait.Wait()
	return nil
}

func (s *Store) fetch(ctx context.Context, o object, n int64) ([]byte, error) {
	m, err := s.last(ctx, bucket.Chunk(s.bucket, o.id, n))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, errors.New("the object was replaced or deleted while it was read")
	case err != nil:
		return nil, err
	case int64(len(m.Data)) != o.length(n):
		return nil, fmt.Errorf("chunk %d has %d bytes, want %d", n, len(m.Data), o.length(n))
	}
	return m.Data, nil
}
