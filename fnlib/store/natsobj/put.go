package natsobj

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/source"
	"github.com/fnwire/fnwire/rendezvous/bucket"
)

const (
	leeway      = time.Hour // that chunks live longer than their object
	firstBuffer = 16 << 10
)

// Put stores what r gives. ErrFull: the bucket, or the account that it is in, has no room.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opt store.PutOptions) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	if err := s.put(ctx, key, source.New(ctx, r), wholeSeconds(opt.TTL)); err != nil {
		return s.fail(ctx, "put "+key, err)
	}
	return nil
}

// wholeSeconds rounds up to what JetStream can count.
func wholeSeconds(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return 0
	}
	return (ttl + time.Second - 1).Truncate(time.Second)
}

func (s *Store) put(ctx context.Context, key string, r *source.Reader, ttl time.Duration) error {
	first, err := s.begin(r)
	if err != nil {
		return err
	}
	o := object{id: rand.Text(), size: int64(len(first))}
	if o.size < s.chunk {
		return s.commit(ctx, key, o, first, ttl)
	}
	o.chunk = s.chunk
	began := time.Now()
	up := newUpload(ctx, s, o, ttl)
	o.size, err = up.run(ctx, first, r)
	if err == nil && ttl > 0 && time.Since(began) > leeway/2 {
		err = fmt.Errorf("it took longer than %v, and the first bytes would expire too early", leeway/2)
	}
	if err == nil {
		err = s.commit(ctx, key, o, nil, ttl)
	}
	if err != nil {
		up.undo(ctx)
		return err
	}
	up.stop()
	return nil
}

// begin reads at most a chunk into a buffer that grows with what there is.
func (s *Store) begin(r *source.Reader) ([]byte, error) {
	buf := make([]byte, min(firstBuffer, s.chunk))
	for n := 0; ; {
		m, err := r.Fill(buf[n:])
		n += m
		if err != nil || n < len(buf) || int64(n) == s.chunk {
			return buf[:n], err
		}
		grown := make([]byte, min(4*int64(n), s.chunk))
		copy(grown, buf)
		buf = grown
	}
}

// upload stores the chunks of an object.
type upload struct {
	s   *Store
	o   object
	ttl time.Duration
	g   *errgroup.Group

	ctx    context.Context // outlives the caller's a little, so that what was sent is known when it is removed
	stop   context.CancelFunc
	failed context.Context // ends when a chunk cannot be stored
}

func newUpload(ctx context.Context, s *Store, o object, ttl time.Duration) *upload {
	u := &upload{s: s, o: o, ttl: ttl}
	if ttl > 0 {
		u.ttl = ttl + leeway
	}
	u.ctx, u.stop = context.WithCancel(context.WithoutCancel(ctx))
	u.g, u.failed = errgroup.WithContext(u.ctx)
	u.g.SetLimit(window)
	return u
}

// run stores first, which is a whole chunk, and what follows, and returns how many bytes that were.
func (u *upload) run(ctx context.Context, first []byte, r *source.Reader) (size int64, err error) {
	free := make(chan []byte, window+1)
	buf := first
	for n := int64(0); err == nil && len(buf) > 0 && u.failed.Err() == nil; n++ {
		size += int64(len(buf))
		sending, subject := buf, bucket.Chunk(u.s.bucket, u.o.id, n)
		u.g.Go(func() error {
			err := u.s.publish(u.ctx, subject, "", sending, u.ttl)
			free <- sending[:cap(sending)] // never blocks: there are no more of them
			return err
		})
		if int64(len(buf)) < u.s.chunk {
			break
		}
		select {
		case buf = <-free:
		default:
			buf = make([]byte, u.s.chunk)
		}
		var m int
		m, err = r.Fill(buf)
		buf = buf[:m]
	}
	if err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- u.g.Wait() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return size, err
}

// undo removes what was stored, once no more comes. Whoever has no more time does not wait for it.
func (u *upload) undo(ctx context.Context) {
	clean := func() {
		timer := time.AfterFunc(cleanWithin, u.stop)
		defer timer.Stop()
		defer u.stop()
		_ = u.g.Wait()               // why it fails is told already
		_ = u.s.purge(u.ctx, u.o.id) // what stays expires
	}
	if ctx.Err() != nil {
		u.s.cleaning.Go(clean)
		return
	}
	clean()
}

// publish stores one message, unless there is another on its subject than the one with the sequence number last, if that is given.
func (s *Store) publish(ctx context.Context, subject, header string, body []byte, ttl time.Duration, last ...uint64) error {
	opts := []jetstream.PublishOpt{jetstream.WithExpectStream(bucket.Stream(s.bucket))}
	if ttl > 0 {
		opts = append(opts, jetstream.WithMsgTTL(ttl))
	}
	for _, seq := range last {
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(seq))
	}
	return s.try(ctx, subject, func(ctx context.Context) error {
		m := nats.NewMsg(subject)
		m.Data = body
		if header != "" {
			m.Header.Set(headerObject, header)
		}
		_, err := s.js.PublishMsg(ctx, m, opts...)
		return err
	})
}

// commit makes an object appear, and removes the chunks of the one that it replaces.
func (s *Store) commit(ctx context.Context, key string, o object, body []byte, ttl time.Duration) error {
	var last uint64 // message to be replaced; at first we take it that there is none
	var old object
	for {
		err := s.publish(ctx, bucket.Object(s.bucket, key), o.String(), body, ttl, last)
		if code(err) != jetstream.JSErrCodeStreamWrongLastSequence {
			if err == nil && old.chunk > 0 {
				_ = s.purge(ctx, old.id) // what stays expires
			}
			return err
		}
		m, found, err := s.look(ctx, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			last, old = 0, object{}
		case m == nil:
			return err
		case found.id == o.id:
			return nil // it was stored, and the answer was lost
		default:
			last, old = m.Sequence, found
		}
	}
}
