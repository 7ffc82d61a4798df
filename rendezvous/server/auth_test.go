package server_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// raw connects to NATS without the client's manners. Violations of permissions come out of the channel.
func raw(t *testing.T, url string, opts ...nats.Option) (*nats.Conn, chan error) {
	t.Helper()
	violations := make(chan error, 16)
	opts = append(opts, nats.NoReconnect(), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { violations <- err }))
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, violations
}

func nkey(t *testing.T, key ed25519.PrivateKey) nats.Option {
	t.Helper()
	user, err := rendezvous.NatsUser(key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return nats.Nkey(user, func(nonce []byte) ([]byte, error) { return ed25519.Sign(key, nonce), nil })
}

func flush(t *testing.T, nc *nats.Conn) {
	t.Helper()
	if err := nc.FlushTimeout(10 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func TestClosedByDefault(t *testing.T) {
	if _, err := server.New(server.Config{}); err == nil || !strings.Contains(err.Error(), "--allow") || !strings.Contains(err.Error(), "--open") {
		t.Errorf("no job admitted: %v", err)
	}
}

func TestWrongJobKey(t *testing.T) {
	s := start(t, server.Config{Allow: []job.ID{job.NewKey().ID()}})
	_, err := tryDial(t, s.URL(), job.NewKey(), "a")
	want(t, err, rendezvous.ErrNotAllowed)
	want(t, err, rendezvous.ErrUnauthorized)
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// A listener that never speaks: only the context ends this.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err = rendezvous.Dial(ctx, rendezvous.Config{URL: "nats://" + l.Addr().String(), Key: job.NewKey(), Identity: id})
	want(t, err, rendezvous.ErrUnreachable)
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("took %v", d)
	}
	// Nobody listens: at once.
	addr := l.Addr().String()
	_ = l.Close()
	_, err = tryDial(t, "nats://user:secret@"+addr, job.NewKey(), "a")
	want(t, err, rendezvous.ErrUnreachable)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows a password: %v", err)
	}
}

func TestCanceledDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			cancel() // while the client waits for the server's first line
			<-t.Context().Done()
			_ = c.Close()
		}
	}()
	begin := time.Now()
	_, err = rendezvous.Dial(ctx, rendezvous.Config{URL: "nats://" + l.Addr().String(), Key: job.NewKey(), Identity: id})
	want(t, err, context.Canceled)
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("took %v", d)
	}
}

func TestJobMayNotLeaveItsSubjects(t *testing.T) {
	mine, theirs := job.NewKey(), job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{mine.ID(), theirs.ID()}, RelaySecret: "a relay secret of some length", StorePassword: "store"})
	nc, violations := raw(t, s.URL(), nkey(t, mine.Signer()))
	peer := dial(t, s.URL(), theirs, "victim").id.Peer.String()
	for _, subject := range []string{
		rendezvous.SubjectFor(rendezvous.VerbJoin, theirs.ID().String()),
		rendezvous.SubjectFor(rendezvous.VerbLookup, theirs.ID().String()),
		rendezvous.SubjectInbox(theirs.ID(), peer),
		rendezvous.SubjectJoined(mine.ID(), "a"), rendezvous.SubjectJoined(theirs.ID(), "a"),
		rendezvous.SubjectAnnounce, rendezvous.RelayInbox + ".x", "_INBOX_rendezvous.x",
		rendezvous.JobInbox(theirs.ID()) + ".x", rendezvous.SubjectAck(theirs.ID().String(), "x.1"), "fnwire.v1.ack.x.x.x",
		"$JS.API.INFO", "$KV.fnwire_v1.x", "$SYS.REQ.SERVER.PING", "$SRV.PING", "anything",
	} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		flush(t, nc)
		want(t, got(t, violations), nats.ErrPermissionViolation)
	}
	for _, subject := range []string{
		">", "*", "fnwire.>", "fnwire.v1.inbox.>", "fnwire.v1.inbox.*.*", rendezvous.SubjectInbox(theirs.ID(), ">"), rendezvous.SubjectInbox(theirs.ID(), peer),
		"_INBOX.>", "_INBOX_rendezvous.>", rendezvous.JobInbox(theirs.ID()) + ".>", rendezvous.RelayInbox + ".>", "_INBOX_*.>",
		rendezvous.SubjectFor(rendezvous.VerbJoin, mine.ID().String()), rendezvous.SubjectFor(rendezvous.VerbOffer, "*"),
		rendezvous.SubjectAck("*", "*.*"), rendezvous.SubjectAck(mine.ID().String(), "*.*"),
		rendezvous.SubjectJoinedAll, rendezvous.SubjectAnnounce, "$SYS.>", "$JS.>", "$KV.>", "$SRV.>",
	} {
		for _, queue := range []string{"", "fnwire"} {
			if _, err := nc.QueueSubscribe(subject, queue, func(*nats.Msg) {}); err != nil && queue != "" {
				t.Fatal(err)
			}
			flush(t, nc)
			want(t, got(t, violations), nats.ErrPermissionViolation)
		}
	}
}

