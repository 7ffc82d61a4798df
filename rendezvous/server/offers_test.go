package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// TestForgedOffer: a member of the job, even, cannot send under another's name.
func TestForgedOffer(t *testing.T) {
	key, other := job.NewKey(), job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID(), other.ID()}})
	a, b := dial(t, s.URL(), key, "a"), dial(t, s.URL(), key, "b")
	a.join(t)
	b.join(t)
	b.run(t)
	nc, _ := raw(t, s.URL(), nkey(t, key.Signer()), inboxOf(key))
	head := func(in *instance) rendezvous.Head {
		return rendezvous.Head{V: 1, Job: key.ID(), Name: in.name, Peer: in.id.Peer.String(), Issued: time.Now()}
	}
	good := a.seal(t, rendezvous.KindOffer, "b", "")
	changed := func(f func(*rendezvous.Envelope)) rendezvous.Envelope { e := good; f(&e); return e }
	for name, c := range map[string]struct {
		head rendezvous.Head
		env  rendezvous.Envelope
		sign *instance
		code rendezvous.Code
	}{
		"signed by another":   {head(a), good, b, rendezvous.CodeUnauthorized},
		"another's envelope":  {head(b), good, b, rendezvous.CodeUnauthorized},
		"another job outside": {head(a), changed(func(e *rendezvous.Envelope) { e.Job = other.ID() }), a, rendezvous.CodeUnauthorized},
		"another name":        {head(a), changed(func(e *rendezvous.Envelope) { e.FromName = "b" }), a, rendezvous.CodeUnauthorized},
		"illegal addressee":   {head(a), changed(func(e *rendezvous.Envelope) { e.ToName = "b.>" }), a, rendezvous.CodeBadRequest},
		"no MAC":              {head(a), changed(func(e *rendezvous.Envelope) { e.MAC = nil }), a, rendezvous.CodeBadRequest},
		"kind":                {head(a), changed(func(e *rendezvous.Envelope) { e.Kind = "x" }), a, rendezvous.CodeBadRequest},
		"too large":           {head(a), changed(func(e *rendezvous.Envelope) { e.Body = strings.Repeat("x", rendezvous.MaxEnvelope) }), a, rendezvous.CodeBadRequest},
		"good":                {head(a), good, a, ""},
	} {
		epoch := a.Epoch()
		if c.head.Name == "b" {
			epoch = b.Epoch()
		}
		req := rendezvous.OfferRequest{Head: c.head, Epoch: epoch, Envelope: c.env}
		if code := ask(t, nc, rendezvous.VerbOffer, key.ID(), req, nil, c.sign.id.Ed25519); code != c.code {
			t.Errorf("%s: %q, want %q", name, code, c.code)
		}
	}
	// The service cannot tell a wrong MAC; the addressee can.
	forged := changed(func(e *rendezvous.Envelope) { e.MAC = make([]byte, 32) })
	req := rendezvous.OfferRequest{Head: head(a), Epoch: a.Epoch(), Envelope: forged}
	if code := ask(t, nc, rendezvous.VerbOffer, key.ID(), req, nil, a.id.Ed25519); code != "" {
		t.Errorf("wrong MAC: %q", code)
	}
	refused, accepted := 0, 0
	for range 2 {
		switch _, err := rendezvous.Open(key, got(t, b.envelopes), rendezvous.Self{Name: "b", Peer: b.id.Peer}); {
		case err == nil:
			accepted++
		case errors.Is(err, rendezvous.ErrEnvelope):
			refused++
		}
	}
	if refused != 1 || accepted != 1 {
		t.Errorf("%d refused, %d accepted", refused, accepted)
	}
}

