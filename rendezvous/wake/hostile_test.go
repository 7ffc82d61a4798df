package wake_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnwire/fnwire/rendezvous/wake"
)

// TestHostileHooks: whatever is at the other end, the sender is bounded, follows nowhere and tells the job's members little.
func TestHostileHooks(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	hijack := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte(answer)) // the sender may have gone
			_ = c.Close()                  // likewise
		}
	}
	for name, c := range map[string]struct {
		handle   http.HandlerFunc
		reason   string
		attempts int
	}{
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, "answered 307 Temporary Redirect", 1},
		"gone":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }, "answered 410 Gone", 1},
		"odd code":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(799) }, "answered 799", 1},
		"closes":        {hijack(""), "no answer", 3},
		"no HTTP":       {hijack("220 mail.example ESMTP\r\n"), "no answer", 3},
		"huge header":   {hijack("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), "no answer", 3},
		"cut off":       {hijack("HTTP/1.1 503 Service"), "no answer", 3},
		"slow down":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, "answered 429 Too Many Requests", 3},
		"endless error": {endless(http.StatusInternalServerError), "answered 500 Internal Server Error", 3},
		"endless":       {endless(http.StatusOK), "", 0},
		"good":          {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(c.handle)
			defer srv.Close()
			s := wake.NewSender(wake.Config{Attempts: 3, Backoff: time.Millisecond})
			defer s.Close()
			err := s.Send(t.Context(), hookFor(t, srv.URL+"/{name}?code=key", ""), wake.NewID(), eventFor("b"), always)
			var failed *wake.FailedError
			if c.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.As(err, &failed) || failed.Reason != c.reason || failed.Attempts != c.attempts {
				t.Fatalf("%v, want %q after %d attempts", err, c.reason, c.attempts)
			}
			if strings.Contains(err.Error(), "code=key") || len(err.Error()) > 1200 {
				t.Errorf("for the log: %.2000s", err.Error())
			}
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// endless answers with a body that has no end.
func endless(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		block := make([]byte, 64<<10)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String() + "/"
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := wake.NewSender(wake.Config{Attempts: 2, Backoff: time.Millisecond})
	defer s.Close()
	err = s.Send(t.Context(), hookFor(t, url, ""), wake.NewID(), eventFor("b"), always)
	var failed *wake.FailedError
	if !errors.As(err, &failed) || failed.Reason != "no answer" || failed.Attempts != 2 {
		t.Errorf("%v", err)
	}
}
