package fnlib_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/natsim"
	"github.com/fnwire/fnwire/rendezvous"
)

func early(c *fnlib.Config) { c.EarlyBytes = fnlib.MaxEarly }

// acquaint has two functions join that hand over states early.
func acquaint(t *testing.T) (w *bubble, a, b *fnlib.Node) {
	w = newBubble(t, rtt)
	fa, fb := w.functions(true, [2]*natsim.NAT{})
	a, _ = fa.join(early)
	b, _ = fb.join(early)
	synctest.Wait()
	return w, a, b
}

// An early state is there after a round trip, where a link takes three, and its receipt is back after another. No link is made for it; the
// fifth state to the same function goes by one, unless it comes long after the fourth.
func TestEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquaint(t)
		first := receiving(t, b)
		began := time.Now()
		rc := send(t, a, "b", strings.Repeat("x", fnlib.MaxEarly))
		exactly(t, "first byte", (<-first).Sub(began), 1)
		exactly(t, "receipt", rc.Phases.Total, 2)
		if rc.Path != "rendezvous" || rc.Bytes != fnlib.MaxEarly || rc.WireBytes < fnlib.MaxEarly || rc.DirectBytes != 0 {
			t.Errorf("%+v", rc)
		}
		for range 3 {
			time.Sleep(40 * time.Second)
			if rc = send(t, a, "b", "another"); rc.Path != "rendezvous" || fnlib.LinksOf(a) != 0 {
				t.Errorf("%+v, %d links", rc, fnlib.LinksOf(a))
			}
			<-first
		}
		time.Sleep(time.Minute)
		for range 4 {
			if rc = send(t, a, "b", "later"); rc.Path != "rendezvous" {
				t.Errorf("%+v", rc)
			}
			<-first
		}
		if rc = send(t, a, "b", "again"); rc.Path == "rendezvous" || fnlib.LinksOf(a) != 1 {
			t.Errorf("%+v", rc)
		}
		<-first
	})
}

// What may not go early goes by a link, as without Config.EarlyBytes.
func TestNotEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		fa, fb := w.functions(true, [2]*natsim.NAT{})
		a, _ := fa.join(early)
		b, _ := fb.join()
		first := receiving(t, b)
		for _, by := range []struct {
			what string
			r    io.Reader
			opt  fnlib.SendOptions
		}{
			{"large", strings.NewReader(strings.Repeat("x", fnlib.MaxEarly+1)), fnlib.SendOptions{}},
			{"unknown", io.MultiReader(strings.NewReader("state")), fnlib.SendOptions{Path: fnlib.RelayOnly}},
			{"direct", strings.NewReader("state"), fnlib.SendOptions{Path: fnlib.DirectOnly}},
		} {
			rc, err := a.SendWith(t.Context(), "b", "k", by.r, by.opt)
			if err != nil || rc.Path == "rendezvous" {
				t.Errorf("%s: %+v, %v", by.what, rc, err)
			}
			<-first
		}
		if _, err := a.SendWith(t.Context(), "c", "k", strings.NewReader("state"), fnlib.SendOptions{Size: 4}); err == nil {
			t.Error("sent more than was announced")
		}
	})
}

// A receiver that takes its time gets the state at once and once, and its word goes by the link that the sender makes meanwhile.
func TestEarlyTakesTime(t *testing.T) {
	for _, size := range []int{0, 5, fnlib.MaxEarly} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, a, b := acquaint(t)
				state := randomBytes(size)
				sent := make(chan fnlib.Receipt, 1)
				began := time.Now()
				go func() { sent <- send(t, a, "b", string(state)) }()
				in, err := b.Receive(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				exactly(t, "received", time.Since(began), 1)
				got, err := io.ReadAll(in)
				if err != nil || !bytes.Equal(got, state) || in.Path() != "rendezvous" || in.From != "a" || in.Size != int64(size) || in.Bytes() != int64(size) {
					t.Errorf("%d bytes over %s, %v", len(got), in.Path(), err)
				}
				time.Sleep(time.Minute) // longer than any other is waited for
				if err := in.SetReadDeadline(time.Now()); err != nil {
					t.Error(err)
				}
				if err := in.Accept(); err != nil {
					t.Error(err)
				}
				if rc := <-sent; rc.Path == "rendezvous" || rc.Digest != in.Digest() || rc.Bytes != int64(size) {
					t.Errorf("%+v", rc)
				}
				nothingMore(t, b)
			})
		})
	}
}

