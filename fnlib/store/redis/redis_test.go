package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/redis"
	"github.com/fnwire/fnwire/fnlib/store/storetest"
	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/testserver"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	_, err := redis.Open(context.Background(), "redis://user:secret@host/states")
	fmt.Println(err)
	// Output:
	// store: redis://user:xxxxx@host/states: the database is not a number; want redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss: for TLS
}

func Example_store() {
	ctx := context.Background()
	s, err := redis.Open(ctx, "rediss://user:password@redis.internal:6379/0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = s.Close() }()
	fmt.Println(s.Put(ctx, "job/a", strings.NewReader("state"), store.PutOptions{TTL: time.Hour}))
}

func open(t testing.TB, url string) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opened(t testing.TB, url string) *redis.Store {
	t.Helper()
	s := open(t, url)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// do runs a command that is no business of the store's.
func do(t testing.TB, s *redis.Store, words ...string) rueidis.RedisResult {
	t.Helper()
	r := s.Client().Do(context.Background(), s.Client().B().Arbitrary(words...).Build())
	if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
		t.Fatalf("%v: %v", words, err)
	}
	return r
}

// content is n bytes in which each chunk differs.
func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i/redis.ChunkSize)
	}
	return b
}

func put(t testing.TB, s store.Store, key string, state []byte, ttl time.Duration) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(state), store.PutOptions{TTL: ttl}); err != nil {
		t.Fatal(err)
	}
}

// TestStore runs the suite, each test of it in a database of its own that holds foreign keys too.
func TestStore(t *testing.T) {
	server := servertest.Redis(t, "--databases", "100")
	var db atomic.Int32
	storetest.Run(t, func(t *testing.T) store.Store {
		s := open(t, fmt.Sprintf("%s/%d", server.URL, db.Add(1)))
		do(t, s, "SET", "foreign", "x")
		do(t, s, "SET", "fnwire:text", "x")
		do(t, s, "HSET", "fnwire:hash", "a", "b")
		t.Cleanup(func() {
			if left := names(t, server, int(db.Load())); slices.ContainsFunc(left, func(k string) bool { return strings.Contains(k, "!") }) {
				t.Errorf("chunks are left: %q", left)
			}
		})
		return s
	})
}

func names(t *testing.T, server *testserver.Server, db int) []string {
	t.Helper()
	s, err := redis.Open(context.Background(), fmt.Sprintf("%s/%d", server.URL, db))
	if err != nil {
		t.Error(err)
		return nil
	}
	defer func() { _ = s.Close() }()
	found, err := do(t, s, "KEYS", "*").AsStrSlice()
	if err != nil {
		t.Error(err)
	}
	return found
}

func TestGolden(t *testing.T) {
	s := opened(t, servertest.Redis(t).URL)
	state := content(redis.ChunkSize + 3)
	put(t, s, "job/a", state, time.Hour)
	fields, err := do(t, s, "HGETALL", "fnwire:job/a").AsStrMap()
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, []string{"0", "1", "meta"}) {
		t.Errorf("fields %q", got)
	}
	if fields["0"]+fields["1"] != string(state) || len(fields["1"]) != 3 {
		t.Error("the chunks are not the state")
	}
	if m := fields["meta"]; len(m) != len("fnw1 ")+32+len(" 524291") || !strings.HasPrefix(m, "fnw1 ") || !strings.HasSuffix(m, " 524291") {
		t.Errorf("meta %q", m)
	}
	if ms, err := do(t, s, "PTTL", "fnwire:job/a").AsInt64(); err != nil || ms > 3_600_000 || ms < 3_000_000 {
		t.Errorf("expires in %d ms, %v", ms, err)
	}
	put(t, s, "job/a", state, 0)
	if ms, err := do(t, s, "PTTL", "fnwire:job/a").AsInt64(); err != nil || ms != -1 {
		t.Errorf("expires in %d ms, %v", ms, err)
	}
}

// TestOtherPrefix holds that two prefixes, one with the signs of patterns in it, see nothing of each other.
func TestOtherPrefix(t *testing.T) {
	server := servertest.Redis(t)
	stores := []*redis.Store{opened(t, server.URL), opened(t, server.URL+"?prefix=a*:"), opened(t, server.URL+"?prefix=ab:")}
	for i, s := range stores {
		put(t, s, "k", content(i), 0)
	}
	for i, s := range stores {
		var found []store.Info
		err := s.List(t.Context(), "", func(info store.Info) bool { found = append(found, info); return true })
		if err != nil || len(found) != 1 || found[0] != (store.Info{Key: "k", Size: int64(i)}) {
			t.Errorf("%s: %v, %v", s, found, err)
		}
	}
}

