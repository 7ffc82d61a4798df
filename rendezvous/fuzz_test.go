package rendezvous_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/rendezvous"
)

func seed(f *testing.F, names ...string) {
	f.Helper()
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join("testdata", "golden", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		for _, b := range hostile.Of(bytes.TrimSpace(b)) {
			f.Add(b)
		}
	}
	for _, s := range []string{
		`{}`, `null`, `[]`, `0`, `{"v":1e999}`, `{"v":1,"v":2}`, `{"body":"{\"v\":1}","mac":""}`, `{"body":"null"}`, `{"body":"{\"candidates\":[{}]}","mac":"AA=="}`,
		strings.Repeat(`{"error":`, 200), `{"issued":"9999-12-31T23:59:59.999999999Z","epoch":18446744073709551615}`, "{\"name\":\"\xff\"}",
	} {
		f.Add([]byte(s))
	}
}

// roundTrip fails unless what JSON made of data comes back the same from its own JSON.
func roundTrip[T any](t *testing.T, data []byte) {
	t.Helper()
	var v, w T
	if json.Unmarshal(data, &v) != nil {
		return
	}
	one, err := json.Marshal(v)
	if err != nil {
		return // a time outside of the years that JSON can hold
	}
	if err := json.Unmarshal(one, &w); err != nil {
		t.Fatalf("own output refused: %v\n%s", err, one)
	}
	if two, err := json.Marshal(w); err != nil || !bytes.Equal(one, two) {
		t.Fatalf("not stable: %v\n%s\n%s", err, one, two)
	}
}

// FuzzOpen feeds Open envelopes as they come, and bodies that carry a right MAC.
func FuzzOpen(f *testing.F) {
	seed(f, "envelope")
	f.Fuzz(func(t *testing.T, data []byte) {
		key := goldenKey(t)
		var e rendezvous.Envelope
		if json.Unmarshal(data, &e) != nil {
			return
		}
		if _, err := rendezvous.OpenAt(key, e, rendezvous.Self{}, goldenTime); err != nil && !errors.Is(err, rendezvous.ErrEnvelope) {
			t.Fatalf("untyped error %v", err)
		}
		roundTrip[rendezvous.Envelope](t, data)
		var h rendezvous.Hello
		if json.Unmarshal([]byte(e.Body), &h) != nil {
			return
		}
		roundTrip[rendezvous.Hello](t, []byte(e.Body))
		h.Job = key.ID()
		sealed, err := rendezvous.Seal(key, h)
		if err != nil {
			return
		}
		opened, err := rendezvous.OpenAt(key, sealed, rendezvous.Self{}, h.Time)
		if err != nil {
			t.Fatalf("own seal refused: %v", err)
		}
		if again, err := rendezvous.Seal(key, opened); err != nil || again.Body != sealed.Body {
			t.Fatalf("seal is not stable: %v\n%s\n%s", err, again.Body, sealed.Body)
		}
	})
}

func FuzzJoinRequest(f *testing.F) {
	seed(f, "join", "join_offers", "renew", "renew_hard", "renew_tag", "lookup")
	f.Fuzz(func(t *testing.T, data []byte) {
		key := goldenKey(t)
		var j rendezvous.JoinRequest
		err := rendezvous.ParseRequest(rendezvous.VerbJoin, key.ID(), data, goldenTime, &j, &j.Head)
		var refusal *rendezvous.RefusedError
		if err != nil && !errors.As(err, &refusal) {
			t.Fatalf("untyped error %v", err)
		}
		roundTrip[rendezvous.Request](t, data)
		var r rendezvous.Request
		if json.Unmarshal(data, &r) == nil {
			roundTrip[rendezvous.JoinRequest](t, []byte(r.Body))
			roundTrip[rendezvous.RenewRequest](t, []byte(r.Body))
			roundTrip[rendezvous.NameRequest](t, []byte(r.Body))
		}
	})
}

