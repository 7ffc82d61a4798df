package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/fnwire/fnwire/fnlib/store"
)

const readTries = 3 // of a part whose connection breaks in the middle

var (
	errReplaced = errors.New("it was replaced or removed while it was being read")
	errClosed   = errors.New("store: the reader is closed")
)

// Get opens an object. Reading fails if a large one is replaced or removed before its end.
func (s *Store) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, store.Info, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, store.Info{}, err
	}
	r := &reader{s: s, key: key, name: s.name(key)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	if err := r.open(offset); err != nil {
		r.cancel()
		return nil, store.Info{}, s.fail(ctx, "get "+key, err)
	}
	return r, store.Info{Key: key, Size: r.size}, nil
}

// reader reads an object in ranges: the first as it comes, those after it ahead of time.
type reader struct {
	s      *Store
	ctx    context.Context
	cancel context.CancelFunc
	key    string
	name   *string
	etag   *string
	size   int64
	body   io.ReadCloser // of the first range
	left   int64         // bytes of it
	part   []byte        // of which rest is the end
	rest   []byte
	next   int64 // offset to ask for
	asked  []chan part
	wait   sync.WaitGroup
	err    error
}

type part struct {
	bytes []byte
	err   error
}

func (r *reader) open(offset int64) error {
	if offset < 0 {
		return fmt.Errorf("offset %d", offset)
	}
	out, err := r.request(offset, partSize)
	if _, status := codeOf(err); status == http.StatusRequestedRangeNotSatisfiable {
		return r.openEnd(offset)
	}
	if err != nil {
		return err
	}
	r.body, r.etag = out.Body, out.ETag
	first, last, size, err := parseRange(aws.ToString(out.ContentRange))
	switch {
	case err != nil:
	case first != offset || last-first >= partSize:
		err = fmt.Errorf("the service gave bytes %d to %d where those from %d were asked for", first, last, offset)
	case r.s.expired(out.Metadata):
		err = fmt.Errorf("%w: it has expired", store.ErrNotFound)
	}
	if err != nil {
		_ = out.Body.Close()
		return err
	}
	r.size, r.left, r.next = size, last+1-first, last+1
	return nil
}

// openEnd is for an offset at which there is no byte: the end, or what is beyond it.
func (r *reader) openEnd(offset int64) error {
	head, err := r.s.head(r.ctx, r.name)
	if err != nil {
		return err
	}
	r.size = aws.ToInt64(head.ContentLength)
	switch {
	case r.s.expired(head.Metadata):
		return fmt.Errorf("%w: it has expired", store.ErrNotFound)
	case offset != r.size:
		return fmt.Errorf("offset %d of %d bytes", offset, r.size)
	}
	r.body, r.next = http.NoBody, r.size
	return nil
}

// request asks for up to n bytes from offset on, of the object that the first request found.
func (r *reader) request(offset, n int64) (*s3.GetObjectOutput, error) {
	return r.s.client.GetObject(r.ctx, &s3.GetObjectInput{
		Bucket: &r.s.bucket, Key: r.name, IfMatch: r.etag, Range: aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+n-1)),
	})
}

func (s *Store) head(ctx context.Context, name *string) (*s3.HeadObjectOutput, error) {
	return s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.bucket, Key: name})
}

// expired tells what the metadata says. What is no number was not written by Put.
func (s *Store) expired(metadata map[string]string) bool {
	at, err := strconv.ParseInt(metadata[expiresMeta], 10, 64)
	return err == nil && s.now().After(time.UnixMilli(at))
}

// parseRange reads a Content-Range (RFC 9110, section 14.4) of which all is known.
func parseRange(s string) (first, last, size int64, err error) {
	from, rest, _ := strings.Cut(strings.TrimPrefix(s, "bytes "), "-")
	to, total, _ := strings.Cut(rest, "/")
	ok := strings.HasPrefix(s, "bytes ")
	number := func(field string) int64 {
		n, err := strconv.ParseUint(field, 10, 63)
		ok = ok && err == nil
		return int64(n)
	}
	first, last, size = number(from), number(to), number(total)
	if !ok || first > last || last >= size {
		return 0, 0, 0, fmt.Errorf("the service's Content-Range is %.80q", s)
	}
	return first, last, size, nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err == nil {
		r.err = r.ctx.Err()
	}
	if r.err != nil {
		return 0, r.err
	}
	r.ask()
	n, err := r.read(p)
	if err != nil {
		r.err = err
		if err != io.EOF { //nolint:errorlint // the end itself
			r.err = r.s.fail(r.ctx, "get "+r.key, err)
		}
	}
	return n, r.err
}

func (r *reader) read(p []byte) (int, error) {
	if r.left > 0 {
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.left -= int64(n)
		switch {
		case r.left == 0:
			err = r.body.Close()
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	if len(r.rest) == 0 {
		r.drop()
		if len(r.asked) == 0 {
			return 0, io.EOF
		}
		next := <-r.asked[0]
		r.asked = r.asked[1:]
		r.part, r.rest = next.bytes, next.bytes
		if next.err != nil {
			return 0, next.err
		}
		r.ask()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// drop gives a part's buffer back.
func (r *reader) drop() {
	if r.part != nil {
		r.s.release(r.part)
		r.part, r.rest = nil, nil
	}
}

// ask requests parts until enough are under way.
func (r *reader) ask() {
	for len(r.asked) < ahead && r.next < r.size {
		offset, ch := r.next, make(chan part, 1)
		n := min(partSize, r.size-offset)
		r.wait.Go(func() {
			b, err := r.fetch(offset, n)
			ch <- part{b, err}
		})
		r.asked = append(r.asked, ch)
		r.next += n
	}
}

// fetch returns n bytes of the object, in a buffer of the store's also if it fails.
func (r *reader) fetch(offset, n int64) ([]byte, error) {
	b := r.s.buffer(partSize)[:n]
	for try := 1; ; try++ {
		out, err := r.request(offset, n)
		if _, status := codeOf(err); status == http.StatusPreconditionFailed || absent(err) {
			return b, errReplaced
		}
		if err != nil {
			return b, err // the SDK has tried it several times
		}
		if aws.ToString(out.ETag) != aws.ToString(r.etag) {
			_ = out.Body.Close()
			return b, errReplaced
		}
		_, err = io.ReadFull(out.Body, b)
		if closed := out.Body.Close(); err == nil {
			err = closed
		}
		if err == nil || r.ctx.Err() != nil || try == readTries {
			return b, err
		}
	}
}

// Close ends the requests that are under way.
func (r *reader) Close() error {
	r.cancel()
	_ = r.body.Close() // of a response that nobody wants any more
	r.wait.Wait()
	for _, ch := range r.asked {
		r.s.release((<-ch).bytes)
	}
	r.asked = nil
	r.drop()
	if r.err == nil {
		r.err = errClosed
	}
	return nil
}
