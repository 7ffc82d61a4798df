package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// TestRendezvousDiesAndReturns: one without memory, at the same address. Instances come back by
// themselves, under their names and epochs, with the newer of two still the newer.
func TestRendezvousDiesAndReturns(t *testing.T) {
	key := job.NewKey()
	cfg := server.Config{Allow: []job.ID{key.ID()}, Lease: time.Second}
	s := start(t, cfg)
	a, b := dial(t, s.URL(), key, "a"), dial(t, s.URL(), key, "b")
	ea, eb := a.join(t).Epoch, b.join(t).Epoch
	a.run(t)
	b.run(t)
	waiting := make(chan error, 1)
	go func() {
		_, err := a.Wait(within(t), "c") // across the outage
		waiting <- err
	}()
	cfg.Listen = strings.TrimPrefix(s.URL(), "nats://")
	s.stop(t)
	offered := make(chan error, 1)
	go func() {
		_, err := a.Offer(within(t), "b", a.seal(t, rendezvous.KindOffer, "b", "")) // into the outage
		offered <- err
	}()
	start(t, cfg)
	got(t, a.returned)
	got(t, b.returned)
	if err := got(t, offered); err != nil {
		t.Errorf("offer during the outage: %v", err)
	}
	if h, err := rendezvous.Open(key, got(t, b.envelopes), rendezvous.Self{Name: "b", Peer: b.id.Peer}); err != nil || h.FromEpoch != ea {
		t.Errorf("b got %+v, %v", h, err)
	}
	if a.Epoch() != ea || b.Epoch() != eb {
		t.Errorf("epochs %d and %d, want %d and %d", a.Epoch(), b.Epoch(), ea, eb)
	}
	dial(t, s.URL(), key, "c").join(t)
	if err := got(t, waiting); err != nil {
		t.Errorf("wait: %v", err)
	}
	if e := dial(t, s.URL(), key, "a").join(t).Epoch; e <= ea {
		t.Errorf("a newer instance got epoch %d after %d", e, ea)
	}
	got(t, a.fenced)
}

// TestAmnesiaKeepsOrder: after a restart the older of two instances comes back first, or last.
func TestAmnesiaKeepsOrder(t *testing.T) {
	key := job.NewKey()
	for name, newerFirst := range map[string]bool{"newer first": true, "older first": false} {
		t.Run(name, func(t *testing.T) {
			cfg := server.Config{Allow: []job.ID{key.ID()}}
			s := start(t, cfg)
			older := dial(t, s.URL(), key, "x", func(c *rendezvous.Config) { c.OnFenced = nil })
			oe := older.join(t).Epoch
			newer := dial(t, s.URL(), key, "x")
			ne := newer.join(t).Epoch
			forgetful := start(t, cfg)
			back := func(in *instance, epoch uint64) rendezvous.Code {
				nc, _ := raw(t, forgetful.URL(), nkey(t, key.Signer()), inboxOf(key))
				head := rendezvous.Head{V: 1, Job: key.ID(), Name: "x", Peer: in.id.Peer.String(), Issued: time.Now(), Nonce: [16]byte(in.id.Ed25519[:16])}
				return ask(t, nc, rendezvous.VerbJoin, key.ID(), rendezvous.JoinRequest{Head: head, Epoch: epoch}, key.Signer(), in.id.Ed25519)
			}
			if newerFirst {
				if c := back(newer, ne); c != "" {
					t.Errorf("newer: %q", c)
				}
				if c := back(older, oe); c != rendezvous.CodeFenced {
					t.Errorf("older: %q", c)
				}
			} else {
				if c := back(older, oe); c != "" {
					t.Errorf("older: %q", c)
				}
				if c := back(newer, ne); c != "" {
					t.Errorf("newer: %q", c)
				}
			}
			m, err := dial(t, forgetful.URL(), key, "y").Lookup(within(t), "x")
			if err != nil || m.Peer != newer.id.Peer.String() || m.Epoch != ne {
				t.Errorf("holder %+v, %v", m, err)
			}
		})
	}
}

// TestRelayReturns: a relay's announcements outlive the rendezvous, too.
func TestRelayReturns(t *testing.T) {
	key := job.NewKey()
	cfg := server.Config{Allow: []job.ID{key.ID()}, RelaySecret: secret}
	s := start(t, cfg)
	keys, _, _ := announce(t, rendezvous.AnnounceConfig{URL: s.URL(), Secret: secret, Relay: relayInfo("r", 1)})
	got(t, keys)
	cfg.Listen = strings.TrimPrefix(s.URL(), "nats://")
	s.stop(t)
	again := start(t, cfg) // with another token key
	if k := got(t, keys); !k.Equal(again.TokenKey()) {
		t.Error("the relay was not told the new token key")
	}
	if j := dial(t, again.URL(), key, "a").join(t); len(j.Relays) != 1 {
		t.Errorf("%d relays", len(j.Relays))
	}
}
