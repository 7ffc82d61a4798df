package open_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/open"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// BenchmarkStores puts and gets states of several sizes, one after the other, with each driver and its server on this machine.
func BenchmarkStores(b *testing.B) {
	for name, url := range map[string]func(*testing.B) string{
		"file":  func(b *testing.B) string { return "file://" + b.TempDir() },
		"nats":  rendezvous,
		"redis": func(b *testing.B) string { return servertest.Redis(b).URL },
		"s3":    func(b *testing.B) string { return servertest.VersityGW(b).URL },
	} {
		b.Run(name, func(b *testing.B) {
			s, err := open.URL(b.Context(), url(b))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			for _, size := range []int{1 << 10, 64 << 10, 1 << 20, 16 << 20} {
				state := bytes.Repeat([]byte("state-of-"), size/9+1)[:size]
				b.Run(fmt.Sprintf("put/%dKiB", size>>10), func(b *testing.B) {
					b.SetBytes(int64(size))
					for b.Loop() {
						if err := s.Put(b.Context(), "k", bytes.NewReader(state), store.PutOptions{Size: int64(size)}); err != nil {
							b.Fatal(err)
						}
					}
				})
				b.Run(fmt.Sprintf("get/%dKiB", size>>10), func(b *testing.B) {
					b.SetBytes(int64(size))
					for b.Loop() {
						if err := discard(b.Context(), s, int64(size)); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		})
	}
}

// rendezvous has the environment name one that keeps stores.
func rendezvous(b *testing.B) string {
	s, err := server.New(server.Config{Open: true, StoreBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- nil
		b.Fatal(err)
	}
	b.Setenv("FNWIRE_URL", s.URL())
	b.Setenv("FNWIRE_JOB_KEY", job.NewKey().Encode())
	return "nats:"
}

// discard reads an object into nothing.
func discard(ctx context.Context, s store.Store, size int64) error {
	r, _, err := s.Get(ctx, "k", 0)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{io.Discard}, r, make([]byte, 32<<10))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, r.Close())
}

type onlyWriter struct{ io.Writer }