// nothingMore holds that no state comes.
func nothingMore(t *testing.T, n *fnlib.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if in, err := n.Receive(ctx); err == nil {
		t.Errorf("%s came from %s", in.Key, in.From)
	}
}

// The sender learns of a refusal.
func TestEarlyRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquaint(t)
		go refuseOne(t, b, (*fnlib.Incoming).Reject)
		_, err := a.Send(t.Context(), "b", "k", strings.NewReader("state"))
		if !errors.Is(err, fnlib.ErrRejected) || !strings.Contains(err.Error(), "no room") {
			t.Error(err)
		}
		if links := fnlib.LinksOf(a); links != 0 {
			t.Errorf("%d links", links)
		}
	})
}

// A receiver that closes as soon as it has accepted, or is frozen after a Flush, leaves no sender without a receipt.
func TestEarlyAndGone(t *testing.T) {
	for _, flush := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			_, a, b := acquaint(t)
			var gone sync.WaitGroup
			gone.Go(func() {
				if _, _, err := accept(t.Context(), b); err != nil {
					t.Error(err)
				}
				if flush {
					began := time.Now()
					if err := b.Flush(t.Context()); err != nil || time.Since(began) < rtt {
						t.Errorf("flushed after %v, %v", time.Since(began), err)
					}
				}
				_ = b.Close()
			})
			if rc := send(t, a, "b", "state"); rc.Path != "rendezvous" {
				t.Errorf("%+v", rc)
			}
			gone.Wait() // or the other Close holds up the time
		})
	}
}

// A state whose receiver is not there goes by a link when it comes.
func TestEarlyToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		fa, fb := w.functions(true, [2]*natsim.NAT{})
		a, _ := fa.join(early)
		sent := make(chan fnlib.Receipt, 1)
		go func() { sent <- send(t, a, "b", "state") }()
		time.Sleep(5 * time.Second)
		b, _ := fb.join(early)
		<-receiving(t, b)
		if rc := <-sent; rc.Path == "rendezvous" {
			t.Errorf("%+v", rc)
		}
	})
}

// A state that its receiver has not taken when it ends goes to the next instance of the name.
func TestEarlyUntaken(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.joinWith(t, "a", early), w.joinWith(t, "b", early)
	sent := make(chan fnlib.Receipt, 1)
	go func() { sent <- send(t, a, "b", "state") }()
	for fnlib.PendingOf(b) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, got, err := accept(t.Context(), w.joinWith(t, "b", early)); err != nil || string(got) != "state" {
		t.Errorf("%q, %v", got, err)
	}
	if rc := <-sent; rc.Bytes != 5 {
		t.Errorf("%+v", rc)
	}
}

// What its sender gave up is not received any more, after a while.
func TestEarlyGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquaint(t)
		for _, after := range []time.Duration{rtt, 30 * rtt} { // without a link, and with one
			ctx, cancel := context.WithTimeout(t.Context(), after)
			if _, err := a.Send(ctx, "b", "k", strings.NewReader("state")); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
			time.Sleep(6 * time.Second)
			nothingMore(t, b)
		}
	})
}

// Of many states to one function, some go early and the others by the link that they make. None is lost, none comes twice.
func TestManyEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquaint(t)
		const states = 50
		done := make(chan fnlib.Receipt, states)
		for i := range states {
			fnlib.ForgetClaims(a)
			go func() { done <- send(t, a, "b", fmt.Sprint("state ", i)) }()
			time.Sleep(time.Millisecond)
		}
		first := receiving(t, b)
		for range states {
			<-first
			<-done
		}
		nothingMore(t, b)
	})
}

