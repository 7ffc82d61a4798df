package fnlib_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
)

// States around the size up to which they go in one write arrive as they are, whatever they are read from.
func TestBriefStates(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	for _, size := range []int{0, 1, 2 << 10, 2<<10 + 1, 12 << 10, 12<<10 + 1} {
		state := randomBytes(size)
		for name, r := range map[string]io.Reader{
			"bytes.Reader": bytes.NewReader(state), "bytes.Buffer": bytes.NewBuffer(bytes.Clone(state)), "strings.Reader": strings.NewReader(string(state)),
			"another": io.MultiReader(bytes.NewReader(state)),
		} {
			sent := make(chan error, 1)
			go func() {
				_, err := a.Send(t.Context(), "b", name, r)
				sent <- err
			}()
			in, err := b.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(in)
			if err != nil || !bytes.Equal(got, state) || in.Key != name || in.From != "a" {
				t.Errorf("%d bytes of a %s: %d bytes of %q from %q, %v", size, name, len(got), in.Key, in.From, err)
			}
			if err := in.Accept(); err != nil {
				t.Error(err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		}
	}
}

// A brief state whose bytes must wait, since the link is full of states that nobody takes, shows its header: its receiver finds it by its key.
func TestBriefStateBesideBacklog(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var backlog sync.WaitGroup
	defer backlog.Wait()
	defer cancel()
	const full = 8 << 20 / (512 << 10)
	for range full {
		backlog.Go(func() { _, _ = a.Send(ctx, "b", "unwanted", bytes.NewReader(make([]byte, 1<<20))) })
	}
	for fnlib.PendingOf(b) < full {
		time.Sleep(time.Millisecond)
	}
	within(t, 10*time.Second, "the state that is wanted", func() {
		sent := make(chan error, 1)
		go func() {
			_, err := a.Send(ctx, "b", "wanted", bytes.NewReader(make([]byte, 10<<10)))
			sent <- err
		}()
		in, err := b.Receive(ctx, fnlib.Key("wanted"))
		if err != nil {
			t.Error(err)
			return
		}
		if n, err := io.Copy(io.Discard, in); n != 10<<10 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		if err := in.Accept(); err != nil {
			t.Error(err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}
