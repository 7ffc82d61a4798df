package server_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

const secret = "a relay secret of some length"

func relayInfo(id string, last byte) rendezvous.RelayInfo {
	a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, last}), 3478)
	return rendezvous.RelayInfo{ID: id, Addr: a, STUN: []netip.AddrPort{a}}
}

func withHTTPS(r rendezvous.RelayInfo, addr string, hash []byte) rendezvous.RelayInfo {
	r.HTTPS, r.CertSHA256 = addr, hash
	return r
}

// TestHTTPSTravels: how a relay is reached over TLS comes through its announcement, and a change is told.
func TestHTTPSTravels(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, RelaySecret: secret})
	hash := bytes.Repeat([]byte{7}, 32)
	keys, _, stop := announce(t, rendezvous.AnnounceConfig{URL: s.URL(), Secret: secret, Relay: withHTTPS(relayInfo("r", 1), "192.0.2.1:443", hash)})
	got(t, keys)
	a := dial(t, s.URL(), key, "a")
	r := a.join(t).Relays
	a.run(t)
	if len(r) != 1 || r[0].HTTPS != "192.0.2.1:443" || !bytes.Equal(r[0].CertSHA256, hash) {
		t.Errorf("%+v", r)
	}
	stop()
	hash[0]++ // it was restarted
	announce(t, rendezvous.AnnounceConfig{URL: s.URL(), Secret: secret, Relay: withHTTPS(relayInfo("r", 1), "192.0.2.1:443", hash)})
	if r := got(t, a.relays); len(r) != 1 || !bytes.Equal(r[0].CertSHA256, hash) {
		t.Errorf("%+v", r)
	}
}

// announce runs AnnounceRelay until the test ends or stop is called.
func announce(t *testing.T, cfg rendezvous.AnnounceConfig) (keys chan ed25519.PublicKey, ended chan error, stop func()) {
	t.Helper()
	keys, ended = make(chan ed25519.PublicKey, 4), make(chan error, 1)
	cfg.OnTokenKey = func(k ed25519.PublicKey) { keys <- k }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended <- rendezvous.AnnounceRelay(ctx, cfg)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return keys, ended, stop
}

func TestRelays(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Relays: []rendezvous.RelayInfo{relayInfo("fixed", 1)}, RelaySecret: secret})
	a := dial(t, s.URL(), key, "a")
	j := a.join(t)
	check := func(relays []rendezvous.RelayInfo, ids ...string) {
		t.Helper()
		if len(relays) != len(ids) {
			t.Fatalf("%d relays, want %v", len(relays), ids)
		}
		for i, r := range relays {
			tok, err := token.Verify(s.TokenKey(), r.ID, time.Now(), r.Token)
			if err != nil || r.ID != ids[i] || tok.Job != key.ID() || string(tok.Peer[:]) != string(a.id.Ed25519.Public().(ed25519.PublicKey)) {
				t.Errorf("relay %+v, token %+v, %v", r, tok, err)
			}
			if left := time.Until(r.Expires); left < 5*time.Minute || left > 8*time.Minute || !r.Expires.Equal(tok.Expires) {
				t.Errorf("token expires in %v", left)
			}
		}
	}
	check(j.Relays, "fixed")
	a.run(t)
	keys, ended, stop := announce(t, rendezvous.AnnounceConfig{URL: s.URL(), Secret: secret, Relay: relayInfo("late", 2), Interval: 50 * time.Millisecond})
	if k := got(t, keys); !k.Equal(s.TokenKey()) {
		t.Error("wrong token key")
	}
	check(got(t, a.relays), "fixed", "late") // pushed: a renewal would be 10 s away
	if err := s.AddRelay(relayInfo("added", 3)); err != nil {
		t.Fatal(err)
	}
	check(got(t, a.relays), "added", "fixed", "late")
	stop()
	want(t, got(t, ended), context.Canceled)
}

