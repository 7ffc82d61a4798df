package redis

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/rueidis"

	"github.com/fnwire/fnwire/fnlib/store"
)

var errReplaced = errors.New("it was replaced or removed while it was being read")

// Get opens an object. Reading fails if the object is replaced, removed or expires before its end.
func (s *Store) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, store.Info, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, store.Info{}, err
	}
	r, err := s.get(ctx, key, offset)
	if err != nil {
		return nil, store.Info{}, s.fail(ctx, "get "+key, err)
	}
	return r, store.Info{Key: key, Size: r.size}, nil
}

func (s *Store) get(ctx context.Context, key string, offset int64) (*reader, error) {
	if offset < 0 {
		return nil, fmt.Errorf("offset %d", offset)
	}
	first := offset / chunkSize
	m, chunk, err := s.chunk(ctx, s.prefix+key, first)
	if err != nil {
		return nil, err
	}
	if m == "" && chunk == nil {
		return nil, store.ErrNotFound
	}
	size, err := parseMeta(m)
	if err != nil {
		return nil, err
	}
	if offset > size {
		return nil, fmt.Errorf("offset %d of %d bytes", offset, size)
	}
	if err := checkChunk(chunk, first, size); err != nil {
		return nil, err
	}
	r := &reader{s: s, key: key, meta: m, size: size, next: first + 1, rest: chunk[min(int64(len(chunk)), offset%chunkSize):]}
	r.ctx, r.cancel = context.WithCancel(ctx)
	return r, nil
}

// chunk returns what the fields meta and i of a hash were at one moment. A field that is not there is empty.
func (s *Store) chunk(ctx context.Context, name string, i int64) (m string, chunk []byte, err error) {
	fields, err := s.do(ctx, s.client.B().Hmget().Key(name).Field(metaField, strconv.FormatInt(i, 10)).Build()).ToArray()
	if err != nil {
		return "", nil, err
	}
	if len(fields) != 2 {
		return "", nil, fmt.Errorf("%d fields instead of 2", len(fields))
	}
	if m, err = fields[0].ToString(); err != nil && !rueidis.IsRedisNil(err) {
		return "", nil, err
	}
	if chunk, err = fields[1].AsBytes(); err != nil && !rueidis.IsRedisNil(err) {
		return "", nil, err
	}
	return m, chunk, nil
}

// checkChunk tells whether chunk i has the length that it has in an object of size bytes.
func checkChunk(chunk []byte, i, size int64) error {
	if want := max(0, min(chunkSize, size-i*chunkSize)); int64(len(chunk)) != want {
		return fmt.Errorf("chunk %d has %d bytes instead of %d", i, len(chunk), want)
	}
	return nil
}

// parseMeta returns the size in what meta made.
func parseMeta(m string) (size int64, err error) {
	parts := strings.Split(m, " ")
	if len(parts) == 3 && parts[0] == metaMagic {
		id, idErr := hex.DecodeString(parts[1])
		size, err = strconv.ParseInt(parts[2], 10, 64)
		if idErr == nil && len(id) == idSize && err == nil && size >= 0 && meta(parts[1], size) == m {
			return size, nil
		}
	}
	return 0, fmt.Errorf("it is not an object of fnwire: its field %s is %.80q", metaField, m)
}

// reader reads an object whose next chunks are under way.
type reader struct {
	s      *Store
	ctx    context.Context
	cancel context.CancelFunc
	key    string
	meta   string
	size   int64
	rest   []byte // of the current chunk
	next   int64  // chunk to ask for
	asked  []chan answer
	wait   sync.WaitGroup
	err    error
}

type answer struct {
	chunk []byte
	err   error
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err == nil {
		r.err = r.ctx.Err()
	}
	if r.err != nil {
		return 0, r.err
	}
	r.ask()
	for len(r.rest) == 0 {
		if len(r.asked) == 0 {
			r.err = io.EOF
			return 0, r.err
		}
		a := <-r.asked[0]
		r.asked = r.asked[1:]
		if a.err != nil {
			r.err = r.s.fail(r.ctx, "get "+r.key, a.err)
			return 0, r.err
		}
		r.rest = a.chunk
		r.ask()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// ask requests chunks until enough are under way.
func (r *reader) ask() {
	for len(r.asked) < ahead && r.next*chunkSize < r.size {
		i, ch := r.next, make(chan answer, 1)
		r.wait.Go(func() {
			m, chunk, err := r.s.chunk(r.ctx, r.s.prefix+r.key, i)
			if err == nil && m != r.meta {
				err = errReplaced
			}
			if err == nil {
				err = checkChunk(chunk, i, r.size)
			}
			ch <- answer{chunk, err}
		})
		r.asked = append(r.asked, ch)
		r.next++
	}
}

// Close ends the requests that are under way.
func (r *reader) Close() error {
	r.cancel()
	r.wait.Wait()
	if r.err == nil {
		r.err = errors.New("store: the reader is closed")
	}
	return nil
}
