package fnlib_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/internal/natsim"
)

func put(t testing.TB, n *fnlib.Node, state []byte, opt fnlib.PutOptions) fnlib.Ref {
	t.Helper()
	ref, err := n.Put(t.Context(), bytes.NewReader(state), opt)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func get(ctx context.Context, n *fnlib.Node, ref fnlib.Ref) ([]byte, error) {
	g, err := n.Get(ctx, ref, fnlib.GetOptions{})
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return io.ReadAll(g)
}

func wantGot(t testing.TB, n *fnlib.Node, ref fnlib.Ref, want []byte) {
	t.Helper()
	got, err := get(t.Context(), n, ref)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s got %d bytes, want %d: %v", n.Name(), len(got), len(want), err)
	}
}

func wantNot(t testing.TB, n *fnlib.Node, ref fnlib.Ref, want error) {
	t.Helper()
	got, err := get(t.Context(), n, ref)
	if !errors.Is(err, want) {
		t.Errorf("%s got %d bytes, %v; want %v", n.Name(), len(got), err, want)
	}
}

// TestPutGet: states of all kinds of size, in memory and in a file, by the node itself and by another.
func TestPutGet(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	w := newWorld(t, 1)
	const memory = 12 << 20
	a, b := w.joinWith(t, "a", func(c *fnlib.Config) { c.PutMemory = memory }), w.join(t, "b")
	for _, size := range []int{0, 1, 1000, 1<<20 - 1, 1 << 20, 1<<20 + 1, 9<<20 + 7, 20 << 20} {
		state := randomBytes(size)
		ref, err := a.Put(t.Context(), iotest.HalfReader(bytes.NewReader(state)), fnlib.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantGot(t, b, ref, state)
		wantGot(t, b, ref, state)
		wantGot(t, a, ref, state)
		h, err := a.Holding(ref)
		if err != nil || h.Size != int64(size) || h.InFile != (size > memory) {
			t.Errorf("%d bytes: %+v, %v", size, h, err)
		}
		if err := b.Drop(t.Context(), ref); err != nil {
			t.Error(err)
		}
		<-h.Released
		wantNot(t, b, ref, fnlib.ErrNotFound)
		wantNot(t, a, ref, fnlib.ErrNotFound)
	}
	if used := fnlib.PutMemoryOf(a); used != 0 {
		t.Errorf("%d bytes are still in use", used)
	}
}

// Memory is shared by all states; what does not fit goes to files, which leave nothing behind, and a disk that is full is told of.
func TestPutMemory(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	w := newWorld(t, 1)
	a, b := w.joinWith(t, "a", func(c *fnlib.Config) { c.PutMemory = 2<<20 + 4 }), w.join(t, "b")
	state := randomBytes(1<<20 + 3)
	var refs []fnlib.Ref
	for range 3 {
		refs = append(refs, put(t, a, state, fnlib.PutOptions{}))
	}
	for i, ref := range refs {
		if h, err := a.Holding(ref); err != nil || h.InFile != (i > 0) {
			t.Errorf("%d: %+v, %v", i, h, err)
		}
		wantGot(t, b, ref, state)
	}
	if err := a.Drop(t.Context(), refs[0]); err != nil {
		t.Fatal(err)
	}
	if h, err := a.Holding(put(t, a, state, fnlib.PutOptions{})); err != nil || h.InFile {
		t.Errorf("memory that was let go is not used: %+v, %v", h, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Put(t.Context(), bytes.NewReader(state), fnlib.PutOptions{}); err == nil || !strings.Contains(err.Error(), "TMPDIR") {
		t.Errorf("no place for a file: %v", err)
	}
	wantGot(t, b, refs[1], state) // its file has no name
	_ = a.Close()
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestReads: as many Gets as are allowed end well, whoever they are and however many try, and then the state is gone.
func TestReads(t *testing.T) {
	w := newWorld(t, 1)
	nodes := []*fnlib.Node{w.join(t, "a"), w.join(t, "b"), w.join(t, "c")}
	for _, reads := range []int{1, 4} {
		state := randomBytes(3<<20 + 1)
		ref := put(t, nodes[0], state, fnlib.PutOptions{Reads: reads})
		h, err := nodes[0].Holding(ref)
		if err != nil {
			t.Fatal(err)
		}
		// One that does not read to the end is not counted.
		g, err := nodes[1].Get(t.Context(), ref, fnlib.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(g, make([]byte, len(state))); err != nil {
			t.Fatal(err)
		}
		_ = g.Close()
		var wg sync.WaitGroup
		var mu sync.Mutex
		well := 0
		for i := range 9 {
			wg.Go(func() {
				got, err := get(t.Context(), nodes[i%3], ref)
				switch {
				case err == nil && bytes.Equal(got, state):
					mu.Lock()
					well++
					mu.Unlock()
				case !errors.Is(err, fnlib.ErrReadOut) || !errors.Is(err, fnlib.ErrNotFound):
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		}
		wg.Wait()
		if well != reads {
			t.Errorf("%d have read it, %d may", well, reads)
		}
		<-h.Released
		wantNot(t, nodes[2], ref, fnlib.ErrReadOut)
		if _, err := nodes[0].Holding(ref); !errors.Is(err, fnlib.ErrReadOut) {
			t.Error(err)
		}
	}
	if used := fnlib.PutMemoryOf(nodes[0]); used != 0 {
		t.Errorf("%d bytes are still in use", used)
	}
}

// A Get that says again that it is done, as after a link broke, is counted once.
func TestReadIsCountedOnce(t *testing.T) { fnlib.CheckCountedOnce(t) }

// TestExpiry: to the second, by the holder's clock and by the getter's.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		fa, fb := w.functions(true, [2]*natsim.NAT{})
		a, _ := fa.join()
		b, _ := fb.join()
		began := time.Now()
		ref := put(t, a, []byte("state"), fnlib.PutOptions{TTL: 90 * time.Second})
		h, err := a.Holding(ref)
		if err != nil || h.Expires.Sub(began) < 90*time.Second || h.Expires.Sub(began) >= 91*time.Second {
			t.Fatalf("%v, %v", h.Expires.Sub(began), err)
		}
		time.Sleep(time.Until(h.Expires) - time.Second)
		wantGot(t, b, ref, []byte("state"))
		<-h.Released
		if late := time.Since(h.Expires); late != 0 {
			t.Errorf("released %v after its time", late)
		}
		wantNot(t, b, ref, fnlib.ErrExpired)
		wantNot(t, a, ref, fnlib.ErrExpired)
		if _, err := a.Holding(ref); !errors.Is(err, fnlib.ErrExpired) {
			t.Error(err)
		}
		if used := fnlib.PutMemoryOf(a); used != 0 {
			t.Errorf("%d bytes are still in use", used)
		}
		_ = a.Close()
		_ = b.Close()
	})
}

// TestGetTakesOneRoundTrip: on a link that is up, a small state is there a round trip after the call.
func TestGetTakesOneRoundTrip(t *testing.T) {
	eachOrder(t, func(t *testing.T, lower bool) {
		w := newBubble(t, rtt)
		fa, fb := w.functions(lower, [2]*natsim.NAT{})
		a, _ := fa.join()
		b, _ := fb.join()
		ref := put(t, a, []byte("state"), fnlib.PutOptions{})
		wantGot(t, b, ref, []byte("state"))
		time.Sleep(10 * time.Second) // the link is direct
		began := time.Now()
		wantGot(t, b, ref, []byte("state"))
		exactly(t, "Get", time.Since(began), 1)
		_ = a.Close()
		_ = b.Close()
	})
}

// A Get goes on at the block where it was when links break.
func TestGetOutlivesItsLinks(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	state := randomBytes(40 << 20)
	for _, reads := range []int{0, 1} {
		g, err := b.Get(t.Context(), put(t, a, state, fnlib.PutOptions{Reads: reads}), fnlib.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.Close() })
		var got bytes.Buffer
		for _, n := range []*fnlib.Node{a, b, a} {
			if _, err := io.CopyN(&got, g, 9<<20+100); err != nil {
				t.Fatal(err)
			}
			if fnlib.BreakLinks(n) == 0 {
				t.Fatal("no link to break")
			}
		}
		if _, err := io.Copy(&got, g); err != nil || !bytes.Equal(got.Bytes(), state) {
			t.Fatalf("%d bytes, %v", got.Len(), err)
		}
		if from := g.From()["a"]; from != int64(len(state)) {
			t.Errorf("%d bytes from a: blocks came twice, or not", from)
		}
	}
}

// TestRefOfAnother: a ref is of no use to another job, and text that is no ref is told from one.
func TestRefOfAnother(t *testing.T) {
	w, other := newWorld(t, 1), newWorld(t, 1)
	a, c := w.join(t, "a"), other.join(t, "a")
	ref := put(t, a, []byte("state"), fnlib.PutOptions{})
	for _, r := range []fnlib.Ref{ref, "", "fnwire:", "fnwire:AAAA", ref + "A"} {
		wantNot(t, c, r, fnlib.ErrRef)
		if err := c.Drop(t.Context(), r); !errors.Is(err, fnlib.ErrRef) {
			t.Error(err)
		}
		if _, err := c.Holding(r); !errors.Is(err, fnlib.ErrRef) {
			t.Error(err)
		}
	}
}

// A holder that has left is not waited for.
func TestHolderIsGone(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	ref := put(t, a, []byte("state"), fnlib.PutOptions{})
	wantGot(t, b, ref, []byte("state"))
	_ = a.Close()
	wantNot(t, b, ref, fnlib.ErrNotFound)
	w.join(t, "a") // another instance of the name has nothing
	wantNot(t, b, ref, fnlib.ErrNotFound)
	if _, err := a.Put(t.Context(), strings.NewReader("x"), fnlib.PutOptions{}); !errors.Is(err, fnlib.ErrClosed) {
		t.Errorf("put after close: %v", err)
	}
	wantNot(t, a, ref, fnlib.ErrClosed)
}

// Put and Get end with their contexts, and with their readers' errors.
func TestPutGetGiveUp(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	go func() {
		_, _ = pw.Write([]byte("some"))
		cancel()
	}()
	if _, err := a.Put(ctx, pr, fnlib.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = pw.Close()
	mine := errors.New("mine")
	if _, err := a.Put(t.Context(), iotest.ErrReader(mine), fnlib.PutOptions{}); !errors.Is(err, mine) {
		t.Error(err)
	}
	for name, opt := range map[string]fnlib.PutOptions{
		"TTL": {TTL: -1}, "long TTL": {TTL: 70 * 365 * 24 * time.Hour}, "reads": {Reads: -1}, "many reads": {Reads: 4097}, "NoStore": {NoStore: true, Mirror: true},
	} {
		if _, err := a.Put(t.Context(), strings.NewReader("x"), opt); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := a.Put(t.Context(), strings.NewReader("x"), fnlib.PutOptions{Mirror: true}); !errors.Is(err, fnlib.ErrStore) {
		t.Error(err)
	}
	ref := put(t, a, randomBytes(20<<20), fnlib.PutOptions{})
	ctx, cancel = context.WithCancel(t.Context())
	g, err := b.Get(ctx, ref, fnlib.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, g, 2<<20); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, g); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if used := fnlib.PutMemoryOf(a); used > 20<<20 {
		t.Errorf("%d bytes are still in use", used)
	}
}

// A node keeps so many states and no more.
func TestPutIsBounded(t *testing.T) {
	w := newWorld(t, 1)
	a := w.join(t, "a")
	var last fnlib.Ref
	for range 4096 {
		last = put(t, a, []byte("x"), fnlib.PutOptions{})
	}
	if _, err := a.Put(t.Context(), strings.NewReader("x"), fnlib.PutOptions{}); err == nil || !strings.Contains(err.Error(), "4096") {
		t.Error(err)
	}
	if err := a.Drop(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	put(t, a, []byte("x"), fnlib.PutOptions{})
}

// TestRefInStore: what a node has put is in the store when it has closed, or before if asked for; not what was read out.
func TestRefInStore(t *testing.T) {
	w := newWorld(t, 1)
	s, dir := openStore(t)
	with := func(c *fnlib.Config) { c.Store, c.PutMemory, c.Grace = s, 4<<20, time.Minute }
	a, b := w.joinWith(t, "a", with), w.joinWith(t, "b", with)
	states := map[string][]byte{"big": randomBytes(6<<20 + 5), "small": randomBytes(2000), "empty": {}, "only": randomBytes(3 << 20), "once": []byte("once")}
	refs := map[string]fnlib.Ref{}
	for key, state := range states {
		opt := fnlib.PutOptions{StoreOnly: key == "only", Mirror: key == "small"}
		if key == "once" {
			opt.Reads = 1
		}
		refs[key] = put(t, a, state, opt)
	}
	read, private := put(t, a, []byte("read"), fnlib.PutOptions{Reads: 1, Mirror: true}), put(t, a, []byte("private"), fnlib.PutOptions{NoStore: true})
	if n := len(objects(t, s)); n != 3 {
		t.Errorf("%d objects in the store", n)
	}
	for key, state := range states {
		if key != "once" {
			wantGot(t, b, refs[key], state)
		}
	}
	wantGot(t, b, read, []byte("read"))
	_ = a.Close()
	sealedOnDisk(t, dir, states)
	if n := len(objects(t, s)); n != len(states) {
		t.Errorf("%d objects in the store", n)
	}
	for key, state := range states {
		wantGot(t, b, refs[key], state)
	}
	for _, ref := range []fnlib.Ref{read, private, refs["once"]} {
		wantNot(t, b, ref, fnlib.ErrNotFound)
	}
	c := w.join(t, "c")
	wantNot(t, c, refs["only"], fnlib.ErrNotFound)
	if err := b.Drop(t.Context(), refs["only"]); err != nil {
		t.Fatal(err)
	}
	wantNot(t, b, refs["only"], fnlib.ErrNotFound)
}

// A holder that closes in the middle of a Get hands over to the store, from the block on that is needed.
func TestGetGoesOnFromStore(t *testing.T) {
	w := newWorld(t, 1)
	good, _ := openStore(t)
	s := &flaky{Store: good}
	with := func(c *fnlib.Config) { c.Store, c.Grace = s, time.Minute }
	a, b := w.joinWith(t, "a", with), w.joinWith(t, "b", with)
	state := randomBytes(30<<20 + 3)
	ref := put(t, a, state, fnlib.PutOptions{})
	g, err := b.Get(t.Context(), ref, fnlib.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var got bytes.Buffer
	if _, err := io.CopyN(&got, g, 5<<20); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	s.breaks.Store(3) // and the store fails at first
	if _, err := io.Copy(&got, g); err != nil || !bytes.Equal(got.Bytes(), state) {
		t.Fatalf("%d bytes, %v", got.Len(), err)
	}
	from := g.From()
	if from["a"] < 5<<20 || from[s.String()] == 0 || from["a"]+from[s.String()] != int64(len(state)) || g.Path() != "store" {
		t.Errorf("%v, by %s", from, g.Path())
	}
}

// What was changed in the store, or put there under another name, is not given out.
func TestStoredRefIsNotTrusted(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	a := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store = s })
	one, two := put(t, a, randomBytes(3000), fnlib.PutOptions{StoreOnly: true}), put(t, a, randomBytes(3000), fnlib.PutOptions{StoreOnly: true})
	keys := objects(t, s)
	var sealed [2][]byte
	for i, key := range keys {
		rc, _, err := s.Get(t.Context(), key, 0)
		if err != nil {
			t.Fatal(err)
		}
		sealed[i], err = io.ReadAll(rc)
		if err = errors.Join(err, rc.Close()); err != nil {
			t.Fatal(err)
		}
	}
	sealed[1][len(sealed[1])-1] ^= 1
	for i, b := range [][]byte{sealed[1], sealed[0][:len(sealed[0])-1]} {
		if err := s.Put(t.Context(), keys[i], bytes.NewReader(b), store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	wantNot(t, a, one, fnlib.ErrStore)
	wantNot(t, a, two, fnlib.ErrStore)
}
