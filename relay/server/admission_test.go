package server_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/relay/server"
)

// ANCHORS, relay: admission fails closed; silent or smaller reply to the unauthenticated; token binds
// key + relay + job + minutes.
func TestUnknownBindsGetSilence(t *testing.T) {
	_, foreign, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(r *raw) []byte{
		"unknown token": func(r *raw) []byte {
			r.token = r.w.mint(r.id, func(_ *token.Token, _ *string, k *ed25519.PrivateKey) { *k = foreign })
			b, _ := r.bindFrame()
			return b
		},
		"unknown token, expired too": func(r *raw) []byte {
			r.token = r.w.mint(r.id, func(t *token.Token, _ *string, k *ed25519.PrivateKey) {
				*k, t.Expires = foreign, time.Now().Add(-time.Minute)
			})
			b, _ := r.bindFrame()
			return b
		},
		"token for another relay": func(r *raw) []byte {
			r.token = r.w.mint(r.id, func(_ *token.Token, id *string, _ *ed25519.PrivateKey) { *id = "relay-2" })
			b, _ := r.bindFrame()
			return b
		},
		"bind signed for another relay": func(r *raw) []byte {
			return relay.AppendBind(nil, "relay-2", r.id.Ed25519, relay.Bind{Time: time.Now(), Token: [token.Size]byte(r.token)})
		},
		"another's token": func(r *raw) []byte {
			r.token = r.w.mint(newIdentity(r.w.t), nil)
			b, _ := r.bindFrame()
			return b
		},
		"wrong key proof": func(r *raw) []byte {
			b, _ := r.bindFrame()
			b[200] ^= 1 // within the signature
			return b
		},
		"token changed": func(r *raw) []byte {
			r.token[40] ^= 1
			b, _ := r.bindFrame()
			return b
		},
	}
	for name, frame := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, server.Limits{})
			r := w.raw()
			w.dropped("stranger", 1, func() { r.send(frame(r)) })
			r.silence()
			if n := w.srv.Stats().Sessions; n != 0 {
				t.Errorf("%d sessions", n)
			}
		})
	}
}

func TestNoTokenKeyAdmitsNobody(t *testing.T) {
	w := newWorld(t, server.Limits{})
	w.stop()
	w.cfg.TokenKey = func() ed25519.PublicKey { return nil }
	w.startRelay()
	r := w.raw()
	b, _ := r.bindFrame()
	w.dropped("stranger", 1, func() { r.send(b) })
	r.silence()
}

func TestGarbageGetsSilence(t *testing.T) {
	w := newWorld(t, server.Limits{})
	r := w.raw()
	bind, _ := r.bindFrame()
	for _, b := range [][]byte{
		{0x20}, {0x21}, {0x2f, 1, 2}, bytes.Repeat([]byte{0x20}, 12), bytes.Repeat([]byte{0x20}, 1400), bytes.Repeat([]byte{0x40}, 1200),
		bind[:len(bind)-1], append(bytes.Clone(bind), 0), bytes.Repeat([]byte{0x23, 1, 0, 0}, 26), bytes.Repeat([]byte{0}, 20),
	} {
		r.send(b)
	}
	r.silence()
}

func TestRefusals(t *testing.T) {
	limits := server.Limits{PerJob: 1, PerPrefix: 2, Sessions: 100}
	tests := []struct {
		name   string
		reason relay.Reason
		do     func(w *world, r *raw)
	}{
		{"expired token", relay.ReasonExpired, func(w *world, r *raw) {
			r.token = w.mint(r.id, func(t *token.Token, _ *string, _ *ed25519.PrivateKey) { t.Expires = time.Now().Add(-time.Second) })
		}},
		{"clock", relay.ReasonClock, func(_ *world, r *raw) { r.stamp = time.Now().Add(-3 * time.Minute) }},
		{"job is full", relay.ReasonJobFull, func(w *world, _ *raw) { w.raw().bind() }},
		{"prefix is full", relay.ReasonPrefix, func(w *world, _ *raw) {
			for range 2 {
				other := *w
				other.job = job.NewKey()
				other.raw().bind()
			}
		}},
		{"revoked", relay.ReasonRevoked, func(w *world, r *raw) { w.srv.Revoke(r.short) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, limits)
			r := w.raw()
			tt.do(w, r)
			b, n := r.bindFrame()
			r.send(b)
			got := r.receive()
			m, ok := relay.ParseRefused(got)
			if !ok || m.Reason != tt.reason || m.Nonce != n {
				t.Fatalf("got %x", got)
			}
		})
	}
	t.Run("relay is full", func(t *testing.T) {
		w := newWorld(t, server.Limits{Sessions: 1})
		w.raw().bind()
		r := w.raw()
		b, _ := r.bindFrame()
		r.send(b)
		if m, ok := relay.ParseRefused(r.receive()); !ok || m.Reason != relay.ReasonFull {
			t.Fatalf("got %v", m)
		}
	})
}

