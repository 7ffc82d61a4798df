package fnlib_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/internal/natsim"
	"github.com/fnwire/fnwire/transport"
)

// States that their senders give up while nobody takes them leave the link as it was: neither its window nor its streams are used up.
func TestGivenUpStatesLeaveTheLink(t *testing.T) {
	for name, c := range map[string]struct{ states, size int }{
		"window":  {80, 1 << 20}, // of which half a MiB each is under way
		"streams": {5000, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			a, b := w.join(t, "a"), w.join(t, "b")
			if _, err := a.Ping(t.Context(), "b", fnlib.Auto); err != nil {
				t.Fatal(err)
			}
			state := randomBytes(c.size)
			for at := 0; at < c.states; {
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for range min(c.states-at, 256, 8<<20/c.size) {
					at++
					wg.Go(func() {
						if _, err := a.Send(ctx, "b", "unwanted", bytes.NewReader(state)); !errors.Is(err, context.Canceled) {
							t.Error(err)
						}
					})
				}
				for fnlib.PendingOf(b) < min(at, 8<<20/c.size, 100) && at <= 256 { // so that at least the first ones have come
					time.Sleep(time.Millisecond)
				}
				time.Sleep(20 * time.Millisecond) // for as much to arrive as may
				cancel()
				wg.Wait()
			}
			within(t, 20*time.Second, "a wanted state", func() {
				sent := make(chan error, 1)
				go func() {
					_, err := a.Send(t.Context(), "b", "wanted", bytes.NewReader(make([]byte, 4<<20)))
					sent <- err
				}()
				in, err := b.Receive(t.Context(), fnlib.Key("wanted"))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, in); err != nil {
					t.Error(err)
				}
				if err := errors.Join(in.Accept(), <-sent); err != nil {
					t.Error(err)
				}
			})
			for range 1000 {
				if fnlib.PendingOf(b) == 0 {
					return
				}
				time.Sleep(time.Millisecond)
			}
			t.Errorf("%d states that were given up still wait", fnlib.PendingOf(b))
		})
	}
}