// Whenever the word comes, and whatever becomes of the link that is made meanwhile, the sender hears it.
func TestEarlyWordIsLate(t *testing.T) {
	for _, cut := range []bool{false, true} {
		for after := 6 * rtt; after < 10*rtt; after += rtt / 8 {
			synctest.Test(t, func(t *testing.T) {
				w, a, b := acquaint(t)
				if cut {
					w.cut(time.Second)
				}
				var gone sync.WaitGroup
				gone.Go(func() {
					in, err := b.Receive(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					_, err = io.Copy(io.Discard, in)
					time.Sleep(after)
					if err := errors.Join(err, in.Accept(), b.Flush(t.Context()), b.Close()); err != nil {
						t.Error(err)
					}
				})
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				if _, err := a.Send(ctx, "b", "k", strings.NewReader("state")); err != nil {
					t.Errorf("cut %v, after %v: %v", cut, after, err)
				}
				gone.Wait()
			})
		}
	}
}

// A word that does not get there at first is said again.
func TestEarlyWordSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		fa, fb := w.functions(true, [2]*natsim.NAT{})
		a, _ := fa.join(early)
		b, _ := fb.join(early)
		synctest.Wait()
		w.cut(time.Minute) // so that no link tells
		sent := make(chan fnlib.Receipt, 1)
		go func() { sent <- send(t, a, "b", "state") }()
		in, err := b.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, in); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := in.Accept(); err != nil {
			t.Error(err)
		}
		time.Sleep(rtt / 4) // it is on its way
		w.mu.Lock()
		_ = fb.nats.Close()
		w.mu.Unlock()
		if err := b.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if rc := <-sent; rc.Path != "rendezvous" || time.Since(began) > 5*time.Second {
			t.Errorf("after %v: %+v", time.Since(began), rc)
		}
	})
}

// cut has all packets lost for a while, but not what goes over NATS.
func (w *bubble) cut(d time.Duration) {
	until := time.Now().Add(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = func(netip.AddrPort) bool { return time.Now().Before(until) }
}

// What was accepted so long ago that it is forgotten is not accepted again when its sender comes by a link.
func TestEarlyForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquaint(t)
		e, err := fnlib.EarlyEnvelope(a, "b", "state") // whose word nobody awaits
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(rtt)
		if err := fnlib.TakeEnvelope(b, e); err != nil {
			t.Fatal(err)
		}
		if _, _, err := accept(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		fnlib.ForgetSettled(b)
		if err := fnlib.TakeEnvelope(b, e); err != nil { // as who repeats it would have it
			t.Error(err)
		}
		if err := fnlib.SendAgain(t.Context(), a, "b", e); err == nil || !strings.Contains(err.Error(), "remembers only") {
			t.Error(err)
		}
		nothingMore(t, b)
	})
}

// A state that was stored while its receiver held it is accepted once, and not left for the next instance.
func TestEarlyAndStored(t *testing.T) {
	s, _ := openStore(t)
	synctest.Test(t, func(t *testing.T) {
		fa, fb := newBubble(t, rtt).functions(true, [2]*natsim.NAT{})
		with := func(c *fnlib.Config) { c.Store = s; early(c) }
		a, _ := fa.join(with)
		b, _ := fb.join(with)
		synctest.Wait()
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			if rc, err := a.Send(ctx, "b", "k", strings.NewReader("state")); err != nil || rc.Stored == "" {
				t.Errorf("%+v, %v", rc, err)
			}
		}()
		in, err := b.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if !in.Again() || in.Path() != "rendezvous" {
			t.Errorf("it is not in the store as well; %s", in.Path())
		}
		if _, err := io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
		if err := in.Accept(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if left := objects(t, s); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

// A node that closes does not wait for a word.
func TestEarlyAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquaint(t)
		sent := make(chan error, 1)
		go func() {
			_, err := a.Send(t.Context(), "b", "k", strings.NewReader("state"))
			sent <- err
		}()
		if _, err := b.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		select {
		case err := <-sent:
			if !errors.Is(err, fnlib.ErrClosed) {
				t.Error(err)
			}
		default:
			t.Error("Send outlasts Close")
		}
	})
}