// The client turns a refusal into an error that tells the cause, and recovers with a new token.
func TestClientTellsExpiredTokenAndRecovers(t *testing.T) {
	w := newWorld(t, server.Limits{})
	id := newIdentity(t)
	n := w.node(id, w.mint(id, func(t *token.Token, _ *string, _ *ed25519.PrivateKey) { t.Expires = time.Now().Add(-time.Second) }))
	var refused *relay.RefusedError
	w.eventually(func() bool { _, err := n.State(); return errors.As(err, &refused) }, "refusal")
	if refused.Reason != relay.ReasonExpired || !strings.Contains(refused.Error(), "token expired") {
		t.Errorf("got %v", refused)
	}
	if err := n.Send(n.short, 0, []byte("x"), 0); !errors.Is(err, relay.ErrNotReady) {
		t.Errorf("got %v", err)
	}
	n.SetToken(w.mint(id, nil))
	n.waitReady(t)
}

// ANCHORS, relay: captured bind replayed elsewhere fails.
func TestCapturedBindElsewhere(t *testing.T) {
	w := newWorld(t, server.Limits{})
	victim, peer := w.raw(), w.raw()
	peer.bind()
	frame, _ := victim.bindFrame()
	victim.send(frame)
	c, ok := relay.ParseChallenge(victim.receive())
	if !ok {
		t.Fatal("no challenge")
	}
	thief := w.rawAs(newIdentity(t))
	w.dropped("replay", 1, func() { thief.send(frame) })
	thief.silence()
	victim.prove(c)
	w.dropped("replay", 1, func() { thief.send(frame) })
	thief.silence()
	w.dropped("stranger", 1, func() { thief.data(peer.short, "as the victim") })
	peer.data(victim.short, "still here")
	victim.wantData(peer.short, "still here")
}

// A bind that reaches the relay from a thief first gives the thief nothing once the owner binds: it
// cannot prove, and what it got until then is bounded.
func TestStolenBindLosesToOwner(t *testing.T) {
	w := newWorld(t, server.Limits{})
	owner, peer := w.raw(), w.raw()
	peer.bind()
	frame, _ := owner.bindFrame()
	thief := w.rawAs(newIdentity(t))
	thief.send(frame)
	stolen, ok := relay.ParseChallenge(thief.receive())
	if !ok {
		t.Fatal("no challenge")
	}
	thief.short = owner.short
	w.dropped("stranger", 1, func() { thief.send(thief.proveFrame(stolen)) })
	owner.bind()
	peer.data(owner.short, "to the owner")
	owner.wantData(peer.short, "to the owner")
	thief.short = owner.short
	if thief.bound() {
		t.Error("the thief still has a session")
	}
}

// ANCHORS, relay: proof of possession and of address. A captured PROVE is worth nothing elsewhere, nor later.
func TestCapturedProveElsewhere(t *testing.T) {
	w := newWorld(t, server.Limits{})
	victim := w.raw()
	c := victim.challenge()
	prove := victim.proveFrame(c)
	thief := w.rawAs(newIdentity(t))
	w.dropped("stranger", 1, func() { thief.send(prove) })
	thief.silence()
	victim.prove(c)

	// The instance moves; then its old PROVE, replayed from its old address, must not move it back.
	moved := w.rawAs(victim.id)
	moved.stamp = victim.stamp.Add(time.Second)
	moved.bind()
	w.dropped("stranger", 1, func() { victim.send(prove) })
	if !moved.bound() || victim.bound() {
		t.Error("the session moved back")
	}
}

// ANCHORS, relay: duplicate key has a documented winner, the newest that proved itself; until it does
// the older session is not disturbed.
func TestNewestProvenWins(t *testing.T) {
	w := newWorld(t, server.Limits{})
	old, peer := w.raw(), w.raw()
	old.bind()
	peer.bind()
	moved := w.rawAs(old.id)
	moved.stamp = old.stamp.Add(time.Second)
	c := moved.challenge()
	peer.data(old.short, "one")
	old.wantData(peer.short, "one")
	moved.data(peer.short, "usable before proof")
	peer.wantData(old.short, "usable before proof")
	moved.prove(c)
	peer.data(old.short, "two")
	moved.wantData(peer.short, "two")
	if old.bound() {
		t.Error("the old address is still bound")
	}
	if n := w.srv.Stats().Sessions; n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
}

// An address that is bound by one instance is not taken away by another that does not prove it.
func TestAddressIsTakenByProofOnly(t *testing.T) {
	w := newWorld(t, server.Limits{})
	a, peer := w.raw(), w.raw()
	a.bind()
	peer.bind()
	other := w.rawAs(newIdentity(t))
	frame, _ := other.bindFrame()
	a.send(frame) // as if other forged a's address
	c, ok := relay.ParseChallenge(a.receive())
	if !ok {
		t.Fatal("no challenge")
	}
	a.data(peer.short, "hello")
	peer.wantData(a.short, "hello")
	a.send(other.proveFrame(c)) // as if a's process had a new identity
	if _, ok := relay.ParseBound(a.receive()); !ok {
		t.Fatal("not bound")
	}
	a.data(peer.short, "hello")
	peer.wantData(other.short, "hello")
}
