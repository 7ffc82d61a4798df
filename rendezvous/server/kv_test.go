package server_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// existing is a NATS as somebody else runs it: with JetStream, and asking nobody who he is.
func existing(t *testing.T) *natsserver.Server {
	t.Helper()
	ns, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS did not start")
	}
	return ns
}

// TestSameOnBothTables runs one scene on the table in memory and on the KV bucket.
func TestSameOnBothTables(t *testing.T) {
	for name, replicated := range map[string]bool{"memory": false, "kv": true} {
		t.Run(name, func(t *testing.T) {
			key := job.NewKey()
			s := start(t, server.Config{Allow: []job.ID{key.ID()}, Replicated: replicated})
			a, b := dial(t, s.URL(), key, "a"), dial(t, s.URL(), key, "b")
			a.join(t)
			a.offer(t, "b")
			if n := len(b.join(t).Parked); n != 1 {
				t.Errorf("%d parked", n)
			}
			if r := a.offer(t, "b"); !r.Delivered {
				t.Error("not delivered")
			}
			b.run(t)
			newer := dial(t, s.URL(), key, "b")
			if e := newer.join(t).Epoch; e <= b.Epoch() {
				t.Errorf("epoch %d after %d", e, b.Epoch())
			}
			got(t, b.fenced)
			if err := newer.Leave(within(t)); err != nil {
				t.Fatal(err)
			}
			_, err := a.Lookup(within(t), "b")
			want(t, err, rendezvous.ErrNotFound)
		})
	}
}

// What NATS will never give is asked for once.
func TestReplicasOfOneServer(t *testing.T) {
	var log bytes.Buffer
	s, err := server.New(server.Config{
		NATS: existing(t).ClientURL(), Open: true, Replicated: true, Replicas: 3, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(within(t)); err == nil || !strings.Contains(err.Error(), "as many servers as --replicas says") || log.Len() != 0 {
		t.Errorf("%v; log: %s", err, &log)
	}
}

// TestTwoCopies: which copy answers a request is NATS' choice, so everything must work at any.
func TestTwoCopies(t *testing.T) {
	key := job.NewKey()
	ns := existing(t)
	one, err := server.LoadTokenKey(t.TempDir() + "/key")
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.Config{NATS: ns.ClientURL(), Allow: []job.ID{key.ID()}, Replicated: true, RelaySecret: secret, TokenKey: one}
	first := start(t, cfg)

	// Parked while only the first copy runs; asked for when only the second does.
	a := dial(t, ns.ClientURL(), key, "a")
	ea := a.join(t).Epoch
	a.offer(t, "b")
	second := start(t, cfg)
	first.stop(t)
	b := dial(t, ns.ClientURL(), key, "b")
	j := b.join(t)
	if len(j.Parked) != 1 {
		t.Fatalf("%d parked", len(j.Parked))
	}
	if h, err := rendezvous.Open(key, j.Parked[0], rendezvous.Self{Name: "b", Peer: b.id.Peer}); err != nil || h.FromEpoch != ea {
		t.Errorf("parked: %+v, %v", h, err)
	}

	// Waits held by the second copy are ended by joins at either: the third takes about half of them.
	waited := make(chan error, 32)
	for range cap(waited) {
		go func() {
			_, err := a.Wait(within(t), "c")
			waited <- err
		}()
	}
	third := start(t, cfg)
	for range 8 {
		c := dial(t, ns.ClientURL(), key, "c")
		c.join(t)
		_ = c.Close()
	}
	for range cap(waited) {
		if err := got(t, waited); err != nil {
			t.Errorf("wait: %v", err)
		}
	}

	// Both know a relay that announces itself, and everybody gets tokens that it accepts.
	keys, _, _ := announce(t, rendezvous.AnnounceConfig{URL: ns.ClientURL(), Secret: secret, Relay: relayInfo("r", 1)})
	if k := got(t, keys); !k.Equal(second.TokenKey()) || !k.Equal(third.TokenKey()) {
		t.Error("token keys differ")
	}

	// One name, many who want it at once: every epoch is given once.
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	var all sync.WaitGroup
	for range 12 {
		in := dial(t, ns.ClientURL(), key, "d")
		all.Go(func() {
			j, err := in.Join(within(t))
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[j.Epoch] {
				t.Errorf("join: %+v, %v", j, err)
				return
			}
			seen[j.Epoch] = true
		})
	}
	all.Wait()
	members, err := a.List(within(t))
	if err != nil || len(members) == 0 {
		t.Errorf("list: %v, %v", members, err)
	}

	// Outsiders are refused although this NATS admits anybody.
	stranger := dial(t, ns.ClientURL(), job.NewKey(), "a")
	_, err = stranger.Join(within(t))
	want(t, err, rendezvous.ErrNotAllowed)
	nc, _ := raw(t, ns.ClientURL(), inboxOf(key))
	head := rendezvous.Head{V: 1, Job: key.ID(), Name: "a", Peer: stranger.id.Peer.String(), Issued: time.Now()}
	if c := ask(t, nc, rendezvous.VerbJoin, key.ID(), rendezvous.JoinRequest{Head: head}, job.NewKey().Signer(), stranger.id.Ed25519); c != rendezvous.CodeUnauthorized {
		t.Errorf("join with another job's signature: %q", c)
	}
	if c := ask(t, nc, rendezvous.VerbList, key.ID(), rendezvous.NameRequest{Head: head}, nil, stranger.id.Ed25519); c != rendezvous.CodeUnauthorized {
		t.Errorf("list without the job's signature: %q", c)
	}
	err = rendezvous.AnnounceRelay(within(t), rendezvous.AnnounceConfig{URL: ns.ClientURL(), Secret: "another secret of some length", Relay: relayInfo("evil", 9)})
	want(t, err, rendezvous.ErrUnauthorized)
}

// TestSomeServersAreDown: of several servers one is enough, in whatever order they are tried, if they ask nobody who he is too.
func TestSomeServersAreDown(t *testing.T) {
	key := job.NewKey()
	ns := existing(t)
	start(t, server.Config{NATS: ns.ClientURL(), Allow: []job.ID{key.ID()}})
	for range 8 {
		dial(t, "nats://127.0.0.1:1,"+ns.ClientURL()+",nats://127.0.0.1:2", key, "a").join(t)
	}
}

// TestBucketLost: an operator, or a disk that is gone, can take the bucket away.
func TestBucketLost(t *testing.T) {
	key := job.NewKey()
	ns := existing(t)
	start(t, server.Config{NATS: ns.ClientURL(), Allow: []job.ID{key.ID()}, Replicated: true, Lease: time.Second})
	a, b := dial(t, ns.ClientURL(), key, "a"), dial(t, ns.ClientURL(), key, "b")
	ea := a.join(t).Epoch
	a.run(t)
	b.join(t)
	b.run(t)
	nc, _ := raw(t, ns.ClientURL())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(within(t), "fnwire_v1"); err != nil {
		t.Fatal(err)
	}
	got(t, a.returned)
	got(t, b.returned)
	if a.Epoch() != ea {
		t.Errorf("epoch %d, want %d", a.Epoch(), ea)
	}
	if r := a.offer(t, "b"); !r.Delivered {
		t.Error("not delivered")
	}
}

func TestNoService(t *testing.T) {
	ns := existing(t)
	a := dial(t, ns.ClientURL(), job.NewKey(), "a")
	_, err := a.Join(within(t))
	want(t, err, rendezvous.ErrNoService)
}