// What comes in another order than it was sent in is taken all the same, and what is not whole is refused at both ends.
func TestEarlyAskew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquaint(t)
		var es [2]rendezvous.Envelope
		for i := range es {
			var err error
			if es[i], err = fnlib.EarlyEnvelope(a, "b", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		for _, i := range []int{1, 0} {
			if err := fnlib.TakeEnvelope(b, es[i]); err != nil {
				t.Error(err)
			}
			if _, got, err := accept(t.Context(), b); err != nil || string(got) != fmt.Sprint(i) {
				t.Errorf("%q, %v", got, err)
			}
		}
		e, err := fnlib.CutEarlyEnvelope(a, "b", "state")
		if err != nil {
			t.Fatal(err)
		}
		if err := fnlib.TakeEnvelope(b, e); err != nil {
			t.Fatal(err)
		}
		in, err := b.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := in.SetReadDeadline(time.Now()); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(in); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if err := in.SetReadDeadline(time.Time{}); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(in); err == nil || !strings.Contains(err.Error(), "malformed") {
			t.Error(err)
		}
		old, err := fnlib.EarlyEnvelope(a, "b", "state")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if err := fnlib.TakeEnvelope(b, old); err == nil {
			t.Error("an early state was taken late")
		}
		nothingMore(t, b)
	})
}

// So many early states wait and no more, and those whose senders have not come back are forgotten.
func TestEarlyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquaint(t)
		for range 2 {
			for range 300 {
				e, err := fnlib.EarlyEnvelope(a, "b", "state")
				if err != nil {
					t.Fatal(err)
				}
				if err := fnlib.TakeEnvelope(b, e); err != nil {
					t.Fatal(err)
				}
			}
			if n := fnlib.PendingOf(b); n != 256 {
				t.Errorf("%d wait", n)
			}
			if _, _, err := accept(t.Context(), b); err != nil {
				t.Error(err)
			}
			time.Sleep(6 * time.Second)
			if n := fnlib.PendingOf(b); n != 0 {
				t.Errorf("%d wait yet", n)
			}
		}
	})
}

// What was not sealed for this envelope by a member of the job is refused, and nobody gets it.
func TestEarlyIsNotTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := acquaint(t)
		good := func() rendezvous.Envelope {
			e, err := fnlib.EarlyEnvelope(a, "b", "state")
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		other := good()
		for what, change := range map[string]func(e *rendezvous.Envelope){
			"changed":     func(e *rendezvous.Envelope) { e.Early[40]++ },
			"cut":         func(e *rendezvous.Envelope) { e.Early = e.Early[:len(e.Early)-1] },
			"another's":   func(e *rendezvous.Envelope) { e.Early = other.Early },
			"none":        func(e *rendezvous.Envelope) { e.Early = nil },
			"another MAC": func(e *rendezvous.Envelope) { e.MAC = other.MAC },
		} {
			e := good()
			change(&e)
			if err := fnlib.TakeEnvelope(b, e); err == nil {
				t.Errorf("%s: taken", what)
			}
		}
		nothingMore(t, b)
		e := good()
		for range 3 { // a repetition is none
			if err := fnlib.TakeEnvelope(b, e); err != nil {
				t.Error(err)
			}
		}
		if _, got, err := accept(t.Context(), b); err != nil || string(got) != "state" {
			t.Errorf("%q, %v", got, err)
		}
		nothingMore(t, b)
	})
}
