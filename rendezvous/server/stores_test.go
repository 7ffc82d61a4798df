package server_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/natsobj"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/bucket"
	"github.com/fnwire/fnwire/rendezvous/server"
)

const mib = 1 << 20

func openStore(t *testing.T, s *running, key job.Key) *natsobj.Store {
	t.Helper()
	st, err := tryOpenStore(t, s, key)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func tryOpenStore(t *testing.T, s *running, key job.Key) (*natsobj.Store, error) {
	t.Helper()
	st, err := natsobj.OpenRendezvous(within(t), natsobj.Rendezvous{URL: s.URL(), JobKey: key.Encode()})
	if err == nil {
		t.Cleanup(func() { _ = st.Close() })
	}
	return st, err
}

func putState(t *testing.T, st store.Store, key string, size int) []byte {
	t.Helper()
	state := make([]byte, size)
	_, _ = rand.Read(state) // never fails
	if err := st.Put(within(t), key, bytes.NewReader(state), store.PutOptions{TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	return state
}

func wantState(t *testing.T, st store.Store, key string, state []byte) {
	t.Helper()
	r, _, err := st.Get(within(t), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, state) {
		t.Errorf("%s: %d bytes, %v", key, len(b), err)
	}
}

// rawStore connects to a job's store without a driver's manners.
func rawStore(t *testing.T, s *running, key job.Key) (*nats.Conn, chan error) {
	t.Helper()
	return raw(t, s.URL(), nkey(t, key.Signer()), nats.Name(rendezvous.StoreConnection), inboxOf(key))
}

// No job reads, writes, removes or lists what another has stored, nor has the server send anything to where another listens.
func TestJobStoresAreApart(t *testing.T) {
	mine, theirs := job.NewKey(), job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{mine.ID(), theirs.ID()}, StoreBytes: 64 * mib, JobStoreBytes: 32 * mib, StorePassword: "store"})
	a, b := openStore(t, s, mine), openStore(t, s, theirs)
	small, big := putState(t, b, "small", 100), putState(t, b, "big", 3*mib)
	for _, key := range []string{"small", "big"} {
		if _, _, err := a.Get(within(t), key, 0); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("another job's %s: %v", key, err)
		}
		if err := a.Delete(within(t), key); err != nil {
			t.Error(err)
		}
	}
	if err := a.List(within(t), "", func(i store.Info) bool { t.Errorf("another job's %s is listed", i.Key); return true }); err != nil {
		t.Error(err)
	}

	// What the victim can hear, by a connection to its store and by one for signalling.
	heard := make(chan string, 1000)
	inbox := rendezvous.JobInbox(theirs.ID())
	inStore, _ := rawStore(t, s, theirs)
	signalling, _ := raw(t, s.URL(), nkey(t, theirs.Signer()))
	victim := dial(t, s.URL(), theirs, "victim").id.Peer.String()
	for _, nc := range []*nats.Conn{inStore, signalling} {
		for _, subject := range []string{inbox + ".>", rendezvous.SubjectInbox(theirs.ID(), victim)} {
			if _, err := nc.Subscribe(subject, func(m *nats.Msg) { heard <- m.Subject }); err != nil {
				t.Fatal(err)
			}
		}
		flush(t, nc)
	}

	nc, _ := rawStore(t, s, mine)
	stream := bucket.Stream(bucket.Default)
	put := bucket.Object(bucket.Default, "mine")
	request := func(subject, reply string, body any) {
		t.Helper()
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishRequest(subject, reply, data); err != nil {
			t.Fatal(err)
		}
	}
	for _, reply := range []string{inbox + ".x", rendezvous.SubjectInbox(theirs.ID(), victim), bucket.Object(bucket.Default, "small"), rendezvous.JobInbox(mine.ID()) + ".x"} {
		request(put, reply, "mine")
		request("$JS.API.DIRECT.GET."+stream+"."+put, reply, "")
		request("$JS.API.STREAM.MSG.GET."+stream, reply, map[string]any{"last_by_subj": put})
		request("$JS.API.STREAM.INFO."+stream, reply, nil)
		for _, filter := range []string{put, ">"} {
			request("$JS.API.CONSUMER.CREATE."+stream+".c."+filter, reply, map[string]any{
				"stream_name": stream, "config": map[string]any{"name": "c", "deliver_subject": reply, "ack_policy": "none", "filter_subject": filter, "deliver_policy": "all"},
			})
		}
		request("$JS.API.CONSUMER.MSG.NEXT."+stream+".c", reply, map[string]any{"batch": 10})
		request("$JS.API.STREAM.MSG.DELETE."+stream, reply, map[string]any{"seq": 1})
		request("$JS.API.STREAM.PURGE."+stream, reply, nil)
	}
	flush(t, nc)
	// The server has done all that when it answers what was asked after it.
	putState(t, a, "last", 10)
	for _, nc := range []*nats.Conn{inStore, signalling} {
		flush(t, nc)
	}
	select {
	case subject := <-heard:
		t.Errorf("another job hears something on %s", subject)
	default:
	}
	wantState(t, b, "small", small)
	wantState(t, b, "big", big)
	var listed []string
	if err := b.List(within(t), "", func(i store.Info) bool { listed = append(listed, i.Key); return true }); err != nil {
		t.Error(err)
	}
	if slices.Sort(listed); !slices.Equal(listed, []string{"big", "small"}) {
		t.Errorf("%q", listed)
	}
}

