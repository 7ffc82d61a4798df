package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

func TestTakeoverFences(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	old := dial(t, s.URL(), key, "x")
	first := old.join(t)
	ended := old.run(t)
	newer := dial(t, s.URL(), key, "x")
	second := newer.join(t)
	if second.Epoch <= first.Epoch {
		t.Errorf("epoch %d after %d", second.Epoch, first.Epoch)
	}
	if e := got(t, old.fenced); e != second.Epoch {
		t.Errorf("fenced by %d, want %d", e, second.Epoch)
	}
	want(t, got(t, ended), rendezvous.ErrFenced)
	_, err := old.Join(within(t))
	want(t, err, rendezvous.ErrFenced)
	_, err = old.Offer(within(t), "y", old.seal(t, rendezvous.KindOffer, "y", ""))
	want(t, err, rendezvous.ErrFenced)
	if m, err := newer.Lookup(within(t), "x"); err != nil || m.Peer != newer.id.Peer.String() || m.Epoch != second.Epoch {
		t.Errorf("lookup: %+v, %v", m, err)
	}
	if again := newer.join(t); again.Epoch != second.Epoch {
		t.Errorf("joining again changed the epoch from %d to %d", second.Epoch, again.Epoch)
	}
	select {
	case e := <-newer.fenced:
		t.Errorf("the holder was fenced by %d", e)
	default:
	}
}

// TestRumourOfANewerHolder: on a NATS without users anybody can write to an inbox.
func TestRumourOfANewerHolder(t *testing.T) {
	key := job.NewKey()
	ns := existing(t)
	start(t, server.Config{NATS: ns.ClientURL(), Allow: []job.ID{key.ID()}, RelaySecret: secret})
	in := dial(t, ns.ClientURL(), key, "x")
	in.join(t)
	in.run(t)
	nc, _ := raw(t, ns.ClientURL())
	inbox := rendezvous.SubjectInbox(key.ID(), in.id.Peer.String())
	for _, lie := range []string{`{"v":1,"type":"fenced","epoch":18446744073709551615}`, `{"v":1,"type":"relays"}`, `{"v":1,"type":"envelope"}`, `{`, ``} {
		if err := nc.Publish(inbox, []byte(lie)); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, nc)
	keys, _, _ := announce(t, rendezvous.AnnounceConfig{URL: ns.ClientURL(), Secret: secret, Relay: relayInfo("r", 1)})
	got(t, keys)
	got(t, in.relays) // so it has renewed, and lives
	in.offer(t, "y")
	select {
	case <-in.fenced:
		t.Error("fenced by a rumour")
	default:
	}
}

// TestFencedWithoutNotice: the older instance never gets the message, and is refused all the same.
func TestFencedWithoutNotice(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	old := dial(t, s.URL(), key, "x")
	e := old.join(t).Epoch
	dial(t, s.URL(), key, "x").join(t)
	nc, _ := raw(t, s.URL(), nkey(t, key.Signer()), inboxOf(key))
	head := rendezvous.Head{V: 1, Job: key.ID(), Name: "x", Peer: old.id.Peer.String(), Issued: time.Now()}
	for _, verb := range []string{rendezvous.VerbRenew, rendezvous.VerbLeave} {
		if c := ask(t, nc, verb, key.ID(), rendezvous.RenewRequest{Head: head, Epoch: e}, nil, old.id.Ed25519); c != rendezvous.CodeFenced {
			t.Errorf("%s: %q", verb, c)
		}
	}
	offer := rendezvous.OfferRequest{Head: head, Epoch: e, Envelope: old.seal(t, rendezvous.KindOffer, "y", "")}
	if c := ask(t, nc, rendezvous.VerbOffer, key.ID(), offer, nil, old.id.Ed25519); c != rendezvous.CodeFenced {
		t.Errorf("offer: %q", c)
	}
	join := rendezvous.JoinRequest{Head: head, Epoch: e}
	if c := ask(t, nc, rendezvous.VerbJoin, key.ID(), join, key.Signer(), old.id.Ed25519); c != rendezvous.CodeFenced {
		t.Errorf("return: %q", c)
	}
}

func TestExclusive(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	exclusive := func(c *rendezvous.Config) { c.Exclusive = true }
	holder := dial(t, s.URL(), key, "x", exclusive)
	holder.join(t)
	for _, in := range []*instance{dial(t, s.URL(), key, "x", exclusive), dial(t, s.URL(), key, "x")} {
		_, err := in.Join(within(t))
		want(t, err, rendezvous.ErrHeld)
	}
	if err := holder.Leave(within(t)); err != nil {
		t.Fatal(err)
	}
	next := dial(t, s.URL(), key, "x", exclusive)
	if e := next.join(t).Epoch; e <= holder.Epoch() {
		t.Errorf("epoch %d after %d", e, holder.Epoch())
	}
}

