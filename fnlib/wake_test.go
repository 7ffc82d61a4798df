package fnlib_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

const wakeSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// entry is the HTTP entry of a function: it starts the function when the rendezvous has somebody call for it.
func (w *world) entry(t *testing.T, start func(wake.Event) (status int)) (called *atomic.Int32) {
	t.Helper()
	secret, err := wake.ParseSecret(wakeSecret)
	if err != nil {
		t.Fatal(err)
	}
	called = new(atomic.Int32)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		called.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		e, err := wake.Verify(r.Header.Get, body, secret)
		if err != nil {
			t.Error(err)
		}
		rw.WriteHeader(start(e))
	}))
	t.Cleanup(srv.Close)
	hooks, err := wake.Parse([]byte(`{"hooks":[{"name":"reduce-*","url":"`+srv.URL+`","secret":"`+wakeSecret+`"}]}`),
		func(ref string) (string, error) { return ref, nil })
	if err != nil {
		t.Fatal(err)
	}
	w.rdv.SetHooks(hooks)
	return called
}

// A function is started only when there is something for it: whether its caller waits for it, or has stored a state and gone.
func TestWake(t *testing.T) {
	for name, storeOnly := range map[string]bool{"called": false, "stored": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			s, _ := openStore(t)
			with := func(c *fnlib.Config) { c.Store, c.SpillAfter = s, time.Minute }
			type result struct {
				state []byte
				err   error
			}
			received := make(chan result, 4)
			called := w.entry(t, func(e wake.Event) int {
				if e.Data.Name != "reduce-0" || e.Data.Reason != name || e.Data.Caller != "a" {
					t.Errorf("%+v", e)
				}
				go func() { // the function
					var r result
					cfg := w.config(e.Data.Name)
					with(&cfg)
					n, err := fnlib.Join(t.Context(), cfg)
					if err == nil {
						_, r.state, err = accept(t.Context(), n)
						_ = n.Close()
					}
					r.err = err
					received <- r
				}()
				return http.StatusAccepted
			})
			a := w.joinWith(t, "a", with)
			state := randomBytes(300_000)
			rc, err := a.SendWith(t.Context(), "reduce-0", "k", bytes.NewReader(state), fnlib.SendOptions{StoreOnly: storeOnly})
			if err != nil || (rc.Stored != "") != storeOnly {
				t.Fatalf("%+v, %v", rc, err)
			}
			if r := <-received; r.err != nil || !bytes.Equal(r.state, state) {
				t.Errorf("%d bytes, %v", len(r.state), r.err)
			}
			if n := called.Load(); n != 1 {
				t.Errorf("hook called %d times", n)
			}
		})
	}
}

// A caller that gives up is told that the hook failed, once that is so.
func TestWakeFails(t *testing.T) {
	w := newWorld(t, 1)
	w.entry(t, func(wake.Event) int { return http.StatusForbidden })
	a := w.join(t, "a")
	patience, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		ctx, cancel := context.WithTimeout(patience, 100*time.Millisecond)
		_, err := a.Send(ctx, "reduce-0", "k", strings.NewReader("state"))
		cancel()
		if err != nil && strings.Contains(err.Error(), `"reduce-0" has not joined yet; its wake hook: failed: answered 403 Forbidden`) {
			return
		}
		if err == nil || patience.Err() != nil {
			t.Fatal(err)
		}
	}
}