// A connection to the store can do no more there than it needs, and nothing of what other connections can.
func TestStoreConnectionIsForTheStore(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, StoreBytes: 64 * mib})
	nc, violations := rawStore(t, s, key)
	stream := bucket.Stream(bucket.Default)
	for _, subject := range []string{
		"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.x", "$JS.API.STREAM.UPDATE." + stream,
		"$JS.API.STREAM.DELETE." + stream, "$JS.API.STREAM.SNAPSHOT." + stream, "$JS.API.STREAM.RESTORE.x", "$JS.API.STREAM.INFO.x",
		"$JS.API.CONSUMER.CREATE.x.y", "$JS.API.CONSUMER.DURABLE.CREATE." + stream + ".x", "$JS.API.ACCOUNT.PURGE.x", "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO",
		rendezvous.SubjectFor(rendezvous.VerbJoin, key.ID().String()), rendezvous.SubjectInbox(key.ID(), "x"), rendezvous.SubjectAnnounce, "anything",
	} {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		flush(t, nc)
		want(t, got(t, violations), nats.ErrPermissionViolation)
	}
	for _, subject := range []string{">", "fnw.>", "fnwire.>", "$JS.>", "$SYS.>", "_INBOX.>", rendezvous.JobInbox(job.NewKey().ID()) + ".>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		flush(t, nc)
		want(t, got(t, violations), nats.ErrPermissionViolation)
	}
	// And one that is not for the store reaches no JetStream.
	other, violations := raw(t, s.URL(), nkey(t, key.Signer()), inboxOf(key))
	for _, subject := range bucket.Requests(bucket.Default) {
		if err := other.Publish(strings.Replace(subject, ">", "x", 1), nil); err != nil {
			t.Fatal(err)
		}
		flush(t, other)
		want(t, got(t, violations), nats.ErrPermissionViolation)
	}
}

func TestStoresAreBounded(t *testing.T) {
	s := start(t, server.Config{Open: true, StoreBytes: 16 * mib, JobStoreBytes: 8 * mib})
	first, second := job.NewKey(), job.NewKey()
	a := openStore(t, s, first)
	openStore(t, s, second)
	if _, err := tryOpenStore(t, s, job.NewKey()); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "--store-bytes") {
		t.Errorf("a store too many: %v", err)
	}
	state := putState(t, a, "k", 5*mib)
	for _, size := range []int64{4 * mib, 400 << 10} {
		var err error
		for i := 0; err == nil && i < 20; i++ {
			err = a.Put(within(t), "big"+strings.Repeat("x", i), io.LimitReader(rand.Reader, size), store.PutOptions{})
		}
		if !errors.Is(err, store.ErrFull) {
			t.Errorf("%v, want ErrFull", err)
		}
	}
	wantState(t, a, "k", state)
	if err := a.Delete(within(t), "k"); err != nil {
		t.Fatal(err)
	}
	putState(t, a, "k", 4*mib) // what failed has left nothing
}

// Many small messages cost memory, so they are bounded too.
func TestStoreCountsMessages(t *testing.T) {
	s := start(t, server.Config{Open: true, StoreBytes: 4 * mib})
	a := openStore(t, s, job.NewKey())
	var err error
	n := 0
	for ; err == nil && n < 2000; n++ {
		err = a.Put(within(t), "k/"+strings.Repeat("x", n%100+1)+"/"+strings.Repeat("y", n/100+1), strings.NewReader("x"), store.PutOptions{})
	}
	if !errors.Is(err, store.ErrFull) || n != 4*mib/(4<<10)+1 {
		t.Errorf("after %d: %v", n, err)
	}
}

func TestStoreOutlivesServer(t *testing.T) {
	dir := t.TempDir()
	cfg := server.Config{Open: true, DataDir: dir, StoreBytes: 64 * mib, JobStoreBytes: 16 * mib}
	keys := []job.Key{job.NewKey(), job.NewKey(), job.NewKey()}
	var states [][]byte
	s := start(t, cfg)
	for _, key := range keys {
		states = append(states, putState(t, openStore(t, s, key), "k", 2*mib))
	}
	s.stop(t)
	cfg.JobStoreBytes = 32 * mib // more than there is for all of them
	s = start(t, cfg)
	for i := range keys {
		i = len(keys) - 1 - i
		wantState(t, openStore(t, s, keys[i]), "k", states[i])
	}
}

