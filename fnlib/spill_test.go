package fnlib_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/file"
	"github.com/fnwire/fnwire/fnlib/store/natsobj"
	"github.com/fnwire/fnwire/internal/job"
)

// openStore returns a directory as a store.
func openStore(t testing.TB) (store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := file.Open(t.Context(), "file://"+dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, dir
}

func (w *world) joinWith(t testing.TB, name string, change func(*fnlib.Config)) *fnlib.Node {
	t.Helper()
	cfg := w.config(name)
	change(&cfg)
	n, err := fnlib.Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// objects lists what a store holds.
func objects(t testing.TB, s store.Store) (keys []string) {
	t.Helper()
	if err := s.List(t.Context(), "", func(i store.Info) bool {
		keys = append(keys, i.Key)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return keys
}

// The sender has ended before the receiver begins: the state waits in the store, and is gone from there when it was accepted.
func TestStored(t *testing.T) {
	s, dir := openStore(t)
	testStored(t, newWorld(t, 1), dir, func() store.Store { return s })
}

// The same with the store that the rendezvous keeps: sender and receiver have nothing in common but their job's key, and the
// rendezvous restarts in between.
func TestStoredAtRendezvous(t *testing.T) {
	w := &world{key: job.NewKey(), data: t.TempDir()}
	stop := w.startRendezvous(t, "127.0.0.1:0")
	opened := 0
	testStored(t, w, w.data, func() store.Store {
		if opened++; opened == 2 {
			stop()
			w.startRendezvous(t, strings.TrimPrefix(w.url, "nats://"))
		}
		s, err := natsobj.OpenRendezvous(t.Context(), natsobj.Rendezvous{URL: w.url, JobKey: w.key.Encode()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	})
}

// testStored has a sender and a receiver each open the store, which keeps what it has in dir.
func testStored(t *testing.T, w *world, dir string, open func() store.Store) {
	t.Helper()
	s := open()
	with := func(c *fnlib.Config) { c.Store, c.SpillAfter = s, 50*time.Millisecond }
	sizes := []int{0, 1, 1000, 64 << 10, 300_000, 20<<20 + 1}
	a := w.joinWith(t, "a", with)
	states := map[string][]byte{}
	for i, size := range sizes {
		key := string(rune('k' + i))
		states[key] = randomBytes(size)
		var r io.Reader = bytes.NewReader(states[key])
		if i%2 == 0 {
			r = io.MultiReader(r)
		}
		rc, err := a.Send(t.Context(), "late", key, r)
		if err != nil {
			t.Fatal(err)
		}
		if rc.Stored != s.String() || rc.Path != "store" || rc.Bytes != int64(size) || rc.Reason == "" {
			t.Errorf("receipt %+v", rc)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	sealedOnDisk(t, dir, states)
	s = open()

	b := w.joinWith(t, "late", with)
	for range sizes {
		in, got, err := accept(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, states[in.Key]) || in.From != "a" || in.Path() != "store" {
			t.Errorf("%q: %d bytes from %q by %s", in.Key, len(got), in.From, in.Path())
		}
		delete(states, in.Key)
	}
	if keys := objects(t, s); len(keys) != 0 || len(states) != 0 {
		t.Errorf("%d objects left in the store, %d states missing", len(keys), len(states))
	}
}

// sealedOnDisk holds that no file gives away what it holds.
func sealedOnDisk(t *testing.T, dir string, states map[string][]byte) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for key, state := range states {
			if len(state) >= 1000 && bytes.Contains(b, state[:100]) {
				t.Errorf("state %q can be read in %s", key, path)
			}
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}

// A receiver that has joined already is told.
func TestStoredWhileReceiverIsThere(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store = s }
	a, b := w.joinWith(t, "a", with), w.joinWith(t, "b", with)
	for range 3 {
		rc, err := a.SendWith(t.Context(), "b", "k", strings.NewReader("state"), fnlib.SendOptions{StoreOnly: true})
		if err != nil || rc.Stored == "" {
			t.Fatalf("%+v, %v", rc, err)
		}
		if _, got, err := accept(t.Context(), b); err != nil || string(got) != "state" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// A receiver that dies before it accepts does not swallow the state.
func TestStoredStateComesAgain(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store = s }
	a := w.joinWith(t, "a", with)
	if _, err := a.SendWith(t.Context(), "b", "k", strings.NewReader("state"), fnlib.SendOptions{StoreOnly: true}); err != nil {
		t.Fatal(err)
	}
	b := w.joinWith(t, "b", with)
	in, err := b.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(in); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, got, err := accept(t.Context(), w.joinWith(t, "b", with)); err != nil || string(got) != "state" {
		t.Fatalf("%q, %v", got, err)
	}
}

// What a receiver releases stays in the store for the next one, and does not come to it again, also if it is looked for or has come over a link too.
func TestRelease(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store = s }
	a, b := w.joinWith(t, "a", with), w.joinWith(t, "b", with)
	store := func(key string) {
		t.Helper()
		if _, err := a.SendWith(t.Context(), "b", key, strings.NewReader(key), fnlib.SendOptions{StoreOnly: true}); err != nil {
			t.Fatal(err)
		}
	}
	store("k")
	in, err := b.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Release("no room"), in.Release("")); err != nil {
		t.Fatal(err)
	}
	if in.Accept() == nil {
		t.Error("accepted what was released")
	}
	go refuseOne(t, b, (*fnlib.Incoming).Release)
	sent, stored := fnlib.SendAndStore(t.Context(), a, "b", "l")
	if !errors.Is(sent, fnlib.ErrRejected) || !strings.Contains(sent.Error(), "no room") || stored != nil {
		t.Errorf("over a link: %v; stored: %v", sent, stored)
	}
	if err := fnlib.LookOf(b); err != nil {
		t.Fatal(err)
	}
	store("m")
	if in, got, err := accept(t.Context(), b); err != nil || string(got) != "m" || in.Release("") == nil {
		t.Fatalf("%q, %v", got, err)
	}
	if keys := objects(t, s); len(keys) != 2 {
		t.Errorf("in the store: %q", keys)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = w.joinWith(t, "b", with)
	for _, want := range []string{"k", "l"} {
		if _, got, err := accept(t.Context(), b); err != nil || string(got) != want {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
	}
	if keys := objects(t, s); len(keys) != 0 {
		t.Errorf("in the store: %q", keys)
	}
}

// What is under way when a node closes is stored: a call that nobody answers, and a state that its receiver reads too slowly.
func TestCloseStores(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store, c.SpillAfter, c.Grace = s, time.Minute, 10*time.Second }
	a, b := w.joinWith(t, "a", with), w.joinWith(t, "b", with)
	type result struct {
		rc  fnlib.Receipt
		err error
	}
	results := make(chan result, 2)
	state := randomBytes(40 << 20)
	for _, to := range []string{"b", "nobody"} {
		go func() {
			rc, err := a.Send(t.Context(), to, "k", bytes.NewReader(state))
			results <- result{rc, err}
		}()
	}
	in, err := b.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, in, 20<<20); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := <-results; r.err != nil || r.rc.Stored == "" {
			t.Errorf("%+v, %v", r.rc, r.err)
		}
	}
	if _, err := io.Copy(io.Discard, in); !errors.Is(err, fnlib.ErrLink) && !errors.Is(err, fnlib.ErrClosed) {
		t.Errorf("the broken state: %v", err)
	}
	if _, got, err := accept(t.Context(), b); err != nil || !bytes.Equal(got, state) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := a.Send(t.Context(), "b", "k", strings.NewReader("x")); !errors.Is(err, fnlib.ErrClosed) {
		t.Errorf("send after close: %v", err)
	}
}

// Shortly before its deadline a call gives its state to the store; without one, or with NoStore, it says plainly that nothing was delivered.
func TestDeadlineStores(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	a := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store = s })
	plain := w.join(t, "plain")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if rc, err := a.Send(ctx, "nobody", "k", strings.NewReader("state")); err != nil || rc.Stored == "" {
		t.Errorf("%+v, %v", rc, err)
	}
	for name, send := range map[string]func(ctx context.Context) (fnlib.Receipt, error){
		"NoStore": func(ctx context.Context) (fnlib.Receipt, error) {
			return a.SendWith(ctx, "nobody", "k", strings.NewReader("state"), fnlib.SendOptions{NoStore: true})
		},
		"no store": func(ctx context.Context) (fnlib.Receipt, error) {
			return plain.Send(ctx, "nobody", "k", strings.NewReader("state"))
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if rc, err := send(ctx); !errors.Is(err, context.DeadlineExceeded) || rc.Stored != "" {
			t.Errorf("%s: %+v, %v", name, rc, err)
		}
		cancel()
	}
	if _, err := plain.SendWith(t.Context(), "b", "k", strings.NewReader("x"), fnlib.SendOptions{StoreOnly: true}); !errors.Is(err, fnlib.ErrStore) {
		t.Errorf("StoreOnly without a store: %v", err)
	}
}

// A store that fails is an error of the sender, and no end of the receiver's state.
func TestStoreFails(t *testing.T) {
	w := newWorld(t, 1)
	good, _ := openStore(t)
	s := &flaky{Store: good}
	with := func(c *fnlib.Config) { c.Store, c.SpillAfter = s, 50*time.Millisecond }
	a := w.joinWith(t, "a", with)
	s.put.Store(true)
	if rc, err := a.Send(t.Context(), "b", "k", strings.NewReader("state")); !errors.Is(err, fnlib.ErrStore) || !errors.Is(err, errFlaky) || rc.Stored != "" {
		t.Fatalf("%+v, %v", rc, err)
	}
	s.put.Store(false)
	state := randomBytes(1 << 20)
	if _, err := a.Send(t.Context(), "b", "k", bytes.NewReader(state)); err != nil {
		t.Fatal(err)
	}
	s.breaks.Store(3)
	b := w.joinWith(t, "b", with)
	if _, got, err := accept(t.Context(), b); err != nil || !bytes.Equal(got, state) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

var errFlaky = errors.New("store on fire")

// A store that is away for a while costs nothing but time: it is tried again, and so is the receiver.
func TestStoreIsAway(t *testing.T) {
	w := &world{key: job.NewKey()}
	stop := w.startRendezvous(t, "127.0.0.1:0")
	w.startRelay(t, "r1", loopbackAny)
	good, _ := openStore(t)
	s := &flaky{Store: good, tried: make(chan struct{}, 1)}
	a := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store, c.SpillAfter = s, 300*time.Millisecond })
	s.puts.Store(1)
	if rc, err := a.Send(t.Context(), "nobody", "k", strings.NewReader("state")); err != nil || rc.Stored == "" {
		t.Errorf("a store that came back: %+v, %v", rc, err)
	}

	<-s.tried

	// The receiver has most of a state when its link breaks, with nobody to make another. While the state is being stored it is read again
	// from its beginning, and that fails in the middle. Then the receiver is there again.
	state := randomBytes(40 << 20)
	b := w.join(t, "b")
	sent := make(chan error, 1)
	var rc fnlib.Receipt
	go func() {
		var err error
		rc, err = a.SendWith(t.Context(), "b", "k", bytes.NewReader(state), fnlib.SendOptions{NoCompress: true})
		sent <- err
	}()
	in, err := b.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := io.CopyN(&got, in, 30<<20); err != nil {
		t.Fatal(err)
	}
	s.puts.Store(100)
	listen := strings.TrimPrefix(w.url, "nats://")
	stop()
	if fnlib.BreakLinks(b) == 0 {
		t.Fatal("no link to break")
	}
	<-s.tried
	w.startRendezvous(t, listen)
	w.startRelay(t, "r2", loopbackAny)
	if _, err := io.Copy(&got, in); err != nil || !bytes.Equal(got.Bytes(), state) {
		t.Fatalf("%d bytes, %v", got.Len(), err)
	}
	if err := in.Accept(); err != nil {
		t.Error(err)
	}
	if err := <-sent; err != nil || rc.Stored != "" || rc.Bytes != int64(len(state)) {
		t.Errorf("%+v, %v", rc, err)
	}
}

// flaky is a store that fails when it is told to.
type flaky struct {
	store.Store
	put    atomic.Bool
	puts   atomic.Int32  // so many end after a megabyte
	tried  chan struct{} // of capacity 1: told when one has, unless nil
	breaks atomic.Int32  // so many reads end after 100,000 bytes
}

func (f *flaky) Put(ctx context.Context, key string, r io.Reader, opt store.PutOptions) error {
	if f.put.Load() {
		return errFlaky
	}
	if f.puts.Add(-1) >= 0 {
		_, _ = io.CopyN(io.Discard, r, 1<<20) // or less
		select {
		case f.tried <- struct{}{}:
		default: // nobody wants to know, or it knows
		}
		return errFlaky
	}
	return f.Store.Put(ctx, key, r, opt)
}

func (f *flaky) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, store.Info, error) {
	rc, info, err := f.Store.Get(ctx, key, offset)
	if err == nil && f.breaks.Add(-1) >= 0 {
		return &breaking{rc, 100_000}, info, nil
	}
	return rc, info, err
}

type breaking struct {
	io.ReadCloser
	left int
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errFlaky
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// What was changed in the store, moved there, or put there by others, is not delivered, and does not keep the rest back.
func TestStoredIsNotTrusted(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store = s }
	a := w.joinWith(t, "a", with)
	for _, to := range []string{"b", "other"} {
		if _, err := a.SendWith(t.Context(), to, "k", strings.NewReader("for "+to), fnlib.SendOptions{StoreOnly: true}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range objects(t, s) {
		rc, _, err := s.Get(t.Context(), key, 0)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := io.ReadAll(rc)
		if err = errors.Join(err, rc.Close()); err != nil {
			t.Fatal(err)
		}
		put := func(key string, b []byte) {
			if err := s.Put(t.Context(), key, bytes.NewReader(b), store.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		moved := strings.Replace(key, "/other/", "/b/", 1)
		if moved != key {
			put(moved, sealed) // the other's state under b's name
			continue
		}
		put(strings.Replace(key, "/b/0", "/b/00", 1), sealed)                              // no name of a state
		put(key[:len(key)-1]+string("0123456789abcdef0"[int(key[len(key)-1])%16]), sealed) // another ID, unless it is the same
		changed := bytes.Clone(sealed)
		changed[len(changed)-1] ^= 1
		put(key[:len(key)-2]+"zz", sealed)
		put(key[:len(key)-2]+"00", changed)
	}
	b := w.joinWith(t, "b", with)
	if _, got, err := accept(t.Context(), b); err != nil || string(got) != "for b" {
		t.Fatalf("%q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if in, err := b.Receive(ctx); err == nil {
		t.Errorf("received %+v", in)
	}
}

// More states than are looked at together all come, each once.
func TestManyStored(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store = s }
	a := w.joinWith(t, "a", with)
	const n = 400
	for range n {
		if _, err := a.SendWith(t.Context(), "b", "k", strings.NewReader("x"), fnlib.SendOptions{StoreOnly: true}); err != nil {
			t.Fatal(err)
		}
	}
	b := w.joinWith(t, "b", with)
	for range n {
		if _, _, err := accept(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if keys := objects(t, s); len(keys) != 0 || fnlib.PendingOf(b) != 0 {
		t.Errorf("%d objects left, %d states pending", len(keys), fnlib.PendingOf(b))
	}
}