func TestRelayRefused(t *testing.T) {
	key := job.NewKey()
	for name, c := range map[string]struct {
		server server.Config
		relay  rendezvous.AnnounceConfig
		want   error
	}{
		"wrong secret": {server.Config{Allow: []job.ID{key.ID()}, RelaySecret: secret},
			rendezvous.AnnounceConfig{Secret: "another secret of some length", Relay: relayInfo("r", 1)}, rendezvous.ErrUnauthorized},
		"no secret there": {server.Config{Allow: []job.ID{key.ID()}},
			rendezvous.AnnounceConfig{Secret: secret, Relay: relayInfo("r", 1)}, rendezvous.ErrUnauthorized},
		"wrong secret, open": {server.Config{Open: true, RelaySecret: secret},
			rendezvous.AnnounceConfig{Secret: "another secret of some length", Relay: relayInfo("r", 1)}, rendezvous.ErrUnauthorized},
		"short secret": {server.Config{Open: true, RelaySecret: secret},
			rendezvous.AnnounceConfig{Secret: "short", Relay: relayInfo("r", 1)}, rendezvous.ErrUnauthorized},
		"illegal ID": {server.Config{Open: true, RelaySecret: secret},
			rendezvous.AnnounceConfig{Secret: secret, Relay: relayInfo("r.1", 1)}, rendezvous.ErrBadRequest},
		"fixed with another certificate": {server.Config{Open: true, RelaySecret: secret, Relays: []rendezvous.RelayInfo{relayInfo("r", 1)}},
			rendezvous.AnnounceConfig{Secret: secret, Relay: withHTTPS(relayInfo("r", 1), "192.0.2.1:443", make([]byte, 32))}, rendezvous.ErrHeld},
		"HTTPS without certificate": {server.Config{Open: true, RelaySecret: secret},
			rendezvous.AnnounceConfig{Secret: secret, Relay: withHTTPS(relayInfo("r", 1), "192.0.2.1:443", nil)}, rendezvous.ErrBadRequest},
		"fixed with another address": {server.Config{Open: true, RelaySecret: secret, Relays: []rendezvous.RelayInfo{relayInfo("r", 1)}},
			rendezvous.AnnounceConfig{Secret: secret, Relay: relayInfo("r", 2)}, rendezvous.ErrHeld},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, c.server)
			c.relay.URL = s.URL()
			want(t, rendezvous.AnnounceRelay(within(t), c.relay), c.want)
		})
	}
}

// TestRepeatedAnnouncement: who only recorded an announcement cannot keep a relay alive, nor can a relay
// do anything else on NATS.
func TestRepeatedAnnouncement(t *testing.T) {
	sec, err := rendezvous.NewRelaySecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, server.Config{Open: true, RelaySecret: secret})
	nc, violations := raw(t, s.URL(), nkey(t, sec.NATSKey()), nats.CustomInboxPrefix(rendezvous.RelayInbox))
	sealed, err := sec.SealAnnouncement(rendezvous.Announcement{V: 1, Relay: relayInfo("r", 1), Issued: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(sealed)
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []rendezvous.Code{"", rendezvous.CodeStale} {
		m, err := nc.RequestWithContext(within(t), rendezvous.SubjectAnnounce, data)
		if err != nil {
			t.Fatal(err)
		}
		var reply rendezvous.Sealed
		var body rendezvous.AnnounceReply
		if err := errors.Join(json.Unmarshal(m.Data, &reply), json.Unmarshal([]byte(reply.Body), &body)); err != nil {
			t.Fatal(err)
		}
		if (body.Error == nil) != (code == "") || body.Error != nil && body.Error.Code != code {
			t.Errorf("%+v, want %q", body.Error, code)
		}
	}
	for _, subject := range []string{rendezvous.SubjectFor(rendezvous.VerbJoin, job.NewKey().ID().String()), rendezvous.RelayInbox + ".x", "$JS.API.INFO"} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		flush(t, nc)
		want(t, got(t, violations), nats.ErrPermissionViolation)
	}
	if _, err := nc.SubscribeSync(">"); err != nil {
		t.Fatal(err)
	}
	flush(t, nc)
	want(t, got(t, violations), nats.ErrPermissionViolation)
}

// TestRelaysTag: an instance that has the relays and its tokens is not told them again, until they change.
func TestRelaysTag(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Relays: []rendezvous.RelayInfo{relayInfo("r", 1)}})
	nc, _ := raw(t, s.URL(), nkey(t, key.Signer()), inboxOf(key))
	in := dial(t, s.URL(), key, "a")
	epoch := in.join(t).Epoch
	renew := func(tag string) (r rendezvous.RenewReply) {
		t.Helper()
		head := rendezvous.Head{V: 1, Job: key.ID(), Name: "a", Peer: in.id.Peer.String(), Issued: time.Now()}
		req, err := rendezvous.SignRequest(rendezvous.VerbRenew, key.ID(), rendezvous.RenewRequest{Head: head, Epoch: epoch, RelaysTag: tag}, nil, in.id.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		m, err := nc.RequestWithContext(within(t), rendezvous.SubjectFor(rendezvous.VerbRenew, key.ID().String()), data)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(m.Data, &r); err != nil || r.Error != nil || r.RelaysTag == "" {
			t.Fatalf("%s (%v)", m.Data, err)
		}
		return r
	}
	first := renew("")
	if len(first.Relays) != 1 || len(first.Relays[0].Token) == 0 {
		t.Fatalf("without a tag: %+v", first)
	}
	if again := renew(first.RelaysTag); again.RelaysTag != first.RelaysTag || len(again.Relays) != 0 {
		t.Errorf("with the tag: %+v", again)
	}
	if other := renew("other"); other.RelaysTag != first.RelaysTag || len(other.Relays) != 1 {
		t.Errorf("with another tag: %+v", other)
	}
	if err := s.AddRelay(relayInfo("s", 2)); err != nil {
		t.Fatal(err)
	}
	if news := renew(first.RelaysTag); news.RelaysTag == first.RelaysTag || len(news.Relays) != 2 {
		t.Errorf("after a relay came: %+v", news)
	}
}
