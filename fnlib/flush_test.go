package fnlib_test

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store/file"
	"github.com/fnwire/fnwire/internal/natsim"
)

// sending sends a state and tells what became of it.
func sending(ctx context.Context, n *fnlib.Node, to, state string) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := n.Send(ctx, to, "k", strings.NewReader(state))
		done <- err
	}()
	return done
}

// take receives a state and reads it.
func take(t *testing.T, n *fnlib.Node) *fnlib.Incoming {
	t.Helper()
	in, err := n.Receive(t.Context())
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// TestFlushBeforeFreeze: the packet with the receipt is lost, and the receiver is frozen for good as soon as Flush has returned: its
// sender knows, and sends nothing that waits for an acknowledgement.
func TestFlushBeforeFreeze(t *testing.T) {
	for _, lower := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newBubble(t, rtt)
			fa, fb := w.functions(lower, [2]*natsim.NAT{})
			b, _ := fb.join()
			a, _ := fa.join()
			sent := sending(t.Context(), a, "b", "first")
			if err := take(t, b).Accept(); err != nil {
				t.Fatal(err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second) // the link is direct, and all is said
			if err := a.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}

			sent = sending(t.Context(), a, "b", "second")
			in := take(t, b)
			time.Sleep(rtt)
			losses, frozen, late := 1, false, 0
			w.mu.Lock()
			w.lose = func(from netip.AddrPort) bool {
				lost := from == fb.socket.addr && (frozen || losses > 0)
				if lost {
					losses--
				}
				return lost
			}
			w.mu.Unlock()
			if err := in.Accept(); err != nil {
				t.Fatal(err)
			}
			if err := b.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			if losses > 0 {
				t.Error("nothing was lost")
			}
			frozen = true
			froze := time.Now()
			w.sent = func(from, _ netip.AddrPort, p []byte) {
				if from == fa.socket.addr && p[0] >= 0x40 && time.Since(froze) > rtt { // before, it acknowledges

					late++
				}
			}
			w.mu.Unlock()
			select {
			case err := <-sent:
				if err != nil {
					t.Error(err)
				}
			default:
				t.Error("the sender knew nothing when Flush had returned")
			}
			time.Sleep(5 * time.Second)
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.sent = nil; late > 0 {
				t.Errorf("the sender sent %d packets on, which were not acknowledged", late)
			}
			w.lose = nil
		})
	}
}

// TestFlushWaits: for what was sent and is not accepted yet, until it is accepted or stored; and for nothing else.
func TestFlushWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := file.Open(t.Context(), "file://"+t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		w := newBubble(t, rtt)
		fa, fb := w.functions(true, [2]*natsim.NAT{})
		a, _ := fa.join(func(c *fnlib.Config) { c.Store = s })
		began := time.Now()
		if err := a.Flush(t.Context()); err != nil || time.Since(began) > 0 {
			t.Errorf("with nothing under way: %v after %v", err, time.Since(began))
		}
		stored := sending(t.Context(), a, "c", "for nobody yet")
		synctest.Wait()
		if err := a.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-stored; err != nil {
			t.Error(err)
		}

		b, _ := fb.join()
		sent := sending(t.Context(), a, "b", "state")
		in := take(t, b)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before the receiver has accepted: %v", err)
		}
		if err := in.Accept(); err != nil {
			t.Error(err)
		}
		if err := a.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		_ = a.Close()
		if err := a.Flush(t.Context()); err != nil && !errors.Is(err, fnlib.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

// TestCloseWithinGrace: a peer that is frozen answers no BYE, and the process is killed soon after SIGTERM.
func TestCloseWithinGrace(t *testing.T) {
	for grace, most := range map[time.Duration]time.Duration{0: 2 * time.Second, 400 * time.Millisecond: 400 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			w := newBubble(t, rtt)
			fa, fb := w.functions(true, [2]*natsim.NAT{})
			b, _ := fb.join()
			l, err := b.Listen("x")
			if err != nil {
				t.Fatal(err)
			}
			a, _ := fa.join(func(c *fnlib.Config) { c.Grace = grace })
			c, err := a.Dial(t.Context(), "b:x")
			if err == nil {
				_, err = io.WriteString(c, "unread")
			}
			if err == nil {
				_, err = l.Accept()
			}
			if err == nil {
				err = c.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_ = a.Close()
			if took := time.Since(began); took < most || took > most+3*rtt {
				t.Errorf("with Grace %v closed after %v, want %v", grace, took, most)
			}
		})
	}
}
