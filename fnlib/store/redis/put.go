package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/source"
)

const (
	metaField = "meta"
	metaMagic = "fnw1"
	idSize    = 16 // bytes
)

// Put stores what r gives. ErrFull: the server has no memory left for it.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opt store.PutOptions) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	var id [idSize]byte
	_, _ = rand.Read(id[:]) // never fails
	u := upload{s: s, id: hex.EncodeToString(id[:]), name: s.prefix + key, ttl: opt.TTL}
	u.tmp = s.prefix + "!" + u.id
	if err := u.run(ctx, r); err != nil {
		return s.fail(ctx, "put "+key, err)
	}
	return nil
}

// upload is a Put under way.
type upload struct {
	s         *Store
	id        string
	name, tmp string // of the hash, and before it is whole
	ttl       time.Duration
	chunks    int
	size      int64
}

func (u *upload) run(ctx context.Context, r io.Reader) error {
	buf := u.s.buffers.Get().(*[chunkSize]byte)
	last, err := u.sendChunks(ctx, r, &buf)
	if err == nil {
		err = u.commit(ctx, last)
	}
	if err == nil {
		u.s.buffers.Put(buf) // else it may still be on its way to the server
	} else if u.chunks > 0 {
		u.discard(ctx)
	}
	return err
}

// sendChunks sends all chunks that are full, and returns the rest, in buf.
func (u *upload) sendChunks(ctx context.Context, r io.Reader, buf **[chunkSize]byte) ([]byte, error) {
	sending, ctx := errgroup.WithContext(ctx)
	sending.SetLimit(ahead)
	src := source.New(ctx, r)
	for {
		n, err := src.Fill((*buf)[:])
		if err != nil || n < chunkSize {
			if failed := sending.Wait(); failed != nil {
				err = failed // of which the source saw no more than that the context ended
			}
			u.size += int64(n)
			return (*buf)[:n], err
		}
		full, field := *buf, strconv.Itoa(u.chunks)
		sending.Go(func() error {
			err := u.sendChunk(ctx, field, full[:])
			if err == nil {
				u.s.buffers.Put(full)
			}
			return err
		})
		u.chunks++
		u.size += chunkSize
		*buf = u.s.buffers.Get().(*[chunkSize]byte)
	}
}

func (u *upload) sendChunk(ctx context.Context, field string, chunk []byte) error {
	return u.s.again(ctx, func() error {
		b := u.s.client.B()
		return u.s.atomically(ctx,
			b.Hset().Key(u.tmp).FieldValue().FieldValue(field, rueidis.BinaryString(chunk)).Build(),
			b.Pexpire().Key(u.tmp).Milliseconds(lease.Milliseconds()).Build())
	})
}

// commit adds what is left and gives the hash its name.
func (u *upload) commit(ctx context.Context, last []byte) error {
	b := u.s.client.B()
	rest := func() rueidis.Completed {
		fields := b.Hset().Key(u.tmp).FieldValue().FieldValue(metaField, meta(u.id, u.size))
		if len(last) > 0 {
			fields = fields.FieldValue(strconv.Itoa(u.chunks), rueidis.BinaryString(last))
		}
		return fields.Build()
	}
	expire := func() rueidis.Completed {
		if u.ttl <= 0 {
			return b.Persist().Key(u.tmp).Build()
		}
		return b.Pexpire().Key(u.tmp).Milliseconds(max(1, u.ttl.Milliseconds())).Build()
	}
	rename := func() rueidis.Completed { return b.Rename().Key(u.tmp).Newkey(u.name).Build() }
	if u.chunks == 0 { // the whole of it in one round trip, which may be done twice
		return u.s.again(ctx, func() error { return u.s.atomically(ctx, rest(), expire(), rename()) })
	}
	if err := u.complete(ctx, rest(), len(last) > 0); err != nil {
		return err
	}
	return u.s.atomically(ctx, expire(), rename())
}

// complete sends the last fields and sees to it that no earlier one has expired meanwhile.
func (u *upload) complete(ctx context.Context, rest rueidis.Completed, withChunk bool) error {
	want := int64(u.chunks + 1)
	if withChunk {
		want++
	}
	b := u.s.client.B()
	var have int64
	for i, r := range u.s.doMulti(ctx, rest, b.Pexpire().Key(u.tmp).Milliseconds(lease.Milliseconds()).Build(), b.Hlen().Key(u.tmp).Build()) {
		if err := r.Error(); err != nil {
			return err
		}
		if i == 2 {
			have, _ = r.AsInt64()
		}
	}
	if have != want {
		return fmt.Errorf("%d of %d chunks are there: the reader paused for %v, or the server drops what has not expired", have, want, lease)
	}
	return nil
}

// discard removes the chunks of a Put that failed. Where it cannot, they expire.
func (u *upload) discard(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardWithin)
	defer cancel()
	_ = u.s.unlink(ctx, u.tmp)
}

// atomically runs commands in one transaction. One that the server refuses stops them all.
func (s *Store) atomically(ctx context.Context, commands ...rueidis.Completed) error {
	all := append([]rueidis.Completed{s.client.B().Multi().Build()}, commands...)
	answers := s.doMulti(ctx, append(all, s.client.B().Exec().Build())...)
	for _, a := range answers {
		if err := a.Error(); err != nil {
			return err
		}
	}
	results, err := answers[len(answers)-1].ToArray()
	if err != nil {
		return err
	}
	for i := range results {
		if err := results[i].Error(); err != nil {
			return err
		}
	}
	return nil
}

func meta(id string, size int64) string {
	return metaMagic + " " + id + " " + strconv.FormatInt(size, 10)
}