// TestEarly: a state goes beside an envelope to who holds the name, whole, and is kept for nobody else.
func TestEarly(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	a := dial(t, s.URL(), key, "a")
	a.join(t)
	offer := func(kind string, early int) (rendezvous.OfferResult, error) {
		e := a.seal(t, kind, "b", "")
		e.Early = bytes.Repeat([]byte{7}, early)
		return a.Offer(within(t), "b", e)
	}
	if r, err := offer(rendezvous.KindEarly, rendezvous.MaxEarly); err != nil || r.Delivered {
		t.Errorf("nobody there: %+v, %v", r, err)
	}
	b := dial(t, s.URL(), key, "b")
	if n := len(b.join(t).Parked); n != 0 {
		t.Errorf("%d parked", n)
	}
	b.run(t)
	if r, err := offer(rendezvous.KindEarly, rendezvous.MaxEarly); err != nil || !r.Delivered {
		t.Errorf("%+v, %v", r, err)
	}
	e := got(t, b.envelopes)
	if _, err := rendezvous.Open(key, e, rendezvous.Self{Name: "b", Peer: b.id.Peer}); err != nil || len(e.Early) != rendezvous.MaxEarly {
		t.Errorf("%d bytes, %v", len(e.Early), err)
	}
	for what, err := range map[string]error{
		"too large":       second(offer(rendezvous.KindEarly, rendezvous.MaxEarly+1)),
		"none":            second(offer(rendezvous.KindEarly, 0)),
		"beside an offer": second(offer(rendezvous.KindOffer, 1)),
	} {
		if !errors.Is(err, rendezvous.ErrEnvelope) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The service does not rely on clients for that.
	nc, _ := raw(t, s.URL(), nkey(t, key.Signer()), inboxOf(key))
	req := rendezvous.OfferRequest{
		Head:  rendezvous.Head{V: 1, Job: key.ID(), Name: "a", Peer: a.id.Peer.String(), Issued: time.Now()},
		Epoch: a.Epoch(), Envelope: a.seal(t, rendezvous.KindEarly, "b", ""), Early: make([]byte, rendezvous.MaxEarly+1),
	}
	if code := ask(t, nc, rendezvous.VerbOffer, key.ID(), req, nil, a.id.Ed25519); code != rendezvous.CodeBadRequest {
		t.Errorf("too large: %q", code)
	}
}

func second[T any](_ T, err error) error { return err }

func TestParkedAreBounded(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	var last *instance
	for i := range rendezvous.MaxParked {
		last = dial(t, s.URL(), key, fmt.Sprintf("a%d", i))
		last.join(t)
		last.offer(t, "b")
	}
	last.offer(t, "b") // one of an instance that has one there replaces it
	more := dial(t, s.URL(), key, "more")
	more.join(t)
	brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := more.Offer(brief, "b", more.seal(t, rendezvous.KindOffer, "b", ""))
	want(t, err, rendezvous.ErrFull)
	want(t, err, context.DeadlineExceeded)
	b := dial(t, s.URL(), key, "b")
	if n := len(b.join(t).Parked); n != rendezvous.MaxParked {
		t.Errorf("%d parked, want %d", n, rendezvous.MaxParked)
	}
	// Until b says that it has them, the next holder gets them too: b may have died on the way.
	if n := len(dial(t, s.URL(), key, "b").join(t).Parked); n != rendezvous.MaxParked {
		t.Errorf("%d parked for the next holder, want %d", n, rendezvous.MaxParked)
	}
}

// TestFanIn: more instances call a name that nobody holds yet than offers are parked. Those without a
// place wait as well, and reach the holder as soon as there is one.
func TestFanIn(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	const extra = 8
	callers := make([]*instance, rendezvous.MaxParked+extra)
	for i := range callers {
		callers[i] = dial(t, s.URL(), key, fmt.Sprintf("a%d", i))
		callers[i].join(t)
	}
	for _, a := range callers[:rendezvous.MaxParked] {
		a.offer(t, "b")
	}
	delivered := make(chan rendezvous.OfferResult, extra)
	for _, a := range callers[rendezvous.MaxParked:] {
		go func() {
			r, err := a.Offer(within(t), "b", a.seal(t, rendezvous.KindOffer, "b", ""))
			if err != nil {
				t.Error(err)
			}
			delivered <- r
		}()
	}
	// All of them wait.
	for want := fmt.Sprintf("fnwire_rendezvous_waits %d\n", extra); len(delivered) == 0; runtime.Gosched() {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if strings.Contains(w.Body.String(), want) {
			break
		}
	}
	b := dial(t, s.URL(), key, "b")
	if n := len(b.join(t).Parked); n != rendezvous.MaxParked {
		t.Errorf("%d parked", n)
	}
	for range extra {
		if r := got(t, delivered); !r.Delivered {
			t.Errorf("%+v", r)
		}
	}
}

func TestParkedAreForgottenOnceSeen(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Lease: 300 * time.Millisecond, RelaySecret: secret})
	a := dial(t, s.URL(), key, "a")
	a.join(t)
	a.run(t)
	a.offer(t, "b")
	b := dial(t, s.URL(), key, "b")
	if n := len(b.join(t).Parked); n != 1 {
		t.Fatalf("%d parked", n)
	}
	b.run(t)
	if err := s.AddRelay(relayInfo("r", 1)); err != nil {
		t.Fatal(err)
	}
	got(t, b.relays) // it has renewed since
	if n := len(dial(t, s.URL(), key, "b").join(t).Parked); n != 0 {
		t.Errorf("%d parked for the next holder, want none", n)
	}
}

