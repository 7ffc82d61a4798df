package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

const wakeSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// hook is an HTTP server that is called to wake names.
type hook struct {
	url    string
	events chan wake.Event
	ids    chan string
}

func newHook(t *testing.T, answer http.HandlerFunc) *hook {
	t.Helper()
	k, err := wake.ParseSecret(wakeSecret)
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{events: make(chan wake.Event, 64), ids: make(chan string, 64)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		e, err := wake.Verify(r.Header.Get, body, k)
		if err != nil {
			t.Error(err)
		}
		h.events <- e
		h.ids <- r.Header.Get("webhook-id")
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

// hooks has a hook for the names that begin with b.
func hooks(t *testing.T, url, more string) *wake.Hooks {
	t.Helper()
	h, err := wake.Parse([]byte(`{"hooks":[{"name":"b*","url":"`+url+`/{name}","secret":"`+wakeSecret+`"`+more+`}]}`),
		func(ref string) (string, error) { return ref, nil })
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (in *instance) stored(t *testing.T, to string) rendezvous.OfferResult {
	t.Helper()
	h := in.hello(rendezvous.KindStored, to, "")
	h.Stored = "name"
	e, err := rendezvous.Seal(in.key, h)
	if err != nil {
		t.Fatal(err)
	}
	r, err := in.Offer(within(t), to, e)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestWake: a call of a name that nobody holds has its hook called once; whoever joins then has the offer. It is the same
// on both tables.
func TestWake(t *testing.T) {
	for name, replicated := range map[string]bool{"memory": false, "kv": true} {
		t.Run(name, func(t *testing.T) {
			key := job.NewKey()
			h := newHook(t, nil)
			s := start(t, server.Config{Allow: []job.ID{key.ID()}, Replicated: replicated, Hooks: hooks(t, h.url, "")})
			a := dial(t, s.URL(), key, "a")
			a.join(t)
			for range 3 {
				if r := a.offer(t, "b"); r.Delivered || r.Wake != rendezvous.WakeCalled {
					t.Errorf("%+v", r)
				}
			}
			if r := a.stored(t, "b"); r.Delivered || r.Wake != rendezvous.WakeCalled {
				t.Errorf("%+v", r)
			}
			if r := a.offer(t, "c"); r.Wake != "" {
				t.Errorf("a name without a hook: %+v", r)
			}
			e := got(t, h.events)
			if e.Data.Job != key.ID() || e.Data.Name != "b" || e.Data.Reason != wake.Called || e.Data.Caller != "a" || e.Data.Parked != 1 ||
				time.Since(e.Time).Abs() > time.Minute {
				t.Errorf("%+v", e)
			}
			b := dial(t, s.URL(), key, "b")
			if n := len(b.join(t).Parked); n != 1 {
				t.Errorf("%d parked", n)
			}
			if r := a.offer(t, "b"); !r.Delivered || r.Wake != "" {
				t.Errorf("%+v", r)
			}
			if r := a.stored(t, "b"); !r.Delivered {
				t.Errorf("%+v", r)
			}
			// Gone again: the next call wakes it again, whenever the last one was.
			if err := b.Leave(within(t)); err != nil {
				t.Fatal(err)
			}
			a.stored(t, "b")
			if e := got(t, h.events); e.Data.Reason != wake.Stored || e.Data.Parked != 0 && e.Data.Parked != 1 {
				t.Errorf("%+v", e)
			}
			if n := len(b.join(t).Parked); n > 1 {
				t.Errorf("%d parked: the notice of a stored state is among them", n)
			}
			if len(h.events) != 0 {
				t.Errorf("%d more calls", len(h.events))
			}
		})
	}
}

// TestWakeWithJoin: an offer that goes with a join wakes as well.
func TestWakeWithJoin(t *testing.T) {
	key := job.NewKey()
	h := newHook(t, nil)
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	s.SetHooks(hooks(t, h.url, ""))
	a := dial(t, s.URL(), key, "a")
	if _, err := a.Join(within(t), a.seal(t, rendezvous.KindOffer, "b0", "")); err != nil {
		t.Fatal(err)
	}
	if e := got(t, h.events); e.Data.Name != "b0" || e.Data.Caller != "a" {
		t.Errorf("%+v", e)
	}
	s.SetHooks(nil)
	if r := a.offer(t, "b1"); r.Wake != "" {
		t.Errorf("%+v", r)
	}
}

// TestWakeFails: the callers are told, those that wait and those that come.
func TestWakeFails(t *testing.T) {
	key := job.NewKey()
	h := newHook(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "a secret of the hook", http.StatusForbidden)
	})
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Hooks: hooks(t, h.url, "")})
	told := make(chan string, 1)
	a := dial(t, s.URL(), key, "a", func(c *rendezvous.Config) {
		c.OnWake = func(name, what string) { told <- name + " " + what }
	})
	a.join(t)
	a.offer(t, "b")
	if s := got(t, told); s != "b failed: answered 403 Forbidden" {
		t.Errorf("told %q", s)
	}
	if r := a.offer(t, "b"); r.Wake != "failed: answered 403 Forbidden" {
		t.Errorf("%+v", r)
	}
	if len(h.events) != 1 {
		t.Errorf("called %d times", len(h.events))
	}
	if m := metricsOf(t, s); !strings.Contains(m, `fnwire_rendezvous_wakes_total{result="failed"} 1`) {
		t.Errorf("metrics: %s", m)
	}
}

