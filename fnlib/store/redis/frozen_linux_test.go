package redis_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/redis"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

// TestFrozenServer holds that calls end with their context while the server is stopped, and that all is well when it goes on.
func TestFrozenServer(t *testing.T) {
	server := servertest.Redis(t)
	s := opened(t, server.URL)
	const size = 20 * redis.ChunkSize
	put(t, s, "k", content(size), 0)
	in, _, err := s.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	thaw := servertest.Freeze(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, getErr := s.Get(ctx, "k", 0)
	for what, err := range map[string]error{
		"get":    getErr,
		"put":    s.Put(ctx, "k", bytes.NewReader(content(10)), store.PutOptions{}),
		"chunks": s.Put(ctx, "k", bytes.NewReader(content(size)), store.PutOptions{}),
		"delete": s.Delete(ctx, "k"),
		"list":   s.List(ctx, "", func(store.Info) bool { return true }),
	} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	thaw()
	_, err = io.Copy(io.Discard, in)
	if err := errors.Join(err, in.Close()); err != nil {
		t.Errorf("the reader that waited: %v", err)
	}
	put(t, s, "k", content(size), 0)
	read(t, s, "k", content(size))
}
