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
	"time"

	"github.com/fnwire/fnwire/fnlib"
)

// A state whose links break goes on where it was, and is accepted once.
func TestStateOutlivesItsLinks(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	for _, size := range []int64{-1, 48 << 20} {
		state := randomBytes(48 << 20)
		sent := make(chan error, 1)
		var rc fnlib.Receipt
		go func() {
			var err error
			// Not an io.Seeker: what was read of it is gone.
			rc, err = a.SendWith(t.Context(), "b", "k", io.MultiReader(bytes.NewReader(state)), fnlib.SendOptions{Size: max(size, 0)})
			sent <- err
		}()
		in, err := b.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for i := range 4 {
			if _, err := io.CopyN(&got, in, 10<<20); err != nil {
				t.Fatal(err)
			}
			n := a
			if i%2 == 1 {
				n = b
			}
			if fnlib.BreakLinks(n) == 0 {
				t.Fatal("no link to break")
			}
		}
		if _, err := io.Copy(&got, in); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), state) {
			t.Fatalf("%d bytes differ from those that were sent", got.Len())
		}
		fnlib.BreakLinks(b) // before the receipt
		if err := in.Accept(); err != nil {
			t.Fatal(err)
		}
		fnlib.BreakLinks(b) // with the receipt under way
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if rc.Bytes != int64(len(state)) || rc.Stored != "" {
			t.Errorf("receipt %+v", rc)
		}
	}
	if n := fnlib.PendingOf(b); n != 0 {
		t.Errorf("%d states came twice", n)
	}
}

// Many states go on at once while their links break again and again: each arrives once, whole.
func TestManyStatesOutliveTheirLinks(t *testing.T) {
	w := newWorld(t, 1)
	nodes := []*fnlib.Node{w.join(t, "a"), w.join(t, "b"), w.join(t, "c")}
	const each = 20
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for _, n := range nodes {
		for i := range each {
			to := nodes[(int(n.Name()[0]-'a')+1+i%2)%3].Name()
			wg.Go(func() {
				key := fmt.Sprintf("%s-%s-%d", n.Name(), to, i)
				if _, err := n.Send(ctx, to, key, strings.NewReader(strings.Repeat(key, 100_000))); err != nil {
					t.Error(err)
					cancel() // lest somebody waits for it
				}
			})
			wg.Go(func() {
				// A state may break off for good at its receiver and not at its sender, and come again.
				for {
					in, err := n.Receive(ctx)
					if err != nil {
						t.Error(err)
						return
					}
					b, err := io.ReadAll(in)
					if err != nil {
						continue
					}
					if string(b) != strings.Repeat(in.Key, 100_000) {
						t.Errorf("%s: wrong bytes", in.Key)
					}
					mu.Lock()
					got[in.Key]++
					mu.Unlock()
					if err := in.Accept(); err != nil {
						t.Error(err)
					}
					return
				}
			})
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; i < 15; i++ {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				fnlib.BreakLinks(nodes[i%3])
			}
		}
	}()
	wg.Wait()
	close(stop)
	<-stopped
	for key, n := range got {
		if n != 1 {
			t.Errorf("%s came %d times", key, n)
		}
	}
	if len(got) != 3*each {
		t.Errorf("%d states, want %d", len(got), 3*each)
	}
}

// A state outlives links that break as soon as they are up, one after another.
func TestLinksThatBreakAtOnce(t *testing.T) {
	for at, breaks := range []string{"sender", "receiver"} {
		t.Run(breaks, func(t *testing.T) {
			w := newWorld(t, 1)
			nodes := []*fnlib.Node{w.join(t, "a"), w.join(t, "b")}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r, end := io.Pipe()
			var wg sync.WaitGroup
			wg.Go(func() {
				for broken := 0; broken < 5 && ctx.Err() == nil; runtime.Gosched() {
					broken += fnlib.BreakLinks(nodes[at])
				}
				_ = end.Close()
			})
			wg.Go(func() {
				in, err := nodes[1].Receive(ctx)
				for err == nil { // one that broke off for good at its receiver comes again
					if _, err = io.Copy(io.Discard, in); err == nil {
						if err = in.Accept(); err == nil {
							return
						}
					}
					in, err = nodes[1].Receive(ctx)
				}
				t.Error(err)
			})
			if _, err := nodes[0].Send(ctx, "b", "k", r); err != nil {
				t.Error(err)
				cancel()
			}
			wg.Wait()
		})
	}
}

// Each receiver gets what it asked for, whatever else waits.
func TestReceiveChooses(t *testing.T) {
	w := newWorld(t, 1)
	a, b, c := w.join(t, "a"), w.join(t, "b"), w.join(t, "c")
	var wg sync.WaitGroup
	send := func(n *fnlib.Node, key string) {
		wg.Go(func() {
			if _, err := n.Send(t.Context(), "c", key, strings.NewReader(n.Name()+key)); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 100 { // more than any queue that would hold the others up
		send(a, fmt.Sprint("noise-", i))
	}
	send(a, "part-1")
	send(b, "part-1")
	send(b, "other")
	want := func(want string, filters ...fnlib.Filter) {
		t.Helper()
		in, err := c.Receive(t.Context(), filters...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(in)
		if err != nil || string(got) != want {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
		if err := in.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	want("bpart-1", fnlib.From("b"), fnlib.Key("part-1"))
	want("apart-1", fnlib.KeyPrefix("part-"))
	want("bother", fnlib.From("b"))
	n := 0
	for in, err := range c.States(t.Context(), fnlib.From("a")) {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, in); err != nil {
			t.Fatal(err)
		}
		if err := in.Accept(); err != nil {
			t.Fatal(err)
		}
		if n++; n == 100 {
			break
		}
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range c.States(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
}

// A state that was settled is not delivered again, and a sender that asks again is told the same.
func TestSettledOnce(t *testing.T) { fnlib.CheckSettledOnce(t) }

// A small state is not held up by big ones to the same receiver, read or not.
func TestSmallBesideBig(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() { _, _ = a.Send(ctx, "b", "big", io.MultiReader(&endless{})) })
		if i%2 == 0 {
			wg.Go(func() {
				in, err := b.Receive(ctx, fnlib.Key("big"))
				if err == nil {
					_, _ = io.Copy(io.Discard, in)
				}
			})
		}
	}
	for range 20 {
		wg.Go(func() {
			in, err := b.Receive(t.Context(), fnlib.Key("small"))
			if err == nil {
				_, err = io.Copy(io.Discard, in)
			}
			if err = errors.Join(err, in.Accept()); err != nil {
				t.Error(err)
			}
		})
		if _, err := a.Send(t.Context(), "b", "small", strings.NewReader("x")); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
}

type endless struct{}

func (*endless) Read(b []byte) (int, error) { return len(b), nil }
