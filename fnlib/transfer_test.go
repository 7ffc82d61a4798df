package fnlib_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
)

// accept receives one state, reads and accepts it.
func accept(ctx context.Context, n *fnlib.Node) (*fnlib.Incoming, []byte, error) {
	in, err := n.Receive(ctx)
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return in, b, err
	}
	return in, b, in.Accept()
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func TestSendReceive(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	for _, path := range []fnlib.Path{fnlib.Auto, fnlib.DirectOnly, fnlib.RelayOnly} {
		for _, size := range []int{0, 1, 1 << 10, 256 << 10, 5<<20 + 3} {
			t.Run(fmt.Sprintf("%v/%d", path, size), func(t *testing.T) {
				want := randomBytes(size)
				key := fmt.Sprintf("key-%d", size)
				var progress int64
				type result struct {
					rc  fnlib.Receipt
					err error
				}
				sent := make(chan result, 1)
				go func() {
					rc, err := a.SendWith(t.Context(), "b", key, bytes.NewReader(want),
						fnlib.SendOptions{Path: path, Progress: func(n int64, _ string) { progress = n }})
					sent <- result{rc, err}
				}()
				in, got, err := accept(t.Context(), b)
				if err != nil {
					t.Fatal(err)
				}
				r := <-sent
				if r.err != nil {
					t.Fatal(r.err)
				}
				if !bytes.Equal(got, want) || in.From != "a" || in.Key != key || in.Size != int64(size) {
					t.Errorf("got %d bytes, key %q from %q, size %d", len(got), in.Key, in.From, in.Size)
				}
				if r.rc.Digest != sha256.Sum256(want) || in.Digest() != r.rc.Digest || r.rc.Bytes != int64(size) || progress != int64(size) {
					t.Errorf("receipt %+v, progress %d", r.rc, progress)
				}
				if p := path.String(); path != fnlib.Auto && r.rc.Path != p {
					t.Errorf("path %s, want %s", r.rc.Path, p)
				}
			})
		}
	}
}

// refuseOne takes a state and does not accept it, since there is no room.
func refuseOne(t *testing.T, n *fnlib.Node, refuse func(*fnlib.Incoming, string) error) {
	in, err := n.Receive(t.Context())
	if err == nil {
		err = refuse(in, "no room")
	}
	if err != nil {
		t.Error(err)
	}
}

