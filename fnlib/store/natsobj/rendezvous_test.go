package natsobj_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/natsobj"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// startRendezvous runs a rendezvous that keeps stores. It is for those who run it to say which directory; empty: a temporary one.
func startRendezvous(t testing.TB, change func(*server.Config)) (s *server.Server, stop func()) {
	t.Helper()
	cfg := server.Config{Open: true, StoreBytes: 1 << 30}
	if change != nil {
		change(&cfg)
	}
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("rendezvous: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-s.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("rendezvous: %v", err)
	}
	return s, stop
}

func openRendezvous(t testing.TB, url string, key job.Key) *natsobj.Store {
	t.Helper()
	s, err := natsobj.OpenRendezvous(t.Context(), natsobj.Rendezvous{URL: url, JobKey: key.Encode()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStoreOfRendezvous(t *testing.T) {
	suite(func(t *testing.T) store.Store {
		s, _ := startRendezvous(t, nil)
		return openRendezvous(t, s.URL(), job.NewKey())
	}).Run(t)
}

func Example() {
	ctx := context.Background()
	s, err := server.New(server.Config{Open: true, StoreBytes: 1 << 20})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			fmt.Println(err)
		}
	}()
	<-s.Ready()

	st, err := natsobj.OpenRendezvous(ctx, natsobj.Rendezvous{URL: s.URL(), JobKey: job.NewKey().Encode()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = st.Close() }()
	fmt.Println(st.Put(ctx, "job/a", strings.NewReader("state"), store.PutOptions{}))
	_, info, err := st.Get(ctx, "job/a", 2)
	fmt.Println(info.Size, err)
	// Output:
	// <nil>
	// 5 <nil>
}

// The URL "nats:" takes the rendezvous and the key from where a function has them.
func TestOpenFromEnvironment(t *testing.T) {
	s, _ := startRendezvous(t, nil)
	t.Setenv("FNWIRE_URL", s.URL())
	t.Setenv("FNWIRE_JOB_KEY", "")
	if _, err := natsobj.Open(t.Context(), "nats:"); err == nil || !strings.Contains(err.Error(), "FNWIRE_JOB_KEY") {
		t.Errorf("%v", err)
	}
	t.Setenv("FNWIRE_JOB_KEY", job.NewKey().Encode())
	st, err := natsobj.Open(t.Context(), "nats:")
	if err != nil {
		t.Fatal(err)
	}
	if want := s.URL() + "/fnwire"; st.String() != want {
		t.Errorf("%q, want %q", st, want)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := natsobj.Open(ctx, "nats:"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// What is under way when the rendezvous restarts goes on: neither writer nor reader notices.
func TestRendezvousRestarts(t *testing.T) {
	var listen string
	dir := t.TempDir()
	with := func(c *server.Config) { c.DataDir, c.Listen = dir, listen }
	s, stop := startRendezvous(t, with)
	listen = strings.TrimPrefix(s.URL(), "nats://")
	st := openRendezvous(t, s.URL(), job.NewKey())
	defer func() { _ = st.Close() }()
	restart := func() {
		stop()
		_, stop = startRendezvous(t, with)
	}
	const size = 24 << 20
	state := make([]byte, size)
	_, _ = rand.Read(state) // never fails
	if err := st.Put(t.Context(), "k", &interrupted{r: bytes.NewReader(state), at: size / 2, do: restart}, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	restart()
	r, info, err := st.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	got, err := io.ReadAll(&interrupted{r: r, at: size / 2, do: restart})
	if err != nil || info.Size != size || !bytes.Equal(got, state) {
		t.Errorf("%d bytes of %d, %v", len(got), info.Size, err)
	}
	if err := st.List(t.Context(), "", func(i store.Info) bool { return i.Key == "k" }); err != nil {
		t.Error(err)
	}
}

// interrupted does something when so many bytes have been read.
type interrupted struct {
	r  io.Reader
	at int
	do func()
}

func (i *interrupted) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	if i.at -= n; i.at <= 0 && i.do != nil {
		i.do()
		i.do = nil
	}
	return n, err
}
