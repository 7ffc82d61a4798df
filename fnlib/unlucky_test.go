package fnlib_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store"
)

// A reader that fails while its state is stored is asked once: no store mends that.
func TestReaderFailsAtStore(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	counted := &counting{Store: s}
	a := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store, c.SpillAfter = counted, 20*time.Millisecond })
	broken := errors.New("disk on fire")
	for name, send := range map[string]func() (fnlib.Receipt, error){
		"on fire": func() (fnlib.Receipt, error) { return a.Send(t.Context(), "b", "k", &failsOnce{broken}) },
		"announced": func() (fnlib.Receipt, error) {
			return a.SendWith(t.Context(), "b", "k", strings.NewReader("state"), fnlib.SendOptions{Size: 4})
		},
	} {
		before := counted.count("put")
		if rc, err := send(); err == nil || !strings.Contains(err.Error(), name) || counted.count("put") != before+1 {
			t.Errorf("%s: %+v, %v, after %d attempts", name, rc, err, counted.count("put")-before)
		}
	}
}

// A reader that gives bytes and an error at once has failed, whatever it says when it is asked again.
func TestReaderFailsWithBytes(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	a, b := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store = s }), w.join(t, "b")
	broken := errors.New("disk on fire")
	acceptsNothing(t, b, func() {
		if rc, err := a.Send(t.Context(), "b", "k", &failsOnce{broken}); !errors.Is(err, broken) {
			t.Errorf("send: %+v, %v", rc, err)
		}
	})
	if rc, err := a.SendWith(t.Context(), "b", "k", &failsOnce{broken}, fnlib.SendOptions{StoreOnly: true}); !errors.Is(err, broken) {
		t.Errorf("store: %+v, %v", rc, err)
	}
	if ref, err := a.Put(t.Context(), &failsOnce{broken}, fnlib.PutOptions{}); !errors.Is(err, broken) {
		t.Errorf("put: %v, %v", ref, err)
	}
}

// acceptsNothing holds that b gets no whole state while something is done.
func acceptsNothing(t *testing.T, b *fnlib.Node, do func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := accept(ctx, b)
		done <- err
	}()
	do()
	cancel()
	if err := <-done; err == nil {
		t.Error("a state was accepted")
	}
}

// failsOnce gives a few bytes with an error, and then ends as if all were well.
type failsOnce struct{ err error }

func (f *failsOnce) Read(b []byte) (int, error) {
	err := f.err
	if f.err = io.EOF; err == io.EOF {
		return 0, err
	}
	return copy(b, "some bytes"), err
}

// A state that is not as long as was said is an error that says so, and is not stored.
func TestWrongSize(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	a, b := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store = s }), w.join(t, "b")
	for _, said := range []int64{1, 99_999, 100_001, 1 << 40} {
		for _, opt := range []fnlib.SendOptions{{Size: said}, {Size: said, StoreOnly: true}} {
			acceptsNothing(t, b, func() {
				rc, err := a.SendWith(t.Context(), "b", "k", bytes.NewReader(make([]byte, 100_000)), opt)
				if err == nil || !strings.Contains(err.Error(), fmt.Sprint(said)) {
					t.Errorf("%+v: %+v, %v", opt, rc, err)
				}
			})
		}
	}
	if keys := objects(t, s); len(keys) > 0 {
		t.Errorf("%d objects are stored", len(keys))
	}
}

// A state that can be read again is stored also if the reader is busy at that moment.
func TestCloseStoresWhileReading(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store, c.Grace = s, 10*time.Second }
	a, b := w.joinWith(t, "a", with), w.join(t, "b")
	state := randomBytes(30 << 20)
	r := &slowAt{Reader: bytes.NewReader(state), at: 20<<20 + 256<<10, there: make(chan struct{}), leave: make(chan struct{})}
	type result struct {
		rc  fnlib.Receipt
		err error
	}
	sent := make(chan result, 1)
	go func() {
		rc, err := a.Send(t.Context(), "b", "k", r)
		sent <- result{rc, err}
	}()
	in, err := b.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, in, 20<<20); err != nil {
		t.Fatal(err)
	}
	<-r.there
	go func() {
		_, _ = io.Copy(io.Discard, in) // until the sender has given up
		close(r.leave)
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-sent; got.err != nil || got.rc.Stored == "" {
		t.Errorf("%+v, %v", got.rc, got.err)
	}
}

