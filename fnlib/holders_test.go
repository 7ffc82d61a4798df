package fnlib_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/natsim"
)

// hold gets a state to keep it, and returns the ref that says so.
func hold(t testing.TB, n *fnlib.Node, ref fnlib.Ref) fnlib.Ref {
	t.Helper()
	g, err := n.Get(t.Context(), ref, fnlib.GetOptions{Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := io.Copy(io.Discard, g); err != nil {
		t.Fatal(err)
	}
	if ref, err = g.Ref(); err != nil {
		t.Fatal(err)
	}
	return ref
}

// TestSeveralHolders: who has got a state can be asked for it, beside the first holder and when that is gone.
func TestSeveralHolders(t *testing.T) {
	w := newWorld(t, 1)
	with := func(c *fnlib.Config) { c.PutMemory = 64 << 20 }
	a, b, c := w.joinWith(t, "a", with), w.joinWith(t, "b", with), w.join(t, "c")
	state := randomBytes(40<<20 + 9)
	first := put(t, a, state, fnlib.PutOptions{})
	ref := hold(t, b, first)
	if again := hold(t, b, first); again == first || fnlib.PutMemoryOf(b) != int64(len(state)) {
		t.Errorf("held twice: %d bytes", fnlib.PutMemoryOf(b))
	}
	for _, name := range []string{"a", "b"} { // so that both links are up
		if _, err := c.Ping(t.Context(), name, fnlib.Auto); err != nil {
			t.Fatal(err)
		}
	}
	g, err := c.Get(t.Context(), ref, fnlib.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	got, err := io.ReadAll(g)
	from := g.From()
	if err != nil || !bytes.Equal(got, state) || from["a"] == 0 || from["b"] == 0 || from["a"]+from["b"] != int64(len(state)) {
		t.Errorf("%d bytes, %v: %v", len(got), err, from)
	}

	g, err = c.Get(t.Context(), ref, fnlib.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	head := make([]byte, 10<<20)
	if _, err := io.ReadFull(g, head); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	rest, err := io.ReadAll(g)
	if err != nil || !bytes.Equal(head, state[:len(head)]) || !bytes.Equal(rest, state[len(head):]) {
		t.Errorf("%d bytes, %v", len(head)+len(rest), err)
	}
	wantGot(t, c, ref, state)
	wantGot(t, b, ref, state)
	wantNot(t, c, first, fnlib.ErrNotFound)
}

// TestHolderDiesSilently: the blocks that were asked of it are asked of the other after half a second.
func TestHolderDiesSilently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		fa, fb := w.functions(true, [2]*natsim.NAT{})
		id, err := ident.New()
		if err != nil {
			t.Fatal(err)
		}
		fc := &function{w: w, name: "c", id: id, socket: w.socket(netip.MustParseAddrPort("203.0.113.3:4000"), nil)}
		a, _ := fa.join()
		b, _ := fb.join()
		c, _ := fc.join()
		state := randomBytes(3 << 20)
		ref := hold(t, b, put(t, a, state, fnlib.PutOptions{}))
		for _, name := range []string{"a", "b"} {
			if _, err := c.Ping(t.Context(), name, fnlib.Auto); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second) // links are direct, windows as at first
		began := time.Now()
		g, err := c.Get(t.Context(), ref, fnlib.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_ = fa.socket.Close()
		got, err := io.ReadAll(g)
		if err != nil || !bytes.Equal(got, state) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if took := time.Since(began); took < 500*time.Millisecond || took > 500*time.Millisecond+10*rtt {
			t.Errorf("took %v", took)
		}
		for _, n := range []*fnlib.Node{c, b, a} {
			_ = n.Close()
		}
	})
}

// TestLyingHolder: bytes that are not those of the ref are never given out, and another holder is asked for the right ones.
func TestLyingHolder(t *testing.T) {
	w := newWorld(t, 1)
	with := func(c *fnlib.Config) { c.PutMemory = 32 << 20 }
	a, b, c := w.joinWith(t, "a", with), w.joinWith(t, "b", with), w.join(t, "c")
	state := randomBytes(12 << 20)
	first := put(t, a, state, fnlib.PutOptions{})
	ref := hold(t, b, first)
	digests := hold(t, b, put(t, a, state, fnlib.PutOptions{}))
	fnlib.CorruptHeld(b, ref, 7<<20+5)
	fnlib.CorruptHeld(b, digests, -1)
	for range 3 {
		wantGot(t, c, ref, state)
		wantGot(t, c, digests, state)
	}
	_ = a.Close()
	g, err := c.Get(t.Context(), ref, fnlib.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(g)
	if !errors.Is(err, fnlib.ErrDigest) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("%v", err)
	}
	if !bytes.Equal(got, state[:min(len(got), 7<<20)]) {
		t.Errorf("%d bytes were given out, not all of them right", len(got))
	}
	wantNot(t, c, digests, fnlib.ErrDigest)
}

// A state of which reads are counted has one holder.
func TestCountedIsNotHeld(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	ref := put(t, a, []byte("state"), fnlib.PutOptions{Reads: 2})
	g, err := b.Get(t.Context(), ref, fnlib.GetOptions{Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(g); err != nil || string(got) != "state" {
		t.Errorf("%q, %v", got, err)
	}
	if same, err := g.Ref(); err == nil || same != ref {
		t.Error("it is held twice")
	}
}

// A peer has so many requests under way and no more; who asks for more than that gets it all the same.
func TestManyGets(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	state := randomBytes(2<<20 + 1)
	ref := put(t, a, state, fnlib.PutOptions{})
	done := make(chan error)
	const gets = 40
	for range gets {
		go func() {
			got, err := get(t.Context(), b, ref)
			if err == nil && !bytes.Equal(got, state) {
				err = errors.New("other bytes")
			}
			done <- err
		}()
	}
	for range gets {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestStoreWhenHolderIsSilent: a state that the store has too comes from there when nothing has come from its holder for Config.SpillAfter.
func TestStoreWhenHolderIsSilent(t *testing.T) {
	s, _ := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		fa, fb := w.functions(true, [2]*natsim.NAT{})
		with := func(c *fnlib.Config) { c.Store, c.SpillAfter = s, 3*time.Second }
		a, _ := fa.join(with)
		b, _ := fb.join(with)
		ref := put(t, a, []byte("state"), fnlib.PutOptions{Mirror: true})
		wantGot(t, b, ref, []byte("state"))
		_ = fa.socket.Close()
		began := time.Now()
		g, err := b.Get(t.Context(), ref, fnlib.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("the store was asked after %v", took)
		}
		if got, err := io.ReadAll(g); err != nil || string(got) != "state" || g.Path() != "store" {
			t.Errorf("%q, %v, by %s", got, err, g.Path())
		}
		_ = b.Close()
		_ = a.Close()
	})
}

// What an instance has put is in the store when another one has taken its name.
func TestFencedSpills(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store, c.Grace = s, time.Minute }
	a, b := w.joinWith(t, "a", with), w.joinWith(t, "b", with)
	state := randomBytes(2 << 20)
	ref := put(t, a, state, fnlib.PutOptions{})
	again := w.joinWith(t, "a", with)
	<-a.Done()
	_ = a.Close() // which waits
	if !errors.Is(a.Err(), fnlib.ErrFenced) {
		t.Fatal(a.Err())
	}
	wantGot(t, b, ref, state)
	wantGot(t, again, ref, state)
}