func TestLeaseEnds(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Lease: 400 * time.Millisecond})
	kept, lost := dial(t, s.URL(), key, "kept"), dial(t, s.URL(), key, "lost")
	kept.join(t)
	kept.run(t)
	lost.join(t)
	for { // no event tells of an end; everybody asks
		members, err := kept.List(within(t))
		if err != nil {
			t.Fatal(err)
		}
		names := make([]string, 0, 2)
		for _, m := range members {
			names = append(names, m.Name)
		}
		if slices.Equal(names, []string{"kept"}) {
			break
		}
		if !slices.Equal(names, []string{"kept", "lost"}) {
			t.Fatalf("members %v", names)
		}
	}
	_, err := kept.Lookup(within(t), "lost")
	want(t, err, rendezvous.ErrNotFound)
	// A thawed instance goes on under its epoch as long as nobody took the name.
	e := lost.Epoch()
	if j := lost.join(t); j.Epoch != e {
		t.Errorf("epoch %d, want %d", j.Epoch, e)
	}
}

func TestLeave(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	a := dial(t, s.URL(), key, "a")
	a.join(t)
	if err := a.Leave(within(t)); err != nil {
		t.Fatal(err)
	}
	_, err := a.Lookup(within(t), "a")
	want(t, err, rendezvous.ErrNotFound)
	if err := a.Leave(within(t)); err != nil {
		t.Errorf("leaving twice: %v", err)
	}
}

func TestReplayedJoin(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	in := dial(t, s.URL(), key, "x")
	nc, _ := raw(t, s.URL(), nkey(t, key.Signer()), inboxOf(key))
	head := rendezvous.Head{V: 1, Job: key.ID(), Name: "x", Peer: in.id.Peer.String(), Issued: time.Now(), Nonce: [16]byte{1}}
	signed, err := rendezvous.SignRequest(rendezvous.VerbJoin, key.ID(), rendezvous.JoinRequest{Head: head}, key.Signer(), in.id.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	if c := askRaw(t, nc, rendezvous.VerbJoin, key.ID(), data); c != "" {
		t.Fatalf("first: %q", c)
	}
	newer := dial(t, s.URL(), key, "x")
	newer.join(t)
	if c := askRaw(t, nc, rendezvous.VerbJoin, key.ID(), data); c != rendezvous.CodeStale {
		t.Errorf("repeated: %q", c)
	}
	if err := newer.Leave(within(t)); err != nil {
		t.Fatal(err)
	}
	if c := askRaw(t, nc, rendezvous.VerbJoin, key.ID(), data); c != rendezvous.CodeStale {
		t.Errorf("repeated after the holder left: %q", c)
	}
}

func TestIllegalRequests(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	in := dial(t, s.URL(), key, "x")
	nc, _ := raw(t, s.URL(), nkey(t, key.Signer()), inboxOf(key))
	head := rendezvous.Head{V: 1, Job: key.ID(), Name: "x", Peer: in.id.Peer.String(), Issued: time.Now()}
	named := func(name string) rendezvous.Head { h := head; h.Name = name; return h }
	for _, name := range []string{"", "a.b", "*", ">", "a b", "ä", "a/b"} {
		if c := ask(t, nc, rendezvous.VerbJoin, key.ID(), rendezvous.JoinRequest{Head: named(name)}, key.Signer(), in.id.Ed25519); c != rendezvous.CodeIllegalName {
			t.Errorf("join %q: %q", name, c)
		}
		if c := ask(t, nc, rendezvous.VerbLookup, key.ID(), rendezvous.NameRequest{Head: named(name)}, key.Signer(), nil); c != rendezvous.CodeIllegalName {
			t.Errorf("lookup %q: %q", name, c)
		}
	}
	if c := ask(t, nc, rendezvous.VerbJoin, key.ID(), rendezvous.JoinRequest{Head: head}, nil, in.id.Ed25519); c != rendezvous.CodeUnauthorized {
		t.Errorf("join without the job's signature: %q", c)
	}
	future := uint64(time.Now().Add(2 * time.Hour).UnixMilli())
	if c := ask(t, nc, rendezvous.VerbJoin, key.ID(), rendezvous.JoinRequest{Head: head, Epoch: future}, key.Signer(), in.id.Ed25519); c != rendezvous.CodeBadRequest {
		t.Errorf("join with an epoch of the future: %q", c)
	}
	if c := ask(t, nc, rendezvous.VerbRenew, key.ID(), rendezvous.RenewRequest{Head: named("never"), Epoch: 1}, nil, in.id.Ed25519); c != rendezvous.CodeUnknown {
		t.Errorf("renewal without a join: %q", c)
	}
	for _, garbage := range []string{"", "x", "{}", `{"body":"x"}`, `[]`} {
		for _, verb := range rendezvous.Verbs() {
			if c := askRaw(t, nc, verb, key.ID(), []byte(garbage)); c != rendezvous.CodeBadRequest && c != rendezvous.CodeUnauthorized {
				t.Errorf("%s %q: %q", verb, garbage, c)
			}
		}
	}
	_, err := tryDial(t, s.URL(), key, "a.b")
	want(t, err, rendezvous.ErrIllegalName)
}

func TestWait(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}})
	a := dial(t, s.URL(), key, "a")
	type result struct {
		m   rendezvous.Member
		err error
	}
	done := make(chan result, 1)
	go func() {
		m, err := a.Wait(within(t), "b")
		done <- result{m, err}
	}()
	b := dial(t, s.URL(), key, "b")
	b.join(t)
	if r := got(t, done); r.err != nil || r.m.Peer != b.id.Peer.String() {
		t.Errorf("wait: %+v", r)
	}
	if m, err := a.Wait(within(t), "b"); err != nil || m.Epoch != b.Epoch() {
		t.Errorf("wait for one who is there: %+v, %v", m, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := a.Wait(ctx, "nobody")
	want(t, err, rendezvous.ErrNotFound)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for nobody: %v", err)
	}
}

