package fnlib_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/transport"
)

// within fails the test if do takes longer than it may.
func within(t *testing.T, limit time.Duration, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s: not done after %v", what, limit)
	}
}

// A receiver that reads one state after the other is not starved by those that wait: what they hold
// of the connection's window must leave room.
func TestSerialReceiver(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	const states = 12
	errs := make(chan error, states)
	state := make([]byte, 6<<20)
	for i := range states {
		go func() {
			_, err := a.Send(ctx, "b", fmt.Sprint(i), bytes.NewReader(state))
			errs <- err
		}()
	}
	within(t, 20*time.Second, "receive in turn", func() {
		for range states {
			in, err := b.Receive(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, in); err != nil {
				t.Error(err)
			}
			_ = in.Accept()
		}
	})
	for range states {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// However many states of one peer wait for their turn, what is read, and everything else on the link, goes on.
func TestUnreadStates(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	const states = 100 // at half a MiB each they would fill the connection's window twice
	errs := make(chan error, states)
	state := make([]byte, 1<<20)
	for i := range states {
		go func() {
			var r io.Reader = bytes.NewReader(state)
			if i%2 == 0 {
				r = io.MultiReader(r) // of unknown size
			}
			_, err := a.Send(ctx, "b", fmt.Sprint(i), r)
			errs <- err
		}()
	}
	for range 100 {
		if _, err := a.Ping(ctx, "b", fnlib.Auto); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // for as much to arrive as may
	}
	for range states {
		if _, _, err := accept(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	for range states {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// What is not read here stays with its sender, but for Config.Window.
func TestWindow(t *testing.T) {
	const size, window, chunk, read = 4 << 20, 64 << 10, 256 << 10, 8 << 10
	for name, c := range map[string]struct{ window, least, most int }{
		"little": {window, window, window + chunk + 2*read},
		"usual":  {0, 512 << 10, size},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			a := w.join(t, "a")
			cfg := w.config("b")
			cfg.Window = c.window
			b, err := fnlib.Join(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			var pulled atomic.Int64
			state := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{}).Read(state)
			sent := make(chan error, 1)
			go func() {
				_, err := a.Send(ctx, "b", "k", &drops{bytes.NewReader(state), read, &pulled})
				sent <- err
			}()
			in, err := b.Receive(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for before := int64(-1); before != pulled.Load(); time.Sleep(200 * time.Millisecond) {
				before = pulled.Load()
			}
			if n := int(pulled.Load()); n < c.least || n > c.most {
				t.Errorf("%d bytes of the state were read, and none received: want %d to %d", n, c.least, c.most)
			}
			got, err := io.ReadAll(in)
			if err != nil || !bytes.Equal(got, state) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err := errors.Join(in.Accept(), <-sent); err != nil {
				t.Error(err)
			}
		})
	}
}

// drops are read some bytes at a time, and counted.
type drops struct {
	r     io.Reader
	most  int
	count *atomic.Int64
}

// Read implements io.Reader.
func (d *drops) Read(b []byte) (int, error) {
	n, err := d.r.Read(b[:min(len(b), d.most)])
	d.count.Add(int64(n))
	return n, err
}

// A reader that never returns does not keep Send beyond its context.
func TestReaderBlocks(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	r, feed := io.Pipe()
	defer feed.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := a.Send(ctx, "b", "k", r)
		sent <- err
	}()
	in, err := b.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := feed.Write([]byte("state")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(in, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	cancel()
	within(t, 3*time.Second, "send", func() {
		if err := <-sent; !errors.Is(err, context.Canceled) {
			t.Errorf("send: %v", err)
		}
	})
}

// A state that is read from another link may fail as that link does; this is no news of the link that
// it is sent on, and nobody's answer is waited for.
func TestReaderFailsLikeLink(t *testing.T) {
	w := newWorld(t, 1)
	a, _ := w.join(t, "a"), w.join(t, "b")
	for _, broken := range []error{&transport.ResetError{Code: 1}, transport.ErrLinkClosed, fnlib.ErrLink} {
		within(t, 2*time.Second, fmt.Sprint("send from ", broken), func() {
			_, err := a.Send(t.Context(), "b", "k", io.MultiReader(bytes.NewReader([]byte("part")), &failing{broken}))
			if !errors.Is(err, broken) {
				t.Errorf("send: %v", err)
			}
		})
	}
}

// A caller that is frozen takes no answers. Others are answered meanwhile.
func TestFrozenCaller(t *testing.T) {
	w := newWorld(t, 1)
	a := w.join(t, "a")
	w.join(t, "b")
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	frozen := make(chan struct{})
	c, err := rendezvous.Dial(t.Context(), rendezvous.Config{
		URL: w.url, Key: w.key, Name: "frozen", Identity: id, OnEnvelope: func(rendezvous.Envelope) { <-frozen },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { close(frozen); _ = c.Close() }()
	j, err := c.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(4) {
		env, err := rendezvous.Seal(w.key, rendezvous.Hello{
			Job: w.key.ID(), Kind: rendezvous.KindOffer, FromName: "frozen", FromPeer: id.Peer.String(), FromEpoch: j.Epoch,
			ToName: "b", Seq: seq + 1, Candidates: []rendezvous.Candidate{{Addr: netip.MustParseAddrPort("127.0.0.1:9"), Kind: "host"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Offer(t.Context(), "b", env); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if _, err := a.Ping(ctx, "b", fnlib.Auto); err != nil {
		t.Error(err)
	}
}

// Close ends a Write that waits for a peer which does not read, as for any net.Conn.
func TestCloseEndsWrite(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	l, err := b.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	c1, c2, err := pipe(t.Context(), a, l, "b", fnlib.Auto)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		close(started)
		_, err := c1.Write(make([]byte, 64<<20))
		wrote <- err
	}()
	<-started
	select {
	case err := <-wrote:
		t.Fatalf("64 MiB fit into the window: %v", err)
	case <-time.After(500 * time.Millisecond): // the window is full
	}
	_ = c1.Close()
	within(t, 2*time.Second, "write", func() {
		if err := <-wrote; !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
	})
	_ = c2.Close()
}

// What was written before CloseWrite is delivered although the node closes right after it.
func TestCloseWriteDelivers(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	l, err := b.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	c1, c2, err := pipe(t.Context(), a, l, "b", fnlib.Auto)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 1)
	go func() {
		b, _ := io.ReadAll(c2)
		got <- len(b)
	}()
	if _, err := c1.Write(make([]byte, 3<<20)); err != nil {
		t.Fatal(err)
	}
	_ = c1.(*fnlib.Conn).CloseWrite()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 3<<20 {
		t.Errorf("%d bytes arrived", n)
	}
}

// A connection that nobody listened for is no reason to linger.
func TestCloseAfterNotListening(t *testing.T) {
	w := newWorld(t, 1)
	a, _ := w.join(t, "a"), w.join(t, "b")
	c, err := a.Dial(t.Context(), "b:nothing")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, fnlib.ErrNotListening) {
		t.Errorf("read: %v", err)
	}
	_ = c.Close()
	within(t, time.Second, "close", func() { _ = a.Close() })
}

// Whoever waits when the node is closed is told so.
func TestCloseTellsCallers(t *testing.T) {
	w := newWorld(t, 1)
	a := w.join(t, "a")
	errs := make(chan error, 3)
	go func() { _, err := a.Dial(t.Context(), "nobody"); errs <- err }()
	go func() { _, err := a.Send(t.Context(), "nobody", "k", bytes.NewReader(nil)); errs <- err }()
	go func() { _, err := a.Receive(t.Context()); errs <- err }()
	time.Sleep(200 * time.Millisecond) // until they wait; if they do not yet, the test is easier
	_ = a.Close()
	for range 3 {
		if err := <-errs; !errors.Is(err, fnlib.ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
}

// A Join that is given up after it has taken the name gives it back.
func TestJoinGivenUp(t *testing.T) {
	w := newWorld(t, 1)
	w.rels[0].stop() // so that Join waits for a relay
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	cfg := w.config("x")
	cfg.Exclusive = true
	if n, err := fnlib.Join(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		if err == nil {
			_ = n.Close()
		}
		t.Fatalf("join: %v", err)
	}
	n, err := fnlib.Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	_ = n.Close()
}