// slowAt is a reader that can be read again, and waits at a byte the first time.
type slowAt struct {
	*bytes.Reader
	at           int64
	there, leave chan struct{}
	once         sync.Once
}

// Len hides that of the bytes.Reader, which would not be read by a goroutine.
func (s *slowAt) Read(b []byte) (int, error) {
	if at, _ := s.Seek(0, io.SeekCurrent); at >= s.at {
		s.once.Do(func() {
			close(s.there)
			<-s.leave
		})
	}
	return s.Reader.Read(b)
}

// While a node closes it takes nothing more on, and says so.
func TestWhileClosing(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	slow := &slowPut{Store: s, began: make(chan struct{}), leave: make(chan struct{})}
	a := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store, c.Grace = slow, time.Minute })
	sent := make(chan error, 1)
	go func() {
		_, err := a.SendWith(t.Context(), "b", "k", strings.NewReader("state"), fnlib.SendOptions{StoreOnly: true})
		sent <- err
	}()
	<-slow.began
	closed := make(chan error, 1)
	go func() { closed <- a.Close() }()
	put := func() error {
		ref, err := a.Put(t.Context(), strings.NewReader("state"), fnlib.PutOptions{})
		if err == nil {
			err = a.Drop(t.Context(), ref)
		}
		return err
	}
	for put() == nil { // until Close has begun
		time.Sleep(time.Millisecond)
	}
	if err := put(); !errors.Is(err, fnlib.ErrClosed) {
		t.Errorf("put: %v", err)
	}
	for _, opt := range []fnlib.SendOptions{{}, {StoreOnly: true}} {
		if rc, err := a.SendWith(t.Context(), "b", "k", strings.NewReader("state"), opt); !errors.Is(err, fnlib.ErrClosed) {
			t.Errorf("%+v: %+v, %v", opt, rc, err)
		}
	}
	select {
	case err := <-closed:
		t.Errorf("closed with a state on its way to the store: %v", err)
	default:
	}
	close(slow.leave)
	if err := errors.Join(<-sent, <-closed); err != nil {
		t.Error(err)
	}
	if keys := objects(t, s); len(keys) != 1 {
		t.Errorf("%d objects", len(keys))
	}
}

// slowPut is a store that takes nothing before it is told to.
type slowPut struct {
	store.Store
	began, leave chan struct{}
	once         sync.Once
}

func (s *slowPut) Put(ctx context.Context, key string, r io.Reader, opt store.PutOptions) error {
	s.once.Do(func() { close(s.began) })
	<-s.leave
	return s.Store.Put(ctx, key, r, opt)
}

// A reader that panics, or says that it gave what it cannot have given, is an error of the call, and the process goes on.
func TestReaderBreaksItsContract(t *testing.T) {
	w := newWorld(t, 1)
	s, _ := openStore(t)
	a := w.joinWith(t, "a", func(c *fnlib.Config) { c.Store = s })
	for name, r := range map[string]readerFunc{
		"nil map":   func([]byte) (int, error) { panic("nil map") },
		"-1 bytes":  func([]byte) (int, error) { return -1, nil },
		"more than": func(b []byte) (int, error) { return len(b) + 1, nil },
	} {
		_, sendErr := a.SendWith(t.Context(), "b", "k", r, fnlib.SendOptions{StoreOnly: true})
		_, putErr := a.Put(t.Context(), r, fnlib.PutOptions{})
		for _, err := range []error{sendErr, putErr} {
			if err == nil || name != "more than" && !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if keys := objects(t, s); len(keys) > 0 || fnlib.PutMemoryOf(a) > 0 {
		t.Errorf("%d objects and %d bytes are kept", len(keys), fnlib.PutMemoryOf(a))
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