// TestSilentHolder: an instance that is connected but frozen does not swallow an offer.
func TestSilentHolder(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Lease: 3 * time.Second})
	a, b := dial(t, s.URL(), key, "a"), dial(t, s.URL(), key, "b", func(c *rendezvous.Config) { c.OnEnvelope = nil })
	a.join(t)
	b.join(t)
	_ = b.Close() // dead, and its lease still runs
	r := a.offer(t, "b")
	if r.Delivered || r.Peer != b.id.Peer.String() {
		t.Errorf("offer to a dead instance: %+v", r)
	}
	if n := len(dial(t, s.URL(), key, "b").join(t).Parked); n != 1 {
		t.Errorf("%d parked, want 1", n)
	}
	want(t, a.Answer(within(t), b.id.Peer.String(), a.seal(t, rendezvous.KindAnswer, "b", b.id.Peer.String())), rendezvous.ErrGone)
}

func TestOfferNeedsJoin(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	a := dial(t, s.URL(), key, "a")
	_, err := a.Offer(within(t), "b", a.seal(t, rendezvous.KindOffer, "b", ""))
	want(t, err, rendezvous.ErrUnknown)
	_, err = a.Offer(within(t), "c", a.seal(t, rendezvous.KindOffer, "b", ""))
	want(t, err, rendezvous.ErrEnvelope)
	want(t, a.Run(within(t)), rendezvous.ErrUnknown)
}

// TestJoinOffers: offers that go with a join are delivered or parked at once, with the epoch that the join brought.
func TestJoinOffers(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	a, b, c := dial(t, s.URL(), key, "a"), dial(t, s.URL(), key, "b"), dial(t, s.URL(), key, "c")
	b.join(t)
	b.run(t)
	joined, err := a.Join(within(t), a.seal(t, rendezvous.KindOffer, "b", ""), a.seal(t, rendezvous.KindOffer, "c", ""))
	if err != nil {
		t.Fatal(err)
	}
	check := func(e rendezvous.Envelope, name string) {
		t.Helper()
		h, err := rendezvous.Open(key, e, rendezvous.Self{Name: name})
		if err != nil || !h.Joining || h.FromEpoch != joined.Epoch {
			t.Errorf("offer to %s: %+v, %v; want epoch %d", name, h, err, joined.Epoch)
		}
	}
	check(got(t, b.envelopes), "b")
	for range 1000 { // it is parked a moment after a's join is answered
		if j := c.join(t); len(j.Parked) == 1 {
			check(j.Parked[0], "c")
			return
		}
	}
	t.Error("the offer to c is not parked")
}

// TestJoinOffersRefused: a join with an offer too many, or one that is not its sender's, takes no name.
func TestJoinOffersRefused(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	a, b := dial(t, s.URL(), key, "a"), dial(t, s.URL(), key, "b")
	b.join(t)
	other := b.seal(t, rendezvous.KindOffer, "c", "")
	many := make([]rendezvous.Envelope, rendezvous.MaxJoinOffers+1)
	for i := range many {
		many[i] = a.seal(t, rendezvous.KindOffer, "c", "")
	}
	_, err := a.Join(within(t), other)
	want(t, err, rendezvous.ErrUnauthorized)
	_, err = a.Join(within(t), many...)
	want(t, err, rendezvous.ErrBadRequest)
	_, err = b.Lookup(within(t), "a")
	want(t, err, rendezvous.ErrNotFound)
	if _, err := a.Join(within(t), many[1:]...); err != nil {
		t.Error(err)
	}
}
