package wake

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config of a Sender; zero fields get the default.
type Config struct {
	Attempts int           // for one event; 5
	Backoff  time.Duration // before the second attempt, less up to a quarter; doubles from then on; 0.5 s
	MaxPause time.Duration // longest pause, also if Retry-After asks for more; 30 s
	InFlight int           // attempts under way at a time; 256, of which one hook gets at most 64. Sixteen times as many events may wait
	Burst    int           // events for one name at once; 10
	Every    time.Duration // then one in this time; 1 s

	Transport http.RoundTripper // nil: one with HTTP/2, which takes the proxies of the environment
}

const (
	maxNames   = 1 << 16  // names that are remembered
	maxHeader  = 16 << 10 // bytes of an answer's header
	maxExcerpt = 256      // bytes of an answer's body that are read, for the log
	perName    = 2        // events for one name: one in flight, one that waits for it
)

// FailedError says that a hook failed for good.
type FailedError struct {
	Reason   string // names no host, address or content: fit for the members of the job
	Attempts int
	Err      error // for the log
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("wake hook failed: %s (attempts: %d): %v", e.Reason, e.Attempts, e.Err)
}

func (e *FailedError) Unwrap() error { return e.Err }

// Sender calls hooks: at most one at a time for each name, and no more often than its rate allows. Its methods are safe for
// concurrent use.
type Sender struct {
	cfg    Config
	client *http.Client
	slots  gate // attempts under way
	places gate // events

	mu    sync.Mutex // guards names and their users and buckets
	names map[nameKey]*name
}

// NewSender does no I/O.
func NewSender(cfg Config) *Sender {
	cfg.Attempts, cfg.Backoff = cmp.Or(cfg.Attempts, 5), cmp.Or(cfg.Backoff, 500*time.Millisecond)
	cfg.MaxPause, cfg.InFlight = cmp.Or(cfg.MaxPause, 30*time.Second), cmp.Or(cfg.InFlight, 256)
	cfg.Burst, cfg.Every = cmp.Or(cfg.Burst, 10), cmp.Or(cfg.Every, time.Second)
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConns: cfg.InFlight, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: maxHeader,
		}
	}
	return &Sender{
		cfg: cfg, slots: make(gate, cfg.InFlight), places: make(gate, 16*cfg.InFlight), names: make(map[nameKey]*name),
		client: &http.Client{
			Transport:     cfg.Transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Hold is how long at most the sender is silent for an event: from one call of wanted to the next, or to the end of Send.
func (s *Sender) Hold(h *Hook) time.Duration { return 2*s.cfg.MaxPause + h.timeout + time.Second }

// NewID makes the webhook-id of an event.
func NewID() string { return "wake_" + rand.Text() }

// Send calls the hook until it says that the function is being started, and returns nil then. wanted is called
// before each attempt; its refusal ends Send with ErrUnwanted. Other errors are ErrBusy, *FailedError, and ctx's.
func (s *Sender) Send(ctx context.Context, h *Hook, id string, e Event, wanted func(context.Context) bool) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := h.places.try(); err != nil {
		return err
	}
	defer h.places.leave()
	if err := s.places.try(); err != nil {
		return err
	}
	defer s.places.leave()
	leave, err := s.enter(ctx, h, nameKey{e.Data.Job, e.Data.Name})
	if err != nil {
		return err
	}
	defer leave()
	var failed *attemptError
	for n := 1; ; n++ {
		if !wanted(ctx) {
			return ErrUnwanted
		}
		if failed, err = s.attempt(ctx, h, id, &e.Data, body); failed == nil {
			return err
		}
		if failed.final || n >= s.cfg.Attempts {
			return &FailedError{Reason: failed.reason, Attempts: n, Err: failed.err}
		}
		if err := sleep(ctx, s.pause(n, failed.after)); err != nil {
			return err
		}
	}
}

// Close closes connections that are idle.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// pause before attempt n+1.
func (s *Sender) pause(n int, retryAfter time.Duration) time.Duration {
	d := min(s.cfg.Backoff<<min(n-1, 16), s.cfg.MaxPause)
	d -= mrand.N(d/4 + 1)
	return min(max(d, retryAfter), s.cfg.MaxPause)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// attemptError is how one attempt failed.
type attemptError struct {
	reason string
	err    error
	final  bool
	after  time.Duration // what Retry-After asks for
}

// slot waits, for MaxPause at most, until the hook and the sender may have one more attempt under way.
func (s *Sender) slot(ctx context.Context, h *Hook) error {
	timer := time.NewTimer(s.cfg.MaxPause)
	defer timer.Stop()
	if err := h.slots.wait(ctx, timer); err != nil {
		return err
	}
	err := s.slots.wait(ctx, timer)
	if err != nil {
		h.slots.leave()
	}
	return err
}

// attempt returns why it failed, or nil and the error of ctx or nil.
func (s *Sender) attempt(ctx context.Context, h *Hook, id string, d *Data, body []byte) (*attemptError, error) {
	if err := s.slot(ctx, h); errors.Is(err, ErrBusy) {
		return &attemptError{reason: "too many calls under way", err: err}, nil
	} else if err != nil {
		return nil, err
	}
	defer h.slots.leave()
	defer s.slots.leave()
	one, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(one, http.MethodPost, h.target(d), bytes.NewReader(body))
	if err != nil {
		return &attemptError{reason: "its URL is none", err: hideURL(err), final: true}, nil
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	for k, v := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "fnwire-rendezvous",
		headerID: id, headerTimestamp: timestamp, headerSignature: sign(h.secrets, id, timestamp, body),
	} {
		req.Header.Set(k, v)
	}
	res, err := s.client.Do(req)
	switch {
	case ctx.Err() != nil:
		if err == nil {
			_ = res.Body.Close() // the event is given up
		}
		return nil, ctx.Err()
	case err != nil && one.Err() != nil:
		return &attemptError{reason: fmt.Sprintf("no answer within %v", h.timeout), err: hideURL(err)}, nil
	case err != nil:
		return &attemptError{reason: "no answer", err: hideURL(err)}, nil
	}
	defer res.Body.Close()
	return judge(res), nil
}

// judge tells what an answer means.
func judge(res *http.Response) *attemptError {
	code := res.StatusCode
	if code/100 == 2 {
		return nil
	}
	excerpt, _ := io.ReadAll(io.LimitReader(res.Body, maxExcerpt)) // as much as there is
	again := code/100 == 5 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code == http.StatusTooEarly
	e := &attemptError{
		reason: strings.TrimSpace(fmt.Sprintf("answered %d %s", code, http.StatusText(code))),
		err:    fmt.Errorf("answer %d: %q", code, excerpt), final: !again,
	}
	if again {
		e.after = retryAfter(res.Header.Get("Retry-After"), time.Now())
	}
	return e
}

// retryAfter reads the header: seconds or a date (RFC 9110, 10.2.3). It is 0 for what is none.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}

// hideURL keeps the URL, in which there may be a key, out of the error.
func hideURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