// user makes a server know a user who may do what the package comment says, but for some rules more.
func user(name string, rules ...string) []string {
	all := "on >pw ~fnwire:* +hset +hmget +hlen +pexpire +persist +rename +unlink +scan +multi +exec +ping"
	return append(append([]string{"--user", name}, strings.Fields(all)...), rules...)
}

func TestDenied(t *testing.T) {
	server := servertest.Redis(t, append(user("reader", "-hset"), "--requirepass", "secret")...)
	at := strings.TrimPrefix(server.URL, "redis://")
	for _, who := range []string{"", ":wrong@", "nobody:secret@"} {
		s, err := redis.Open(t.Context(), "redis://"+who+at)
		if err == nil {
			_ = s.Close()
		}
		if !errors.Is(err, store.ErrDenied) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "wrong@") {
			t.Errorf("%q: %v", who, err)
		}
	}
	owner, reader := opened(t, "redis://:secret@"+at), opened(t, "redis://reader:pw@"+at)
	put(t, owner, "k", content(10), 0)
	for _, size := range []int{1, 3 * redis.ChunkSize} {
		if err := reader.Put(t.Context(), "k", bytes.NewReader(content(size)), store.PutOptions{}); !errors.Is(err, store.ErrDenied) {
			t.Errorf("put of %d bytes: %v", size, err)
		}
	}
	if r, info, err := reader.Get(t.Context(), "k", 0); err != nil || info.Size != 10 {
		t.Errorf("get: %v, %v", info, err)
	} else {
		_ = r.Close()
	}
	for s, want := range map[*redis.Store]string{owner: "redis://" + at, reader: "redis://reader@" + at} {
		if s.String() != want {
			t.Errorf("%s, want %s", s, want)
		}
	}
}

// TestLeastRights holds that what the package comment asks for is enough.
func TestLeastRights(t *testing.T) {
	server := servertest.Redis(t, user("u")...)
	s := opened(t, strings.Replace(server.URL, "redis://", "redis://u:pw@", 1))
	for _, size := range []int{1, 2*redis.ChunkSize + 1} {
		put(t, s, "k", content(size), time.Hour)
		read(t, s, "k", content(size))
	}
	n := 0
	if err := s.List(t.Context(), "", func(store.Info) bool { n++; return true }); err != nil || n != 1 {
		t.Errorf("list: %d, %v", n, err)
	}
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}

