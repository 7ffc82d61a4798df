package world_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/service"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

// TestModelledStores: a store with a forwarder in front stands still, dies and is back as one without.
func TestModelledStores(t *testing.T) {
	servertest.Redis(t) // skips if there is none
	servertest.VersityGW(t)
	w := raise(t, lab.Host{Name: "a", NAT: lab.PortRestricted})
	src, err := workload.Real(t.Context(), 3<<20)
	if err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]func() (*world.Store, error){
		"redis": func() (*world.Store, error) { return w.StartRedis(t.Context(), world.InMemory, service.Redis()) },
		"s3":    func() (*world.Store, error) { return w.StartS3(t.Context(), service.S3()) },
	} {
		s, err := start()
		if err != nil {
			t.Fatal(err)
		}
		p, err := w.Function(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		there := func(when string) {
			put, err := p.Put(t.Context(), worker.PutArgs{Store: s.Opened(), Key: "k", Source: src})
			if err != nil {
				t.Fatalf("%s, %s: put: %v", name, when, err)
			}
			got, err := p.Get(t.Context(), worker.GetArgs{Store: s.Opened(), Key: "k", Delete: true})
			if err != nil || got.Digest != put.Digest || got.Bytes != src.Size() {
				t.Fatalf("%s, %s: got %+v, %v, put %+v", name, when, got, err, put)
			}
		}
		gone := func(when string) error {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := p.Put(ctx, worker.PutArgs{Store: s.Opened(), Key: "k", Source: src})
			if err == nil {
				t.Errorf("%s, %s: it is there", name, when)
			}
			return err
		}
		there("new")
		if err := s.Freeze(); err != nil {
			t.Fatal(err)
		}
		if err := gone("frozen"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: frozen: %v", name, err)
		}
		if err := s.Thaw(); err != nil {
			t.Fatal(err)
		}
		there("thawed")
		s.Kill()
		_ = gone("killed")
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		there("started again")
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		s.Kill()
	}
}