func TestBoundsOfAJob(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, Limits: server.Limits{Names: 2, Waits: 1}})
	a := dial(t, s.URL(), key, "a")
	a.join(t)
	dial(t, s.URL(), key, "b").join(t)
	_, err := dial(t, s.URL(), key, "c").Join(within(t))
	want(t, err, rendezvous.ErrFull)
	_, err = a.Offer(within(t), "d", a.seal(t, rendezvous.KindOffer, "d", ""))
	want(t, err, rendezvous.ErrFull)
	nc, _ := raw(t, s.URL(), nkey(t, key.Signer()), inboxOf(key))
	body := rendezvous.NameRequest{Head: rendezvous.Head{V: 1, Job: key.ID(), Name: "z", Issued: time.Now()}, TimeoutMS: 1 << 62}
	req, err := rendezvous.SignRequest(rendezvous.VerbWait, key.ID(), body, key.Signer(), nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	replies := make(chan *nats.Msg, 4)
	if _, err := nc.ChanSubscribe(rendezvous.JobInbox(key.ID())+".x", replies); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one is held, for a minute at most whatever it asks for; the other is refused
		if err := nc.PublishRequest(rendezvous.SubjectFor(rendezvous.VerbWait, key.ID().String()), rendezvous.JobInbox(key.ID())+".x", data); err != nil {
			t.Fatal(err)
		}
	}
	if c := got(t, replies).Header.Get("Nats-Service-Error-Code"); c != string(rendezvous.CodeFull) {
		t.Errorf("second wait: %q", c)
	}
}

// What an instance reports with a renewal or when it leaves, those that join later are told, and those of other jobs are not.
func TestHintsAreOfTheJob(t *testing.T) {
	key, other := job.NewKey(), job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID(), other.ID()}})
	asked := make(chan struct{}, 16)
	reports := func(h rendezvous.Hints) func(*rendezvous.Config) {
		return func(c *rendezvous.Config) {
			c.Hints = func() rendezvous.Hints { asked <- struct{}{}; return h }
		}
	}
	a := dial(t, s.URL(), key, "a", reports(1))
	a.join(t)
	a.run(t)
	for range 2 { // when the second renewal begins, the first has ended
		a.Check()
		got(t, asked)
	}
	b := dial(t, s.URL(), key, "b", reports(8))
	if b.join(t); b.Hints() != 1 {
		t.Errorf("after a's renewal: %b", b.Hints())
	}
	if err := b.Leave(within(t)); err != nil {
		t.Fatal(err)
	}
	c, stranger := dial(t, s.URL(), key, "c"), dial(t, s.URL(), other, "c")
	c.join(t)
	stranger.join(t)
	if c.Hints() != 9 || stranger.Hints() != 0 {
		t.Errorf("after b has left: %b, in another job %b", c.Hints(), stranger.Hints())
	}
}