func read(t testing.TB, s store.Store, key string, want []byte) {
	t.Helper()
	r, _, err := s.Get(t.Context(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

// TestFull holds that a server without room says so, keeps what it has and nothing of what failed.
func TestFull(t *testing.T) {
	s := opened(t, servertest.Redis(t, "--maxmemory", "12mb", "--maxmemory-policy", "noeviction").URL)
	put(t, s, "k", content(1000), 0)
	for range 3 {
		if err := s.Put(t.Context(), "k", bytes.NewReader(content(64<<20)), store.PutOptions{}); !errors.Is(err, store.ErrFull) {
			t.Errorf("64 MiB: %v", err)
		}
		if names, err := do(t, s, "KEYS", "*").AsStrSlice(); err != nil || !slices.Equal(names, []string{"fnwire:k"}) {
			t.Errorf("left: %q, %v", names, err)
		}
		read(t, s, "k", content(1000))
	}
	do(t, s, "CONFIG", "SET", "maxmemory", "1mb")
	if err := s.Put(t.Context(), "small", strings.NewReader("x"), store.PutOptions{}); !errors.Is(err, store.ErrFull) {
		t.Errorf("one byte: %v", err)
	}
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Errorf("delete where there is no room: %v", err)
	}
}

// TestChunksVanish holds that an object of which the server lost a chunk is neither made nor read as if it were whole.
func TestChunksVanish(t *testing.T) {
	s := opened(t, servertest.Redis(t).URL)
	state := content(6*redis.ChunkSize + 1)
	drop := func(pattern string, field ...string) {
		names, err := do(t, s, "KEYS", pattern).AsStrSlice()
		if err != nil || len(names) != 1 {
			t.Errorf("%s: %q, %v", pattern, names, err)
		}
		for _, name := range names {
			do(t, s, append([]string{"HDEL", name}, field...)...)
		}
	}
	r := io.MultiReader(bytes.NewReader(state[:5*redis.ChunkSize]), call(func() { drop("fnwire:!*", "0") }), bytes.NewReader(state[5*redis.ChunkSize:]))
	if err := s.Put(t.Context(), "k", r, store.PutOptions{}); err == nil || !strings.Contains(err.Error(), "chunks are there") {
		t.Errorf("put: %v", err)
	}
	put(t, s, "k", state, 0)
	drop("fnwire:k", "3")
	in, _, err := s.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	if n, err := io.Copy(io.Discard, in); n != 3*redis.ChunkSize || err == nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// call is a reader of nothing that calls.
type call func()

func (c call) Read([]byte) (int, error) { c(); return 0, io.EOF }

// TestConnectionBreaks holds that a store goes on by itself after its connections were cut, as those of a function that was
// frozen for long.
func TestConnectionBreaks(t *testing.T) {
	server := servertest.Redis(t)
	s, other := opened(t, server.URL), opened(t, server.URL)
	for i := range 5 {
		do(t, other, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		state := content(i * redis.ChunkSize)
		put(t, s, "k", state, 0)
		do(t, other, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		read(t, s, "k", state)
		do(t, other, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		if err := s.Delete(t.Context(), "k"); err != nil {
			t.Error(err)
		}
	}
}

// TestSilentServer holds that nothing outlives its context, by a server that accepts and says nothing.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		cancel()
		_, _ = io.Copy(io.Discard, c) // until Open gives up
		_ = c.Close()
	}()
	if s, err := redis.Open(ctx, "redis://"+l.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", s, err)
	}
}

// TestTLS has a store talk through TLS to the real server, whose certificate must be one for the host in the URL.
func TestTLS(t *testing.T) {
	server := servertest.Redis(t)
	at, ca := servertest.TLS(t, server.Addr)
	t.Setenv("SSL_CERT_FILE", ca)
	s := opened(t, "rediss://"+at)
	put(t, s, "k", content(3*redis.ChunkSize), 0)
	read(t, s, "k", content(3*redis.ChunkSize))
	_ = s.Close()
	other, err := redis.Open(t.Context(), strings.Replace(s.String(), "127.0.0.1", "localhost", 1))
	if err == nil {
		_ = other.Close()
		t.Error("a certificate for another name was taken")
	}
}

func TestNobodyThere(t *testing.T) {
	s, err := redis.Open(t.Context(), "redis://127.0.0.1:1")
	if err == nil {
		_ = s.Close()
	}
	if err == nil || !strings.HasPrefix(err.Error(), "store: redis://127.0.0.1:1: connect: ") {
		t.Error(err)
	}
}

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"redis://host":                           "redis://host",
		"rediss://u:secret@[::1]:1/2?prefix=x:":  "rediss://u@[::1]:1/2?prefix=x:",
		"redis://:secret@host/":                  "redis://host/",
		"redis:///0":                             "",
		"redis://host/x":                         "",
		"redis://host/-1":                        "",
		"redis://host/1/2":                       "",
		"http://u:secret@host":                   "",
		"redis://u:secret@host?tls=off":          "",
		"redis://u:secret@host?prefix=a&prefix=": "",
		"redis://u:secret@ho st":                 "",
		"redis://u:secret@host#f":                "",
	} {
		got, err := redis.Parse(raw)
		if got != want || (err == nil) != (want != "") || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %q, %v, want %q", raw, got, err, want)
		}
	}
}

func FuzzMeta(f *testing.F) {
	id := strings.Repeat("0f", 16)
	for _, m := range []string{redis.Meta(id, 0), redis.Meta(id, 1<<40), "fnw1 " + id + " -1", "fnw1 " + id + " 01", "fnw2 " + id + " 1", ""} {
		f.Add(m)
	}
	for _, m := range hostile.Strings(redis.Meta(id, 7)) {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m string) {
		size, err := redis.ParseMeta(m)
		if err == nil && (size < 0 || redis.Meta(strings.Split(m, " ")[1], size) != m) {
			t.Errorf("%q: %d", m, size)
		}
	})
}