func metricsOf(t *testing.T, s *running) string {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// TestWakeEndsWithJoin: a hook that answers only when its function has done its work, or badly, is not called again once
// the name has a holder.
func TestWakeEndsWithJoin(t *testing.T) {
	key := job.NewKey()
	release := make(chan struct{})
	h := newHook(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.WriteHeader(http.StatusBadGateway)
	})
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Hooks: hooks(t, h.url, "")})
	a, b := dial(t, s.URL(), key, "a"), dial(t, s.URL(), key, "b")
	a.join(t)
	a.offer(t, "b")
	got(t, h.events)
	b.join(t)
	close(release)
	s.stop(t) // waits for what is under way
	if m := metricsOf(t, s); len(h.events) != 0 || !strings.Contains(m, `fnwire_rendezvous_wakes_total{result="unneeded"} 1`) {
		t.Errorf("called again %d times; metrics: %s", len(h.events), m)
	}
}

// TestWakeStops: the service does not wait for hooks that hang.
func TestWakeStops(t *testing.T) {
	key := job.NewKey()
	h := newHook(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Hooks: hooks(t, h.url, "")})
	a := dial(t, s.URL(), key, "a")
	a.join(t)
	a.offer(t, "b")
	got(t, h.events)
	s.stop(t)
}

// TestWakeOfCopies: however many copies there are and whoever calls, a name is woken once.
func TestWakeOfCopies(t *testing.T) {
	key := job.NewKey()
	ns := existing(t)
	var now, most atomic.Int32
	release := make(chan struct{})
	h := newHook(t, func(http.ResponseWriter, *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		<-release
		now.Add(-1)
	})
	cfg := server.Config{NATS: ns.ClientURL(), Allow: []job.ID{key.ID()}, Replicated: true, Hooks: hooks(t, h.url, "")}
	for range 3 {
		start(t, cfg)
	}
	var all sync.WaitGroup
	for _, name := range []string{"a0", "a1", "a2", "a3", "a4", "a5"} {
		a := dial(t, ns.ClientURL(), key, name)
		a.join(t)
		all.Go(func() {
			for range 4 {
				e, err := rendezvous.Seal(key, a.hello(rendezvous.KindOffer, "b", ""))
				if err != nil {
					t.Error(err)
					return
				}
				if r, err := a.Offer(within(t), "b", e); err != nil || r.Wake != rendezvous.WakeCalled {
					t.Errorf("%+v, %v", r, err)
				}
			}
		})
	}
	all.Wait()
	got(t, h.events)
	close(release)
	if n := len(dial(t, ns.ClientURL(), key, "b").join(t).Parked); n != 6 {
		t.Errorf("%d parked", n)
	}
	if len(h.events) != 0 || most.Load() != 1 {
		t.Errorf("%d more calls, %d at once", len(h.events), most.Load())
	}
}