func FuzzOfferRequest(f *testing.F) {
	seed(f, "offer", "offer_early")
	f.Fuzz(func(t *testing.T, data []byte) {
		var o rendezvous.OfferRequest
		err := rendezvous.ParseRequest(rendezvous.VerbOffer, goldenKey(t).ID(), data, goldenTime, &o, &o.Head)
		var refusal *rendezvous.RefusedError
		if err != nil && !errors.As(err, &refusal) {
			t.Fatalf("untyped error %v", err)
		}
		o.Envelope.Early = o.Early
		if err == nil && o.Envelope.Check() == nil && (o.Envelope.Size() > rendezvous.MaxEnvelope || len(o.Early) > rendezvous.MaxEarly) {
			t.Fatal("envelope over its bound")
		}
		for _, e := range []rendezvous.Envelope{o.Envelope, {Kind: string(data), FromName: string(data), Body: string(data), MAC: data}} {
			if b, err := json.Marshal(e); err != nil || e.Size() != len(b) {
				t.Fatalf("size %d, in JSON it has %d (%v)", e.Size(), len(b), err)
			}
		}
		roundTrip[rendezvous.OfferRequest](t, data)
	})
}

func FuzzReplies(f *testing.F) {
	seed(f, "join_reply", "renew_reply", "renew_same", "refusal", "offer_reply", "lookup_reply", "list_reply", "inbox_envelope", "inbox_early", "inbox_said", "inbox_fenced", "inbox_spread", "inbox_wake", "offer_asleep")
	f.Fuzz(func(t *testing.T, data []byte) {
		roundTrip[rendezvous.JoinReply](t, data)
		roundTrip[rendezvous.OfferReply](t, data)
		roundTrip[rendezvous.LookupReply](t, data)
		roundTrip[rendezvous.ListReply](t, data)
		roundTrip[rendezvous.Inbox](t, data)
	})
}

func FuzzAskReply(f *testing.F) {
	seed(f, "ask_reply", "inbox_ask")
	f.Fuzz(func(t *testing.T, data []byte) {
		roundTrip[rendezvous.LinkedReply](t, data)
		linked, ok := rendezvous.ParseLinked(data)
		if linked && !ok || ok && (len(data) > rendezvous.MaxRequest || !json.Valid(data)) {
			t.Fatalf("%v, %v from %q", linked, ok, data)
		}
	})
}

func FuzzAnnouncement(f *testing.F) {
	seed(f, "announce", "announce_reply")
	f.Fuzz(func(t *testing.T, data []byte) {
		secret, err := rendezvous.NewRelaySecret("golden relay secret")
		if err != nil {
			t.Fatal(err)
		}
		a, _, err := secret.OpenAnnouncement(data, goldenTime)
		var refusal *rendezvous.RefusedError
		if err != nil && !errors.As(err, &refusal) {
			t.Fatalf("untyped error %v", err)
		}
		if err == nil && a.Relay.Check() != nil {
			t.Fatal("accepted a relay that is none")
		}
		roundTrip[rendezvous.Sealed](t, data)
		roundTrip[rendezvous.Announcement](t, data)
	})
}

func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"nats://127.0.0.1:4222", "tls://h", "h:1,h:2", "nats://u:p@h:1", "http://h", ":::", "nats://[::1]:1", "nats://", ","} {
		f.Add(s)
	}
	for _, s := range hostile.Strings("nats://u:p@h:1,ws://h") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if err := rendezvous.CheckURL("nats://user:hidden@" + s); err != nil && strings.Contains(err.Error(), "hidden@") {
			t.Errorf("shows the password: %v", err)
		}
		_ = rendezvous.RedactURL(s)
	})
}

func FuzzParseJoined(f *testing.F) {
	for _, s := range hostile.Strings(rendezvous.SubjectJoined(goldenKey(f).ID(), "reduce-0"), "fnwire.v1.event.joined.x.y", "") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if j, name, ok := rendezvous.ParseJoined(s); ok && rendezvous.SubjectJoined(j, name) != s {
			t.Errorf("%q does not come back", s)
		}
	})
}
