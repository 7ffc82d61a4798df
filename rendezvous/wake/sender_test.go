package wake_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

func always(context.Context) bool { return true }

// hookFor is a hook for every name.
func hookFor(t testing.TB, url, more string) *wake.Hook {
	t.Helper()
	h, err := wake.Parse([]byte(`{"hooks":[{"name":"*","url":"`+url+`","secret":"`+vectorSecret+`"`+more+`}]}`), literal)
	if err != nil {
		t.Fatal(err)
	}
	return h.Find(job.ID{}, "any")
}

func eventFor(name string) wake.Event {
	return wake.Event{Type: wake.EventType, Time: time.Now().UTC(), Data: wake.Data{Name: name, Reason: wake.Called}}
}

// pipe is a network inside of a bubble of virtual time: what is dialled is accepted.
type pipe struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipe) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipe) Addr() net.Addr { return &net.TCPAddr{} }
func (p *pipe) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve answers with handle until the returned function is called, over a network in memory.
func serve(t testing.TB, cfg wake.Config, handle http.HandlerFunc) (s *wake.Sender, stop func()) {
	t.Helper()
	p := &pipe{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv := &http.Server{Handler: handle, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(p) }()
	cfg.Transport = &http.Transport{DialContext: p.dial}
	s = wake.NewSender(cfg)
	return s, func() {
		s.Close()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}
}

// TestRetries: attempts are bounded, their pauses double, the ID stays, the time does not, and every one is signed.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := secret(t, vectorSecret)
		var at []time.Time
		ids := map[string]bool{}
		s, stop := serve(t, wake.Config{}, func(w http.ResponseWriter, r *http.Request) {
			at = append(at, time.Now())
			ids[r.Header.Get("webhook-id")] = true
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			if e, err := wake.Verify(r.Header.Get, body, k); err != nil || e.Data.Name != "b" || r.URL.Path != "/b" || r.Method != http.MethodPost {
				t.Errorf("%+v, %v", e, err)
			}
			w.WriteHeader(http.StatusInternalServerError)
		})
		defer stop()
		err := s.Send(t.Context(), hookFor(t, "http://hook/{name}", ""), wake.NewID(), eventFor("b"), always)
		var failed *wake.FailedError
		if !errors.As(err, &failed) || failed.Attempts != 5 || failed.Reason != "answered 500 Internal Server Error" {
			t.Errorf("%v", err)
		}
		if len(at) != 5 || len(ids) != 1 {
			t.Fatalf("%d attempts, IDs %v", len(at), ids)
		}
		for i, d := 1, 500*time.Millisecond; i < len(at); i, d = i+1, 2*d {
			if p := at[i].Sub(at[i-1]); p > d || p < d*3/4 {
				t.Errorf("pause %d: %v, want up to %v", i, p, d)
			}
		}
	})
}

// TestRetryAfterIsHonoured, but not for longer than is good.
func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		answers := []string{"7", "86400", ""}
		s, stop := serve(t, wake.Config{}, func(w http.ResponseWriter, _ *http.Request) {
			at = append(at, time.Now())
			if after := answers[len(at)-1]; after != "" {
				w.Header().Set("Retry-After", after)
				w.WriteHeader(http.StatusTooManyRequests)
			}
		})
		defer stop()
		if err := s.Send(t.Context(), hookFor(t, "http://hook/", ""), wake.NewID(), eventFor("b"), always); err != nil {
			t.Fatal(err)
		}
		if len(at) != 3 || at[1].Sub(at[0]) != 7*time.Second || at[2].Sub(at[1]) != 30*time.Second {
			t.Errorf("attempts at %v", at)
		}
	})
}

func TestRetryAfterForms(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "soon": 0, "99999999999": 0,
		"Sun, 22 Nov 2026 12:00:09 GMT": 9 * time.Second, "Sun, 22 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := wake.RetryAfter(in, now); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

// TestHangs: an attempt that is not answered ends after its timeout, and the event after its attempts.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := serve(t, wake.Config{Attempts: 2}, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the server notices that the sender is gone only if it has read all
			<-r.Context().Done()
		})
		defer stop()
		began := time.Now()
		err := s.Send(t.Context(), hookFor(t, "http://hook/", `,"timeout":"3s"`), wake.NewID(), eventFor("b"), always)
		var failed *wake.FailedError
		if !errors.As(err, &failed) || failed.Reason != "no answer within 3s" {
			t.Errorf("%v", err)
		}
		if took := time.Since(began); took < 6*time.Second+375*time.Millisecond || took > 6*time.Second+500*time.Millisecond {
			t.Errorf("took %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Send(ctx, hookFor(t, "http://hook/", ""), wake.NewID(), eventFor("b"), always); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up: %v", err)
		}
	})
}

