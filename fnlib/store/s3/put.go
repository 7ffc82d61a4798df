package s3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/source"
)

// Put stores what r gives. ErrFull: the service has no room, or takes no object of that size.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opt store.PutOptions) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	if err := s.put(ctx, s.name(key), source.New(ctx, r), opt); err != nil {
		return s.fail(ctx, "put "+key, err)
	}
	return nil
}

// put sends what fits into one request so, and the rest in parts. Buffers of what failed are not used again: the connection may not be
// done with them.
func (s *Store) put(ctx context.Context, name *string, src *source.Reader, opt store.PutOptions) error {
	small := s.small.Get().(*[smallSize]byte)
	n, err := src.Fill(small[:])
	if err == nil && n < smallSize {
		err = s.putWhole(ctx, name, small[:n], opt.TTL)
	}
	if err != nil || n < smallSize {
		if err == nil {
			s.small.Put(small)
		}
		return err
	}
	size := partSizeFor(opt.Size)
	first := s.buffer(size)
	n = copy(first, small[:])
	s.small.Put(small)
	more, err := src.Fill(first[n:])
	if n += more; err != nil {
		return err
	}
	if n == len(first) {
		u := upload{s: s, name: name, ttl: opt.TTL, size: size}
		return u.run(ctx, src, first)
	}
	if err := s.putWhole(ctx, name, first[:n], opt.TTL); err != nil {
		return err
	}
	s.release(first)
	return nil
}

// partSizeFor returns bytes: the usual ones unless an object of size bytes would have too many parts then.
func partSizeFor(size int64) int64 { return max(partSize, (size+maxParts-1)/maxParts) }

func (s *Store) buffer(size int64) []byte {
	if size == partSize {
		return s.parts.Get().(*[partSize]byte)[:]
	}
	return make([]byte, size)
}

func (s *Store) release(b []byte) {
	if cap(b) == partSize {
		s.parts.Put((*[partSize]byte)(b[:partSize]))
	}
}

func (s *Store) expiry(ttl time.Duration) map[string]string {
	if ttl <= 0 {
		return nil
	}
	return map[string]string{expiresMeta: strconv.FormatInt(s.now().Add(ttl).UnixMilli(), 10)}
}

func (s *Store) putWhole(ctx context.Context, name *string, state []byte, ttl time.Duration) error {
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &s.bucket, Key: name, Body: bytes.NewReader(state), ContentLength: aws.Int64(int64(len(state))), Metadata: s.expiry(ttl),
	}, bodyByTLS)
	return err
}

// bodyByTLS leaves it to TLS that a body arrives as it was sent, where there is TLS and no checksum: to hash it for the signature
// is half of what a Put costs this end, and the other has to do it again.
func bodyByTLS(o *s3.Options) {
	plain := strings.HasPrefix(aws.ToString(o.BaseEndpoint), "http:")
	if !plain && o.RequestChecksumCalculation == aws.RequestChecksumCalculationWhenRequired {
		o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
	}
}

// upload is a Put in parts.
type upload struct {
	s    *Store
	name *string
	ttl  time.Duration
	size int64 // bytes of a part
	id   *string
	sum  types.ChecksumAlgorithm // of each part, or none

	mu   sync.Mutex // guards done
	done []types.CompletedPart
}

// run uploads what is in first and what src gives after it.
func (u *upload) run(ctx context.Context, src *source.Reader, first []byte) error {
	// An upload must say at its beginning and at its end what the SDK says with each part.
	if u.s.client.Options().RequestChecksumCalculation == aws.RequestChecksumCalculationWhenSupported {
		u.sum = types.ChecksumAlgorithmCrc32
	}
	created, err := u.s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &u.s.bucket, Key: u.name, Metadata: u.s.expiry(u.ttl), ChecksumAlgorithm: u.sum,
	}, bodyByTLS)
	if err != nil {
		return err
	}
	u.id = created.UploadId
	if err = u.send(ctx, src, first); err == nil {
		_, err = u.s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &u.s.bucket, Key: u.name, UploadId: u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: u.done},
		})
	}
	if err != nil {
		u.abort(ctx)
	}
	return err
}

// send uploads all parts, some at once, and returns when none is under way any more.
func (u *upload) send(ctx context.Context, src *source.Reader, part []byte) error {
	sending, ctx := errgroup.WithContext(ctx)
	sending.SetLimit(ahead)
	var failed error
	for n := len(part); n > 0; {
		if len(u.done) == maxParts {
			failed = fmt.Errorf("%w: more than %d parts of %d bytes; tell PutOptions.Size", store.ErrFull, maxParts, u.size)
			break
		}
		u.mu.Lock()
		u.done = append(u.done, types.CompletedPart{})
		number := len(u.done)
		u.mu.Unlock()
		full, body := part, part[:n]
		sending.Go(func() error {
			err := u.sendPart(ctx, number, body)
			if err == nil {
				u.s.release(full)
			}
			return err
		})
		if n < len(part) || ctx.Err() != nil {
			break
		}
		part = u.s.buffer(u.size)
		if n, failed = src.Fill(part); failed != nil || n == 0 {
			u.s.release(part)
			break
		}
	}
	if err := sending.Wait(); err != nil {
		return err // the source saw no more of it than that the context ended
	}
	return failed
}

func (u *upload) sendPart(ctx context.Context, number int, body []byte) error {
	sent, err := u.s.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &u.s.bucket, Key: u.name, UploadId: u.id, PartNumber: aws.Int32(int32(number)),
		Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))), ChecksumAlgorithm: u.sum,
	}, bodyByTLS)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	done := types.CompletedPart{ETag: sent.ETag, PartNumber: aws.Int32(int32(number))}
	if u.sum != "" {
		done.ChecksumCRC32 = sent.ChecksumCRC32
	}
	u.done[number-1] = done
	return nil
}

// abort removes the parts. Where it cannot, the bucket's lifecycle rule does.
func (u *upload) abort(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortWithin)
	defer cancel()
	_, _ = u.s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &u.s.bucket, Key: u.name, UploadId: u.id})
}