// A receiver may take many states before it reads any: those that it does not read do not hold up the one that it reads.
func TestTakenAndNotRead(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	const states = 100
	errs := make(chan error, states)
	for i := range states {
		go func() {
			_, err := a.Send(t.Context(), "b", fmt.Sprint(i), bytes.NewReader(randomBytes(1<<20)))
			errs <- err
		}()
	}
	within(t, 60*time.Second, "reading what was taken", func() {
		var all []*fnlib.Incoming
		for range states {
			in, err := b.Receive(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			all = append(all, in)
		}
		for _, in := range all {
			if _, err := io.Copy(io.Discard, in); err != nil {
				t.Error(err)
			}
			if err := in.Accept(); err != nil {
				t.Error(err)
			}
		}
		for range states {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// An application may take all states that are stored for it before it accepts any.
func TestManyStoredTakenTogether(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	counted := &counting{Store: s}
	a := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store = s })
	const n = 1100 // more than wait at once
	storeMany(t, a, n)
	b := w.joinWith(t, "b", func(c *fnlib.Config) { c.Store = counted })
	for fnlib.PendingOf(b) < 1024 {
		time.Sleep(time.Millisecond)
	}
	var all []*fnlib.Incoming
	within(t, 30*time.Second, "taking all", func() {
		for range n {
			in, err := b.Receive(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			all = append(all, in)
		}
	})
	for _, in := range all {
		if _, err := io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
		if err := in.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	if keys := objects(t, s); len(keys) != 0 {
		t.Errorf("%d objects left", len(keys))
	}
	if gets := counted.count("get"); gets > 3*n {
		t.Errorf("%d states took %d requests to read and %d to list", n, gets, counted.count("list"))
	}
}

// storeMany stores states for b, with keys of their own.
func storeMany(t *testing.T, a *fnlib.Node, n int) {
	t.Helper()
	var g errgroup.Group
	g.SetLimit(16)
	for i := range n {
		g.Go(func() error {
			_, err := a.SendWith(t.Context(), "b", fmt.Sprint(i), strings.NewReader("x"), fnlib.SendOptions{StoreOnly: true})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// counting counts calls of a store, and can be told to let nothing be deleted.
type counting struct {
	store.Store
	mu    sync.Mutex
	calls map[string]int
	keeps bool
}

func (c *counting) note(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = make(map[string]int)
	}
	c.calls[what]++
}

func (c *counting) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[what]
}

func (c *counting) Put(ctx context.Context, key string, r io.Reader, opt store.PutOptions) error {
	c.note("put")
	return c.Store.Put(ctx, key, r, opt)
}

func (c *counting) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, store.Info, error) {
	c.note("get")
	return c.Store.Get(ctx, key, offset)
}

func (c *counting) List(ctx context.Context, prefix string, each func(store.Info) bool) error {
	c.note("list")
	return c.Store.List(ctx, prefix, each)
}

func (c *counting) Delete(ctx context.Context, key string) error {
	c.note("delete")
	c.mu.Lock()
	keeps := c.keeps
	c.mu.Unlock()
	if keeps {
		return fmt.Errorf("%w: deletes", store.ErrDenied)
	}
	return c.Store.Delete(ctx, key)
}

// A store that lets nothing be deleted keeps no state from the application, and brings none twice.
func TestStoreThatKeeps(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	keeping := &counting{Store: s, keeps: true}
	a := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store = s })
	const n = 1100
	storeMany(t, a, n)
	b := w.joinWith(t, "b", func(c *fnlib.Config) { c.Store = keeping })
	for fnlib.PendingOf(b) < 1024 {
		time.Sleep(time.Millisecond)
	}
	seen := make(map[string]bool)
	within(t, 30*time.Second, "receiving all", func() {
		for range n {
			in, _, err := accept(t.Context(), b)
			if !errors.Is(err, fnlib.ErrStore) {
				t.Errorf("accepted a state that stays: %v", err)
				return
			}
			if seen[in.Key] {
				t.Errorf("state %q came twice", in.Key)
			}
			seen[in.Key] = true
		}
	})
}

// A state that is given to the store while its sender's last stream is still on its way is there once.
func TestStoredAndResumed(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store = s }
	a, b := w.joinWith(t, "a", with), w.joinWith(t, "b", with)
	found := func() {
		for fnlib.PendingOf(b) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	var reset *transport.ResetError
	if err := fnlib.StoreAndResume(t.Context(), a, "b", found); !errors.As(err, &reset) {
		t.Errorf("%v", err)
	}
	if _, got, err := accept(t.Context(), b); err != nil || string(got) != "state" {
		t.Errorf("%q, %v", got, err)
	}
	if n := fnlib.PendingOf(b); n > 0 {
		t.Errorf("%d states wait", n)
	}
}

// Sends that wait take little memory, each.
func TestSmallSendsAreSmall(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	const states = 2000
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var g errgroup.Group
	for range states {
		g.Go(func() error {
			_, err := a.Send(t.Context(), "b", "k", bytes.NewReader(make([]byte, 1000)))
			return err
		})
	}
	for fnlib.PendingOf(b) < states {
		time.Sleep(time.Millisecond)
	}
	runtime.GC()
	runtime.ReadMemStats(&during)
	if took := (int64(during.HeapAlloc) - int64(before.HeapAlloc)) / states; took > 64<<10 {
		t.Errorf("%d KiB for each state, at both ends", took>>10)
	}
	for range states {
		if _, _, err := accept(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// What turns out to be changed in the middle of a stored state is told once, and keeps nothing back.
func TestStoredStateChangedInside(t *testing.T) {
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store = s }
	synctest.Test(t, func(t *testing.T) {
		fa, fb := newBubble(t, rtt).functions(true, [2]*natsim.NAT{})
		a, _ := fa.join(with)
		put := func(key string) {
			if _, err := a.SendWith(t.Context(), "b", key, bytes.NewReader(randomBytes(300_000)), fnlib.SendOptions{StoreOnly: true}); err != nil {
				t.Fatal(err)
			}
		}
		put("changed")
		key := objects(t, s)[0]
		r, _, err := s.Get(t.Context(), key, 0)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		sealed[200_000] ^= 1
		if err := s.Put(t.Context(), key, bytes.NewReader(sealed), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		put("whole")
		b, _ := fb.join(with)
		for _, want := range []error{fnlib.ErrStore, nil} {
			if in, _, err := accept(t.Context(), b); !errors.Is(err, want) {
				t.Errorf("%q: %v", in.Key, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if in, err := b.Receive(ctx); err == nil {
			t.Errorf("%q came again", in.Key)
		}
	})
}
