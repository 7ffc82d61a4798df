package world_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
)

func TestMain(m *testing.M) {
	if code, is := world.WorkerMain(os.Args); is {
		os.Exit(code)
	}
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // workers built for race detection would sleep at their end
	os.Exit(labtest.Main(m))
}

func raise(t *testing.T, hosts ...lab.Host) *world.World {
	t.Helper()
	w, err := world.New(t.Context(), world.Config{Hosts: hosts})
	if err != nil {
		labtest.Unavailable(t, err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// A program that raises worlds runs worker.Run when it is started with world.WorkerArgs; here TestMain does so.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w, err := world.New(ctx, world.Config{Hosts: []lab.Host{
		{Name: "a", NAT: lab.PortRestricted}, {Name: "b", NAT: lab.Symmetric},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer w.Close()
	a, b, err := w.Pair(ctx, "a", "b")
	if err != nil {
		fmt.Println(err)
		return
	}
	src, err := workload.Real(ctx, 100_000)
	if err != nil {
		fmt.Println(err)
		return
	}
	var got worker.Received
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		if _, err := a.Join(ctx, w.JoinArgs("mapper")); err != nil {
			return err
		}
		_, err := a.Send(ctx, worker.SendArgs{To: "reducer", Key: "part-0", Path: "relay", Source: src})
		return err
	})
	both.Go(func() (err error) {
		if _, err := b.Join(ctx, w.JoinArgs("reducer")); err != nil {
			return err
		}
		got, err = b.Receive(ctx)
		return err
	})
	err = both.Wait()
	digest, _ := src.SHA256(context.Background())
	fmt.Println(got.Key, got.Bytes, got.Path, got.Digest == digest, err)
	fmt.Println(a.Stop(), b.Stop())
	// Output:
	// part-0 100000 relay true <nil>
	// <nil> <nil>
}

// The data of the embedded NATS is not on the machine's disk.
func TestNoFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	w := raise(t, lab.Host{Name: "a"})
	p, err := w.Function(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	src, err := workload.Real(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Put(t.Context(), worker.PutArgs{Store: w.NATSStore(), Key: "k", Source: src}); err != nil {
		t.Fatal(err)
	}
	got, err := p.Get(t.Context(), worker.GetArgs{Store: w.NATSStore(), Key: "k", Delete: true})
	if err != nil || got.Bytes != 1<<20 {
		t.Fatalf("%+v, %v", got, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) > 0 {
		t.Errorf("while the world is up there are %v in %s (%v)", files, dir, err)
	}
	w.Rendezvous().Kill()
	if files, err = os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("the rendezvous was killed and left %v (%v)", files, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := p.Get(ctx, worker.GetArgs{Store: w.NATSStore(), Key: "k"}); err == nil {
		t.Error("the store outlives its rendezvous")
	}
}

// A worker that dies says why.
func TestWorkerDies(t *testing.T) {
	raise(t, lab.Host{Name: "possible"})
	_, err := world.New(t.Context(), world.Config{Worker: func(r worker.Role) *exec.Cmd {
		return exec.Command("/proc/self/exe", world.WorkerCommand, "no-"+string(r))
	}})
	if err == nil || !errors.Is(err, worker.ErrGone) || !bytes.Contains([]byte(err.Error()), []byte(`no role "no-`)) {
		t.Errorf("got %v, want what the worker said", err)
	}
}

func TestServersDie(t *testing.T) {
	w := raise(t, lab.Host{Name: "a"})
	w.Relay().Kill()
	w.Rendezvous().Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p, err := w.Function(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Join(ctx, w.JoinArgs("a")); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("joined at a rendezvous that is dead: %v", err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := w.Function(ctx, "b"); err == nil {
		t.Error("a function on a host that is not there")
	}
}

// Functions whose UDP is blocked deliver over the relay's HTTPS port, to each other and to those that have UDP.
func TestUDPBlocked(t *testing.T) {
	w := raise(t, lab.Host{Name: "a", NAT: lab.UDPBlocked}, lab.Host{Name: "b", NAT: lab.UDPBlocked},
		lab.Host{Name: "cone", NAT: lab.PortRestricted}, lab.Host{Name: "symmetric", NAT: lab.Symmetric},
		lab.Host{Name: "full", NAT: lab.FullCone}, lab.Host{Name: "open"})
	src, err := workload.Real(t.Context(), 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := src.SHA256(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, hosts := range [][2]string{{"a", "b"}, {"a", "cone"}, {"cone", "a"}, {"a", "symmetric"}, {"full", "a"}, {"a", "open"}} {
		t.Run(hosts[0]+" to "+hosts[1], func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			from, to, err := w.Pair(ctx, hosts[0], hosts[1])
			if err != nil {
				t.Fatal(err)
			}
			defer from.Kill()
			defer to.Kill()
			name := w.FreshName("to")
			var got worker.Received
			both, ctx := errgroup.WithContext(ctx)
			both.Go(func() error {
				j, err := from.Join(ctx, w.JoinArgs(w.FreshName("from")))
				if err != nil {
					return err
				}
				if hosts[0] == "a" && (j.Timings.Relay == 0 || j.Timings.Total > 900*time.Millisecond) {
					t.Errorf("joined with %+v", j.Timings)
				}
				_, err = from.Send(ctx, worker.SendArgs{To: name, Key: "k", Path: "auto", Source: src})
				return err
			})
			both.Go(func() (err error) {
				if _, err = to.Join(ctx, w.JoinArgs(name)); err != nil {
					return err
				}
				got, err = to.Receive(ctx)
				return err
			})
			if err := both.Wait(); err != nil {
				t.Fatal(err)
			}
			if got.Digest != digest || got.Path != "relay" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// When UDP is blocked in the midst of a transfer over the relay, HTTPS takes over, and UDP again when it is back: the
// stream goes on.
func TestUDPBlockedMidway(t *testing.T) {
	w := raise(t, lab.Host{Name: "a", NAT: lab.Symmetric}, lab.Host{Name: "b", NAT: lab.Symmetric})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	a, b, err := w.Pair(ctx, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Kill()
	defer b.Kill()
	joining, jctx := errgroup.WithContext(ctx)
	joining.Go(func() error { _, err := a.Join(jctx, w.JoinArgs("a")); return err })
	joining.Go(func() error { _, err := b.Join(jctx, w.JoinArgs("b")); return err })
	if err := joining.Wait(); err != nil {
		t.Fatal(err)
	}
	send := func(what string, bytes int64) {
		t.Helper()
		src, err := workload.Real(ctx, bytes)
		if err != nil {
			t.Fatal(err)
		}
		both, ctx := errgroup.WithContext(ctx)
		var got worker.Received
		both.Go(func() error {
			_, err := a.Send(ctx, worker.SendArgs{To: "b", Key: what, Path: "auto", Source: src})
			return err
		})
		both.Go(func() (err error) { got, err = b.Receive(ctx); return err })
		if err := both.Wait(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got.Path != "relay" {
			t.Errorf("%s: %+v", what, got)
		}
	}
	send("over UDP", 1<<20)
	unblock := func() error { return nil }
	var blocking errgroup.Group
	blocking.Go(func() (err error) {
		time.Sleep(100 * time.Millisecond) // the transfer is under way
		unblock, err = w.Lab().BlockUDP("a", world.Public)
		return err
	})
	send("blocked midway", 256<<20)
	if err := blocking.Wait(); err != nil {
		t.Fatal(err)
	}
	send("over HTTPS", 1<<20)
	if err := unblock(); err != nil {
		t.Fatal(err)
	}
	send("unblocked", 1<<20)
}
