package natsobj_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/natsobj"
	"github.com/fnwire/fnwire/rendezvous/bucket"
)

// connect is a user beside the driver.
func connect(t *testing.T, url string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// The messages in the stream are what the documentation says.
func TestMessages(t *testing.T) {
	url := startNATS(t, nil).ClientURL()
	s, err := natsobj.Open(t.Context(), url+"/golden")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	s.SetChunk(4)
	for key, state := range map[string]string{"a.b/C": "abc", "big": "0123456789"} {
		if err := s.Put(t.Context(), key, strings.NewReader(state), store.PutOptions{TTL: 90*time.Second + 1}); err != nil {
			t.Fatal(err)
		}
	}
	_, js := connect(t, url)
	stream, err := js.Stream(t.Context(), "FNW_golden")
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for subject := range info.State.Subjects {
		m, err := stream.GetLastMsgForSubject(t.Context(), subject)
		if err != nil {
			t.Fatal(err)
		}
		header := m.Header.Get("Fnwire-Object")
		if id := header[strings.LastIndexByte(header, ' ')+1:]; id != "" {
			header = strings.TrimSuffix(header, id) + "ID"
		}
		if w := strings.Split(subject, "."); w[2] == "c" {
			w[3] = "ID"
			subject = strings.Join(w, ".")
		}
		got = append(got, fmt.Sprintf("%s %q %s %q", subject, header, m.Header.Get("Nats-TTL"), m.Data))
	}
	slices.Sort(got)
	want := []string{
		`fnw.golden.c.ID.0 "" 1h1m31s "0123"`, `fnw.golden.c.ID.1 "" 1h1m31s "4567"`, `fnw.golden.c.ID.2 "" 1h1m31s "89"`,
		`fnw.golden.o.a%b.C "1 3 0 ID" 1m31s "abc"`, `fnw.golden.o.big "1 10 4 ID" 1m31s ""`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What others have put into the stream is an error for who asks for it, is not listed, and can be replaced and deleted.
func TestForeignMessages(t *testing.T) {
	url := startNATS(t, nil).ClientURL()
	s := open(t, url)
	defer func() { _ = s.Close() }()
	_, js := connect(t, url)
	name := s.String()[strings.LastIndexByte(s.String(), '/')+1:]
	put := func(subject, header, body string) {
		t.Helper()
		m := nats.NewMsg(subject)
		m.Data = []byte(body)
		m.Header.Set("Fnwire-Object", header)
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	id := strings.Repeat("A", 26)
	for key, header := range map[string]string{
		"none": "", "short": "1 5 0 " + id, "id": "1 1 0 A>", "torn": "1 1000 10 " + id, "wrong": "1 20 10 " + strings.Repeat("B", 26),
	} {
		put(bucket.Object(name, key), header, "x")
	}
	put(bucket.Chunk(name, strings.Repeat("B", 26), 0), "", "short")
	put("fnw."+name+".other", "1 1 0 "+id, "x")
	put(bucket.Objects(name)+"no^key", "1 1 0 "+id, "x")
	for _, key := range []string{"none", "short", "id", "torn", "wrong"} {
		r, _, err := s.Get(t.Context(), key, 0)
		if err == nil {
			_, err = io.ReadAll(r)
			_ = r.Close()
		}
		if err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", key, err)
		}
	}
	var listed []string
	if err := s.List(t.Context(), "", func(i store.Info) bool { listed = append(listed, i.Key); return true }); err != nil {
		t.Error(err)
	}
	if slices.Sort(listed); !slices.Equal(listed, []string{"short", "torn", "wrong"}) {
		t.Errorf("%q", listed)
	}
	if err := s.Put(t.Context(), "none", strings.NewReader("new"), store.PutOptions{}); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"none", "short", "id", "torn", "wrong"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if _, _, err := s.Get(t.Context(), key, 0); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// A connection that breaks while a chunk is written to it is made again, and the writer does not notice.
func TestReset(t *testing.T) {
	const resets, size = 4, 12 << 20
	nats := startNATS(t, nil)
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer func() { _ = front.Close() }()
	serving.Go(func() {
		for n := 0; ; n++ {
			c, err := front.Accept()
			if err != nil {
				return
			}
			limit := int64(math.MaxInt64)
			if n < resets {
				limit = 64 << 10
			}
			serving.Go(func() { passOn(t, c.(*net.TCPConn), nats.Addr().String(), limit) })
		}
	})
	s := open(t, "nats://"+front.Addr().String())
	defer func() { _ = s.Close() }()
	state := make([]byte, size)
	_, _ = rand.Read(state) // never fails
	if err := s.Put(t.Context(), "k", bytes.NewReader(state), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	r, _, err := s.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, state) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// passOn carries a connection to a server. It resets it when the client has written so many bytes, and a moment has passed in which the
// client comes to wait in a write.
func passOn(t *testing.T, client *net.TCPConn, to string, limit int64) {
	defer func() { _ = client.Close() }()
	_ = client.SetReadBuffer(64 << 10) // less than a chunk
	server, err := net.Dial("tcp", to)
	if err != nil {
		t.Error(err)
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(client, server)
	}()
	if n, _ := io.Copy(server, io.LimitReader(client, limit)); n == limit {
		time.Sleep(100 * time.Millisecond)
		_ = client.SetLinger(0)
		_ = client.Close()
	}
	_ = server.Close()
	<-back
}

func TestOpenRefuses(t *testing.T) {
	_, err := natsobj.Open(t.Context(), "nats://me:hidden@127.0.0.1:1/b")
	if err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
	for _, url := range []string{
		"nats://host", "nats://host/", "nats:///b", "nats:b", "http://host/b", "nats://host/a/b", "nats://host/a.b", "nats://host/b?replicas=0",
		"nats://host/b?replicas=6", "nats://host/b?replicas=x", "nats://host/b?other=1", "nats://host/b#f", "nats://me:hidden@host/b%zz", "nats://me:hidden@host/b c",
	} {
		s, err := natsobj.Open(t.Context(), url)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "want ") || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// Who may only read is told so at once, and what is no bucket is not taken for one.
func TestDenied(t *testing.T) {
	const name = "shared"
	allow := bucket.Requests(name)[1:]
	url := startNATS(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "all", Password: "pass"},
			{Username: "reader", Password: "pass", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: allow}}},
		}
	}).ClientURL()
	as := func(user, name string) (*natsobj.Store, error) {
		return natsobj.Open(t.Context(), strings.Replace(url, "://", "://"+user+":pass@", 1)+"/"+name)
	}
	all, err := as("all", name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = all.Close() }()
	if err := all.Put(t.Context(), "k", strings.NewReader("state"), store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	reader, err := as("reader", name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	if _, _, err := reader.Get(t.Context(), "k", 0); err != nil {
		t.Error(err)
	}
	for _, size := range []int{5, 20 << 20} {
		began := time.Now()
		err := reader.Put(t.Context(), "k", bytes.NewReader(make([]byte, size)), store.PutOptions{})
		if !errors.Is(err, store.ErrDenied) || time.Since(began) > 4*time.Second {
			t.Errorf("%d bytes: after %v: %v", size, time.Since(began), err)
		}
	}
	for _, user := range []string{"nobody", "reader"} {
		if _, err := as(user, "forbidden"); !errors.Is(err, store.ErrDenied) {
			t.Errorf("%s: %v", user, err)
		}
	}
	_, js := connect(t, strings.Replace(url, "://", "://all:pass@", 1))
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "FNW_other", Subjects: []string{"other"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := as("all", "other"); err == nil || !strings.Contains(err.Error(), "FNW_other") {
		t.Errorf("%v", err)
	}
}

func TestNoJetStream(t *testing.T) {
	url := startNATS(t, func(o *server.Options) { o.JetStream = false }).ClientURL()
	if _, err := natsobj.Open(t.Context(), url+"/b"); err == nil || !strings.Contains(err.Error(), "no JetStream") {
		t.Errorf("%v", err)
	}
}

// FuzzObject holds that a header has one spelling, and describes only what can be.
func FuzzObject(f *testing.F) {
	for _, h := range []string{"1 3 0 ABCDEFGHIJKLMNOPQRSTUVWXYZ", "1 10 4 222222222222222222222222AA later", "1 0 0 " + strings.Repeat("7", 26), "2 1 0 x", "1 -1 0", ""} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, h string) {
		size, chunks, again, err := natsobj.ParseObject(h)
		if err != nil {
			return
		}
		if !strings.HasPrefix(h+" ", again+" ") || size < 0 || chunks < 0 || chunks > size {
			t.Errorf("%q: %d bytes in %d chunks, %q", h, size, chunks, again)
		}
	})
}
