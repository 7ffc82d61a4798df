package storetest

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
)

// Frozen holds that calls end with their context while the server is stopped, and that all is well when it goes on. size is that of an
// object which takes the driver many requests; freeze stops the server and returns how it goes on.
func Frozen(t *testing.T, st store.Store, size int64, freeze func() (thaw func())) {
	t.Helper()
	put(t, st, "k", 1, size, store.PutOptions{})
	in, _, err := st.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	thaw := freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, getErr := st.Get(ctx, "k", 0)
	for what, err := range map[string]error{
		"get":    getErr,
		"put":    st.Put(ctx, "k", content(2, 10), store.PutOptions{}),
		"chunks": st.Put(ctx, "k", content(2, size), store.PutOptions{}),
		"delete": st.Delete(ctx, "k"),
		"list":   st.List(ctx, "", func(store.Info) bool { return true }),
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
	put(t, st, "k", 3, size, store.PutOptions{})
	expect(t, st, "k", 3, size, 0)
}