// TestOneInFlight: of one name one event is in flight and one waits; other names are not held up.
func TestOneInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := map[string]int{}, 0
		s, stop := serve(t, wake.Config{}, func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			now[r.URL.Path]++
			most = max(most, now[r.URL.Path])
			mu.Unlock()
			time.Sleep(2 * time.Second)
			mu.Lock()
			now[r.URL.Path]--
			mu.Unlock()
		})
		defer stop()
		h := hookFor(t, "http://hook/{name}", "")
		results := make(chan error, 5)
		began := time.Now()
		for i := range cap(results) {
			go func() {
				name := "b"
				if i > 2 {
					name = fmt.Sprint("c", i)
				}
				results <- s.Send(t.Context(), h, wake.NewID(), eventFor(name), always)
			}()
		}
		busy, sent := 0, 0
		for range cap(results) {
			switch err := <-results; {
			case err == nil:
				sent++
			case errors.Is(err, wake.ErrBusy):
				busy++
			default:
				t.Error(err)
			}
		}
		if busy != 1 || sent != 4 || most != 1 || time.Since(began) != 4*time.Second {
			t.Errorf("%d busy, %d sent, %d at once, %v", busy, sent, most, time.Since(began))
		}
	})
}

// TestBounds: attempts under way and events that wait are bounded in all.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var mu sync.Mutex
		now, most := 0, 0
		s, stop := serve(t, wake.Config{InFlight: 2}, func(http.ResponseWriter, *http.Request) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			<-release
			mu.Lock()
			now--
			mu.Unlock()
		})
		defer stop()
		h := hookFor(t, "http://hook/", "")
		results := make(chan error, 40)
		for i := range cap(results) {
			go func() { results <- s.Send(t.Context(), h, wake.NewID(), eventFor(fmt.Sprint("b", i)), always) }()
		}
		synctest.Wait()
		if len(results) != 8 || most != 2 {
			t.Errorf("%d refused, want 8; %d at once, want 2", len(results), most)
		}
		close(release)
		for range cap(results) {
			if err := <-results; err != nil && !errors.Is(err, wake.ErrBusy) {
				t.Error(err)
			}
		}
		if most != 2 {
			t.Errorf("%d at once, want 2", most)
		}
	})
}

// TestRate: a name that is called and leaves over and over is woken ten times at once, then once a second.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := serve(t, wake.Config{}, func(http.ResponseWriter, *http.Request) {})
		defer stop()
		h := hookFor(t, "http://hook/", "")
		began := time.Now()
		for i := range 15 {
			if err := s.Send(t.Context(), h, wake.NewID(), eventFor("b"), always); err != nil {
				t.Fatal(err)
			}
			if want := time.Duration(max(0, i-9)) * time.Second; time.Since(began) != want {
				t.Errorf("event %d after %v, want %v", i, time.Since(began), want)
			}
		}
		time.Sleep(time.Minute)
		for i := range 1100 {
			if err := s.Send(t.Context(), h, wake.NewID(), eventFor("n"+strconv.Itoa(i)), always); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := s.Remembered(); n > 1024 {
			t.Errorf("%d names in memory, though nobody wants anything of them", n)
		}
	})
}

// TestUnwanted: who has joined in the meantime is not woken again.
func TestUnwanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		called := 0
		s, stop := serve(t, wake.Config{}, func(w http.ResponseWriter, _ *http.Request) {
			called++
			w.WriteHeader(http.StatusBadGateway)
		})
		defer stop()
		asked := 0
		err := s.Send(t.Context(), hookFor(t, "http://hook/", ""), wake.NewID(), eventFor("b"), func(context.Context) bool {
			asked++
			return asked < 3
		})
		if !errors.Is(err, wake.ErrUnwanted) || called != 2 {
			t.Errorf("%v after %d calls", err, called)
		}
	})
}

// TestHookRate: however many names the members of a job call, their hook is called no more often than its operator wants.
func TestHookRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := serve(t, wake.Config{}, func(http.ResponseWriter, *http.Request) {})
		defer stop()
		h := hookFor(t, "http://hook/", `,"rate":2`)
		results := make(chan error, 100)
		began := time.Now()
		for i := range cap(results) {
			go func() { results <- s.Send(t.Context(), h, wake.NewID(), eventFor(fmt.Sprint("b", i)), always) }()
		}
		busy := 0
		for range cap(results) {
			if err := <-results; errors.Is(err, wake.ErrBusy) {
				busy++
			} else if err != nil {
				t.Error(err)
			}
		}
		// Twenty at once, and two a second for the 15 s that an event waits.
		if busy != 50 || time.Since(began) != 15*time.Second {
			t.Errorf("%d refused within %v", busy, time.Since(began))
		}
	})
}

// TestHooksApart: a hook that hangs holds up its own names only.
func TestHooksApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := serve(t, wake.Config{}, func(_ http.ResponseWriter, r *http.Request) {
			if r.Host == "bad" {
				_, _ = io.Copy(io.Discard, r.Body) // the server notices that the sender is gone only if it has read all
				<-r.Context().Done()
			}
		})
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		bad := hookFor(t, "http://bad/", "")
		results := make(chan error, 1000)
		for i := range cap(results) {
			go func() { results <- s.Send(ctx, bad, wake.NewID(), eventFor(fmt.Sprint("b", i)), always) }()
		}
		synctest.Wait()
		began := time.Now()
		if err := s.Send(ctx, hookFor(t, "http://good/", ""), wake.NewID(), eventFor("c"), always); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		cancel()
		for range cap(results) {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}
