package natsobj_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/fnlib/store"
)

var benchSizes = []int{1 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20}

func label(bytes int) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%dMiB", bytes>>20)
	}
	return fmt.Sprintf("%dKiB", bytes>>10)
}

// benchmark puts an object and gets it, over and over, with a new key each time.
func benchmark(b *testing.B, put func(ctx context.Context, key string, r io.Reader) error, get func(ctx context.Context, key string) (io.ReadCloser, error),
	remove func(ctx context.Context, key string) error,
) {
	for _, size := range benchSizes {
		b.Run(label(size), func(b *testing.B) {
			state := make([]byte, size)
			if _, err := rand.Read(state); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				key := fmt.Sprint("k/", i)
				if err := put(b.Context(), key, bytes.NewReader(state)); err != nil {
					b.Fatal(err)
				}
				r, err := get(b.Context(), key)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(size) {
					b.Fatal(n, err)
				}
				_ = r.Close()
				b.StopTimer()
				if err := remove(b.Context(), key); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkStore(b *testing.B) {
	url := startNATS(b, nil).ClientURL()
	for _, chunk := range []int64{64 << 10, 128 << 10, 256 << 10, 512 << 10, 1<<20 - (4 << 10) /* NATS' limit */} {
		b.Run("chunk="+label(int(chunk)), func(b *testing.B) {
			s := open(b, url)
			s.SetChunk(chunk)
			defer func() { _ = s.Close() }()
			benchmark(b, func(ctx context.Context, key string, r io.Reader) error {
				return s.Put(ctx, key, r, store.PutOptions{})
			}, func(ctx context.Context, key string) (io.ReadCloser, error) {
				r, _, err := s.Get(ctx, key, 0)
				return r, err
			}, s.Delete)
		})
	}
}

// BenchmarkObjectStore is nats.go's own object store, to compare with.
func BenchmarkObjectStore(b *testing.B) {
	nc, err := nats.Connect(startNATS(b, nil).ClientURL())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		b.Fatal(err)
	}
	s, err := js.CreateObjectStore(b.Context(), jetstream.ObjectStoreConfig{Bucket: "b"})
	if err != nil {
		b.Fatal(err)
	}
	for _, chunk := range []uint32{128 << 10, 512 << 10} {
		b.Run("chunk="+label(int(chunk)), func(b *testing.B) {
			benchmark(b, func(ctx context.Context, key string, r io.Reader) error {
				_, err := s.Put(ctx, jetstream.ObjectMeta{Name: key, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunk}}, r)
				return err
			}, func(ctx context.Context, key string) (io.ReadCloser, error) { return s.Get(ctx, key) }, s.Delete)
		})
	}
}
