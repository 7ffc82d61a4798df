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

	"github.com/fnwire/fnwire/internal/job"
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
	slots  chan struct{} // attempts under way
	places chan struct{} // events

	mu    sync.Mutex // guards names and their users and buckets
	names map[nameKey]*name
}

type nameKey struct {
	job  job.ID
	name string
}

type name struct {
	turn   chan struct{} // holds the event in flight
	users  int
	bucket bucket
}

// bucket of tokens, by the generic cell rate algorithm.
type bucket struct{ full time.Time } // when it will be

// take takes one and returns how long it is until there was one. If that is longer than patience nothing is taken.
func (b *bucket) take(now time.Time, burst int, every, patience time.Duration) (wait time.Duration, ok bool) {
	full := b.full
	if full.Before(now) {
		full = now
	}
	wait = max(full.Sub(now)-time.Duration(burst-1)*every, 0)
	if wait > patience {
		return 0, false
	}
	b.full = full.Add(every)
	return wait, true
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
		cfg: cfg, slots: make(chan struct{}, cfg.InFlight), places: make(chan struct{}, 16*cfg.InFlight), names: make(map[nameKey]*name),
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
	for _, places := range []chan struct{}{h.places, s.places} {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			return ErrBusy
		}
	}
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

// enter waits for the name's turn, and for the rates of name and hook.
func (s *Sender) enter(ctx context.Context, h *Hook, k nameKey) (leave func(), err error) {
	s.mu.Lock()
	one := s.names[k]
	if one == nil {
		if s.forget(); len(s.names) >= maxNames {
			s.mu.Unlock()
			return nil, ErrBusy
		}
		one = &name{turn: make(chan struct{}, 1)}
		s.names[k] = one
	}
	if one.users >= perName {
		s.mu.Unlock()
		return nil, ErrBusy
	}
	one.users++
	s.mu.Unlock()
	out := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		one.users--
	}
	timer := time.NewTimer(s.cfg.MaxPause)
	defer timer.Stop()
	select {
	case one.turn <- struct{}{}:
	case <-timer.C:
		out()
		return nil, ErrBusy
	case <-ctx.Done():
		out()
		return nil, ctx.Err()
	}
	leave = func() { <-one.turn; out() }
	wait, ok := s.charge(h, one)
	if err = ErrBusy; ok {
		err = sleep(ctx, wait)
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// charge takes from the buckets of hook and name and returns how long to wait until there was something in both.
func (s *Sender) charge(h *Hook, one *name) (wait time.Duration, ok bool) {
	now, patience := time.Now(), s.cfg.MaxPause/2
	h.mu.Lock()
	wait, ok = h.bucket.take(now, 10*h.rate, time.Second/time.Duration(h.rate), patience)
	h.mu.Unlock()
	if !ok {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	longer, ok := one.bucket.take(now, s.cfg.Burst, s.cfg.Every, patience)
	return max(wait, longer), ok
}

// forget drops names about which there is nothing to remember, now and then. It needs s.mu.
func (s *Sender) forget() {
	if n := len(s.names); n < 1024 || n&(n-1) != 0 && n < maxNames {
		return
	}
	now := time.Now()
	for k, one := range s.names {
		if one.users == 0 && !one.bucket.full.After(now) {
			delete(s.names, k)
		}
	}
}

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

// attempt returns why it failed, or nil and the error of ctx or nil.
func (s *Sender) attempt(ctx context.Context, h *Hook, id string, d *Data, body []byte) (*attemptError, error) {
	timer := time.NewTimer(s.cfg.MaxPause)
	defer timer.Stop()
	for _, slots := range []chan struct{}{h.slots, s.slots} {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-timer.C:
			return &attemptError{reason: "too many calls of it under way", err: ErrBusy}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
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
