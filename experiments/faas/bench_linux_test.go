package faas_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/faas"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// function is a function whose program is this test binary.
func function(dir, name string) (faas.Function, error) {
	f := faas.Function{Name: name, Dir: dir, Env: []string{envFunction + "=" + name}, Timeout: 10 * time.Second}
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	err = os.Link(self, filepath.Join(dir, "bootstrap")) // a symbolic link would lead to where the function cannot look
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return f, err
}

// bench is a platform under test.
type bench struct {
	*faas.Platform
	t    testing.TB
	lab  *lab.Lab
	logs string
	dir  string // of the functions

	mu      sync.Mutex // guards what follows
	records []faas.Record
	changed chan struct{}
}

// start starts a platform on so many hosts with the functions "a" and "b".
func start(t testing.TB, hosts int, change func(*faas.Config)) *bench {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	spec := []lab.Host{{Name: "public"}}
	cfg := faas.Config{Seed: 1, LogDir: filepath.Join(t.TempDir(), "logs")}
	for i := range hosts {
		name := string(rune('p' + i))
		spec = append(spec, lab.Host{Name: name, NAT: []lab.Kind{lab.PortRestricted, lab.Symmetric}[i%2]})
		cfg.Hosts = append(cfg.Hosts, name)
	}
	b := &bench{t: t, lab: labtest.New(t, spec...), logs: cfg.LogDir, dir: shortDir(t), changed: make(chan struct{})}
	cfg.Lab, cfg.Record = b.lab, b.record
	for _, name := range []string{"a", "b"} {
		f, err := function(b.dir, name)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Functions = append(cfg.Functions, f)
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if b.Platform, err = faas.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *bench) record(r faas.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(b.records, r)
	close(b.changed)
	b.changed = make(chan struct{})
}

// until waits for the first record that is as wanted.
func (b *bench) until(what string, want func(faas.Record) bool) faas.Record {
	b.t.Helper()
	late := time.After(patience)
	for {
		b.mu.Lock()
		records, changed := b.records, b.changed // what is in it stays as it is
		b.mu.Unlock()
		if i := slices.IndexFunc(records, want); i >= 0 {
			return records[i]
		}
		select {
		case <-changed:
		case <-late:
			b.t.Fatalf("no record of %s", what)
		}
	}
}

// of returns the record of an invocation.
func (b *bench) of(r faas.Response) *faas.Invocation {
	b.t.Helper()
	return b.until("an invocation", func(rec faas.Record) bool { return rec.Invocation != nil && rec.Invocation.Request == r.ID }).Invocation
}

// ended returns the record of an instance that has ended.
func (b *bench) ended(id string) *faas.Instance {
	b.t.Helper()
	return b.until("the end of an instance", func(rec faas.Record) bool { return rec.Instance != nil && rec.Instance.ID == id }).Instance
}

func payload(o order) []byte {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return b
}

func (b *bench) try(name string, o order) (faas.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return b.Invoke(ctx, faas.Request{Function: name, Payload: payload(o), Tail: o.Do == "print"})
}

func (b *bench) invoke(name string, o order) (faas.Response, report) {
	b.t.Helper()
	r, err := b.try(name, o)
	if err != nil {
		b.t.Fatal(err)
	}
	var rep report
	_ = json.Unmarshal(r.Payload, &rep)
	return r, rep
}

// gate is where functions wait.
type gate struct {
	t testing.TB
	l *net.UnixListener
}

// shortDir makes a directory in which sockets can be, whose path must be short.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "faas")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newGate makes a gate in the functions' directory, of which they see the same.
func newGate(t testing.TB, dir string) gate {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return gate{t, l}
}

func (g gate) path() string { return g.l.Addr().String() }

// next waits until a function is there; closing lets it go on.
func (g gate) next() net.Conn {
	g.t.Helper()
	if err := g.l.SetDeadline(time.Now().Add(patience)); err != nil {
		g.t.Fatal(err)
	}
	c, err := g.l.Accept()
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}