// TestWakeCannotSteer: what members of a job can say chooses neither host nor path.
func TestWakeCannotSteer(t *testing.T) {
	key := job.NewKey()
	h := newHook(t, nil)
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Hooks: hooks(t, h.url, "")})
	a := dial(t, s.URL(), key, "a")
	a.join(t)
	nc, _ := raw(t, s.URL(), nkey(t, key.Signer()), inboxOf(key))
	for _, name := range []string{"b/../x", "b@evil.example", "b?x=1", "b%2e", "b.c", "b c"} {
		e := a.seal(t, rendezvous.KindOffer, "b", "")
		e.ToName = name
		req := rendezvous.OfferRequest{
			Head:  rendezvous.Head{V: 1, Job: key.ID(), Name: "a", Peer: a.id.Peer.String(), Issued: time.Now()},
			Epoch: a.Epoch(), Envelope: e,
		}
		if code := ask(t, nc, rendezvous.VerbOffer, key.ID(), req, nil, a.id.Ed25519); code != rendezvous.CodeBadRequest {
			t.Errorf("%q: %q", name, code)
		}
	}
	// Who has not joined, or speaks for another, wakes nobody.
	stranger := dial(t, s.URL(), key, "x")
	e := stranger.seal(t, rendezvous.KindOffer, "b", "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := stranger.Offer(ctx, "b", e); !errors.Is(err, rendezvous.ErrUnknown) {
		t.Errorf("%v", err)
	}
	if len(h.events) != 0 {
		t.Errorf("%d calls", len(h.events))
	}
}

// roundTrip answers requests without a network.
type roundTrip func(*http.Request) int

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: f(r), Body: http.NoBody, Request: r}, nil
}

// TestWakeTimes: a function that was started has its time to join, and a hook that failed is left alone for a while. Then the
// next call wakes again.
func TestWakeTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := job.NewKey()
		var calls, code atomic.Int32
		code.Store(http.StatusAccepted)
		s, stop := inBubble(t, server.Config{
			Allow: []job.ID{key.ID()}, DontListen: true, Hooks: hooks(t, "https://hook.example", `,"start":"40s"`),
			HookTransport: roundTrip(func(*http.Request) int { calls.Add(1); return int(code.Load()) }),
		})
		a := dial(t, "", key, "a", func(c *rendezvous.Config) { c.InProcess = s })
		a.join(t)
		life, end := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- a.Run(life) }()

		offer := func(after time.Duration, told string, want int32) {
			t.Helper()
			time.Sleep(after)
			if r := a.offer(t, "b"); r.Wake != told {
				t.Errorf("told %q, want %q", r.Wake, told)
			}
			time.Sleep(10 * time.Second) // for all attempts
			if n := calls.Load(); n != want {
				t.Errorf("%d calls, want %d", n, want)
			}
		}
		offer(0, "called", 1)
		offer(29*time.Second, "called", 1)
		code.Store(http.StatusServiceUnavailable)
		offer(0, "called", 6) // five attempts, within 7.5 s
		offer(0, "failed: answered 503 Service Unavailable", 6)
		offer(8*time.Second, "called", 11)

		end()
		want(t, <-ran, context.Canceled)
		_ = a.Close()
		stop()
	})
}

// TestWakeOfDeadCopy: the claim of a copy that died is respected for as long as it holds, and then no more.
func TestWakeOfDeadCopy(t *testing.T) {
	key := job.NewKey()
	ns := existing(t)
	h := newHook(t, nil)
	start(t, server.Config{NATS: ns.ClientURL(), Allow: []job.ID{key.ID()}, Replicated: true, Hooks: hooks(t, h.url, "")})
	a := dial(t, ns.ClientURL(), key, "a")
	a.join(t)
	nc, _ := raw(t, ns.ClientURL())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(within(t), "fnwire_v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		until time.Time
		calls int
	}{{time.Now().Add(time.Hour), 0}, {time.Now().Add(-time.Second), 1}} {
		b, err := json.Marshal(map[string]any{"v": 1, "wake": map[string]any{"id": "wake_of_another_copy", "until": c.until}})
		if err == nil {
			_, err = kv.Put(within(t), key.ID().String()+".b", b)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := a.offer(t, "b"); r.Wake != rendezvous.WakeCalled {
			t.Errorf("%+v", r)
		}
		for range c.calls {
			got(t, h.events)
		}
		if len(h.events) != 0 {
			t.Error("called in spite of the claim")
		}
	}
}