func TestReject(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	for _, size := range []int{10, 32 << 20} { // the big one is rejected while it is still coming
		go refuseOne(t, b, (*fnlib.Incoming).Reject)
		_, err := a.Send(t.Context(), "b", "k", bytes.NewReader(make([]byte, size)))
		if !errors.Is(err, fnlib.ErrRejected) || !bytes.Contains([]byte(err.Error()), []byte("no room")) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// A sender that gives up leaves the receiver with an error, never with a short state.
func TestSenderGivesUp(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	r, feed := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		_, err := a.Send(ctx, "b", "k", r)
		sent <- err
	}()
	go func() { _, _ = feed.Write(make([]byte, 100<<10)) }()
	in, err := b.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(in, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = feed.Close()
	if _, err := io.ReadAll(in); !errors.Is(err, fnlib.ErrLink) {
		t.Errorf("receiver: %v", err)
	}
	if err := in.Accept(); err == nil {
		t.Error("accepted a state that broke off")
	}
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("sender: %v", err)
	}
}

// A reader's own error reaches the caller, and the receiver sees no end of state.
func TestReaderFails(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	broken := errors.New("disk on fire") // after so much that the receiver has heard of the state: what is reset before is not told
	done := make(chan error, 1)
	go func() {
		_, _, err := accept(t.Context(), b)
		done <- err
	}()
	_, err := a.Send(t.Context(), "b", "k", io.MultiReader(bytes.NewReader(randomBytes(1<<20)), &failing{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("send: %v", err)
	}
	if err := <-done; !errors.Is(err, fnlib.ErrLink) {
		t.Errorf("receive: %v", err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// A name that nobody holds is waited for, and found at once when somebody joins.
func TestSendBeforeReceiverJoins(t *testing.T) {
	w := newWorld(t, 1)
	a := w.join(t, "a")
	sent := make(chan error, 1)
	go func() {
		_, err := a.Send(t.Context(), "late", "k", bytes.NewReader([]byte("state")))
		sent <- err
	}()
	time.Sleep(300 * time.Millisecond) // the receiver is late; nothing here depends on how much
	b := w.join(t, "late")
	if _, got, err := accept(t.Context(), b); err != nil || string(got) != "state" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// A call ends with its context, and says what it was waiting for.
func TestNobodyThere(t *testing.T) {
	w := newWorld(t, 1)
	a := w.join(t, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := a.Send(ctx, "nobody", "k", bytes.NewReader(nil))
	if !errors.Is(err, context.DeadlineExceeded) || !bytes.Contains([]byte(err.Error()), []byte("has not joined yet")) {
		t.Errorf("send: %v", err)
	}
	if _, err := a.Send(t.Context(), "a", "k", bytes.NewReader(nil)); !errors.Is(err, fnlib.ErrName) {
		t.Errorf("send to oneself: %v", err)
	}
	if _, err := a.Send(t.Context(), "no.dots", "k", bytes.NewReader(nil)); !errors.Is(err, fnlib.ErrName) {
		t.Errorf("illegal name: %v", err)
	}
	if _, err := a.Send(t.Context(), "b", string(make([]byte, fnlib.MaxKey+1)), bytes.NewReader(nil)); err == nil {
		t.Error("a key of any length passed")
	}
}

// Many sends at once share one link.
func TestManySends(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	const n = 50
	errs := make(chan error, 2*n)
	for range n {
		go func() {
			_, err := a.Send(t.Context(), "b", "k", bytes.NewReader(randomBytes(100_000)))
			errs <- err
		}()
		go func() {
			_, _, err := accept(t.Context(), b)
			errs <- err
		}()
	}
	for range 2 * n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if l := a.Stats().Links; l != 1 {
		t.Errorf("%d links", l)
	}
}

// A refusal is heard while the sender's source has nothing to give.
func TestRejectWhileIdle(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	go refuseOne(t, b, (*fnlib.Incoming).Reject)
	r, feed := io.Pipe()
	defer feed.Close()
	if _, err := a.Send(t.Context(), "b", "k", r); !errors.Is(err, fnlib.ErrRejected) {
		t.Errorf("send: %v", err)
	}
}

// The first call of two functions that have just joined is not held up by the relay's limit on bytes to
// an address that is not proven yet.
func TestFirstCallFitsTheLimit(t *testing.T) {
	w := newWorld(t, 1)
	for i := range 20 {
		var wg sync.WaitGroup
		name := fmt.Sprintf("b%d", i)
		wg.Go(func() {
			if _, err := w.join(t, fmt.Sprintf("a%d", i)).Send(t.Context(), name, "k", bytes.NewReader([]byte("x"))); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, _, err := accept(t.Context(), w.join(t, name)); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
	}
	if n := w.rels[0].stats().Dropped["amplification"]; n > 0 {
		t.Errorf("%d packets dropped", n)
	}
}

// A deadline of Read can be taken back at any byte: within a chunk, a chunk's length, and the trailer.
func TestReadDeadlineTakenBack(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	pr, pw := io.Pipe()
	defer pw.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := a.Send(t.Context(), "b", "k", pr)
		sent <- err
	}()
	in, err := b.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	read := func(want string) {
		t.Helper()
		buf := make([]byte, 8)
		if err := in.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if n, err := in.Read(buf); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read %d bytes after the deadline: %v", n, err)
		}
		if err := in.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		n, err := io.ReadFull(in, buf[:len(want)])
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("%q, %v; want %q", buf[:n], err, want)
		}
	}
	for _, chunk := range []string{"one", "three"} {
		if _, err := pw.Write([]byte(chunk)); err != nil {
			t.Fatal(err)
		}
		read(chunk)
	}
	_ = pw.Close() // never fails
	if err := in.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := in.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if n, err := in.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("%d, %v", n, err)
	}
	if err := in.Accept(); err != nil {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// What the sender was told first holds.
func TestAcceptAndReject(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	for _, accepted := range []bool{true, false} {
		sent := make(chan error, 1)
		go func() {
			_, err := a.Send(t.Context(), "b", "k", bytes.NewReader([]byte("state")))
			sent <- err
		}()
		in, err := b.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
		first, second := in.Accept, func() error { return in.Reject("no") }
		if !accepted {
			first, second = second, first
		}
		if err := errors.Join(first(), first()); err != nil {
			t.Error(err)
		}
		if second() == nil {
			t.Errorf("accepted %v and the other as well", accepted)
		}
		if err := <-sent; (err == nil) != accepted {
			t.Errorf("accepted %v: %v", accepted, err)
		}
	}
}