// TestNoDeputy: the service must not publish where the asker may not.
func TestNoDeputy(t *testing.T) {
	mine, theirs := job.NewKey(), job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{mine.ID(), theirs.ID()}})
	victim := dial(t, s.URL(), theirs, "victim")
	nc, _ := raw(t, s.URL(), nkey(t, mine.Signer()))
	watch, _ := raw(t, s.URL(), nkey(t, theirs.Signer()))
	inbox := rendezvous.SubjectInbox(theirs.ID(), victim.id.Peer.String())
	heard := make(chan string, 8)
	for _, subject := range []string{inbox, rendezvous.JobInbox(theirs.ID()) + ".>"} {
		if _, err := watch.Subscribe(subject, func(m *nats.Msg) { heard <- m.Subject }); err != nil {
			t.Fatal(err)
		}
	}
	flush(t, watch)
	lookup := rendezvous.SubjectFor(rendezvous.VerbLookup, mine.ID().String())
	for _, reply := range []string{inbox, rendezvous.JobInbox(theirs.ID()) + ".x"} {
		if err := nc.PublishRequest(lookup, reply, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	// A request of the same connection that is answered shows that those before have been handled.
	reply := rendezvous.JobInbox(mine.ID()) + ".ok"
	sub := make(chan *nats.Msg, 1)
	if _, err := nc.ChanSubscribe(reply, sub); err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest(lookup, reply, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	got(t, sub)
	flush(t, watch)
	select {
	case subject := <-heard:
		t.Errorf("the service published on %s", subject)
	default:
	}
}

func TestOtherUsers(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, StorePassword: "the store's password"})
	for name, opt := range map[string]nats.Option{
		"anonymous":        nats.Name("x"),
		"token":            nats.Token("x"),
		"unknown user":     nats.UserInfo("admin", "admin"),
		"service, guessed": nats.UserInfo("rendezvous", ""),
		"store, wrong":     nats.UserInfo("store", "x"),
		"store, empty":     nats.UserInfo("store", ""),
		"stranger's nkey":  nkey(t, job.NewKey().Signer()),
		"nkey without key": nats.Nkey(natsUser(t, key), func([]byte) ([]byte, error) { return make([]byte, 64), nil }),
		"other's nkey":     nats.Nkey(natsUser(t, key), func(n []byte) ([]byte, error) { return ed25519.Sign(job.NewKey().Signer(), n), nil }),
	} {
		if nc, err := nats.Connect(s.URL(), opt); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v", name, err)
			nc.Close()
		}
	}

	store, violations := raw(t, s.URL(), nats.UserInfo("store", "the store's password"))
	js, err := jetstream.New(store)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.CreateObjectStore(within(t), jetstream.ObjectStoreConfig{Bucket: "state"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.PutString(within(t), "k", "v"); err != nil {
		t.Fatal(err)
	}
	if v, err := bucket.GetString(within(t), "k"); err != nil || v != "v" {
		t.Errorf("object store: %q, %v", v, err)
	}
	// It has an account of its own: fnwire's subjects there are nobody's.
	a := dial(t, s.URL(), key, "a")
	a.join(t)
	if _, err := store.RequestWithContext(within(t), rendezvous.SubjectFor(rendezvous.VerbList, key.ID().String()), nil); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("store user reaches fnwire: %v", err)
	}
	heard := make(chan struct{}, 8)
	if _, err := store.Subscribe("fnwire.>", func(*nats.Msg) { heard <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	flush(t, store)
	a.offer(t, "nobody")
	flush(t, store)
	select {
	case err := <-violations:
		t.Error(err)
	default:
	}
	if len(heard) > 0 {
		t.Error("store user hears fnwire")
	}
}

func natsUser(t *testing.T, key job.Key) string {
	t.Helper()
	id := key.ID()
	u, err := rendezvous.NatsUser(id[:])
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// ask sends a request made by hand and returns the refusal's code, "" if there is none.
func ask(t *testing.T, nc *nats.Conn, verb string, j job.ID, body any, jobKey, peerKey ed25519.PrivateKey) rendezvous.Code {
	t.Helper()
	req, err := rendezvous.SignRequest(verb, j, body, jobKey, peerKey)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return askRaw(t, nc, verb, j, data)
}

func askRaw(t *testing.T, nc *nats.Conn, verb string, j job.ID, data []byte) rendezvous.Code {
	t.Helper()
	m, err := nc.RequestWithContext(within(t), rendezvous.SubjectFor(verb, j.String()), data)
	if err != nil {
		t.Fatal(err)
	}
	var r rendezvous.Reply
	if err := json.Unmarshal(m.Data, &r); err != nil {
		t.Fatal(err)
	}
	if r.Error == nil {
		return ""
	}
	if h := m.Header.Get("Nats-Service-Error-Code"); h != string(r.Error.Code) {
		t.Errorf("header says %q, body %q", h, r.Error.Code)
	}
	return r.Error.Code
}

func inboxOf(key job.Key) nats.Option {
	return nats.CustomInboxPrefix(rendezvous.JobInbox(key.ID()))
}