// Two servers on one data directory would remove what the other has stored.
func TestDataDirectoryIsOfOne(t *testing.T) {
	cfg := server.Config{Open: true, DataDir: t.TempDir(), StoreBytes: 64 * mib, JobStoreBytes: 16 * mib}
	key := job.NewKey()
	s := start(t, cfg)
	st := openStore(t, s, key)
	first := putState(t, st, "first", 100)
	second, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(within(t)); err == nil || !strings.Contains(err.Error(), "another rendezvous uses "+cfg.DataDir) {
		t.Errorf("a second server: %v", err)
	}
	later := putState(t, st, "later", 100)
	s.stop(t)
	st = openStore(t, start(t, cfg), key)
	wantState(t, st, "first", first)
	wantState(t, st, "later", later)
}

// A store that is empty and that nobody uses makes room for another job's, which finds nothing in it.
func TestStoreIsGivenOn(t *testing.T) {
	dir := t.TempDir()
	s := start(t, server.Config{Open: true, DataDir: dir, StoreBytes: 8 * mib, JobStoreBytes: 8 * mib})
	first, second := job.NewKey(), job.NewKey()
	later := func() time.Time { return time.Now().Add(11 * time.Minute) }
	denied := func(why string) {
		t.Helper()
		if _, err := tryOpenStore(t, s, second); !errors.Is(err, store.ErrDenied) {
			t.Errorf("%s: %v", why, err)
		}
	}
	a := openStore(t, s, first)
	s.CollectStores(later())
	denied("somebody is connected")
	putState(t, a, "k", 2*mib)
	_ = a.Close()
	s.CollectStores(later())
	denied("it is not empty")
	a = openStore(t, s, first)
	if err := a.Delete(within(t), "k"); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	denied("it was used a moment ago")
	for deadline := time.Now().Add(10 * time.Second); !slices.Equal(s.StoresOf(), []job.ID{{}}); {
		if s.CollectStores(later()); time.Now().After(deadline) {
			t.Fatalf("stores of %v", s.StoresOf())
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "jetstream", "STORE-0")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v, %v", left, err)
	}
	b := openStore(t, s, second)
	if err := b.List(within(t), "", func(i store.Info) bool { t.Errorf("%s is left", i.Key); return true }); err != nil {
		t.Error(err)
	}
	putState(t, b, "k", 2*mib)
	if jobs := s.StoresOf(); !slices.Equal(jobs, []job.ID{second.ID()}) {
		t.Errorf("stores of %v", jobs)
	}
}

// JetStream does in a job's account what it is asked to, also when it is JetStream that asks: that gets a job out of no bound for long.
func TestStoreSettingsAreNotTheJobs(t *testing.T) {
	s := start(t, server.Config{Open: true, StoreBytes: 64 * mib, JobStoreBytes: 32 * mib})
	key, other := job.NewKey(), job.NewKey()
	state := putState(t, openStore(t, s, other), "k", mib)
	nc, _ := rawStore(t, s, key)
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(within(t), bucket.Stream(bucket.Default))
	if err != nil {
		t.Fatal(err)
	}
	s.CollectStores(time.Now())
	conf := stream.CachedInfo().Config
	conf.MaxMsgs = -1
	data, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	subject := bucket.Object(bucket.Default, "settings")
	if _, err := js.Publish(within(t), subject, data); err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("$JS.API.DIRECT.GET."+conf.Name+"."+subject, "$JS.API.STREAM.UPDATE."+conf.Name, nil); err != nil {
		t.Fatal(err)
	}
	for changed := false; !changed; {
		i, err := stream.Info(within(t))
		if err != nil {
			t.Fatal(err)
		}
		changed = i.Config.MaxMsgs == -1
	}
	s.CollectStores(time.Now())
	got(t, closed)
	if _, err := tryOpenStore(t, s, key); !errors.Is(err, store.ErrDenied) {
		t.Errorf("%v", err)
	}
	s.CollectStores(time.Now().Add(11 * time.Minute))
	openStore(t, s, key)
	wantState(t, openStore(t, s, other), "k", state)
}

func TestNoStores(t *testing.T) {
	key := job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{key.ID()}, StorePassword: "store"})
	if _, err := tryOpenStore(t, s, key); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("%v", err)
	}
	s = start(t, server.Config{Allow: []job.ID{key.ID()}, StoreBytes: mib})
	if _, err := tryOpenStore(t, s, job.NewKey()); !errors.Is(err, store.ErrDenied) {
		t.Errorf("another job: %v", err)
	}
}
