package world

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/internal/testserver"
)

const (
	redisPort = 6379
	s3Port    = 7070
	storeUp   = 30 * time.Second
)

// Store is a storage server on the host Public. Its methods are for one goroutine.
type Store struct {
	w    *World
	prog testserver.Program
	env  map[string]string
	proc *lab.Proc
}

// Keeping is where a Redis has its data.
type Keeping bool

// The places.
const (
	InMemory Keeping = false // alone
	OnDisk   Keeping = true  // as well, before it answers
)

// StartRedis starts a Redis. It ends with ctx.
func (w *World) StartRedis(ctx context.Context, keep Keeping) (*Store, error) {
	args := []string{"--protected-mode", "no"}
	if keep == OnDisk {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	return w.startStore(ctx, "redis", nil, func(dir string) (testserver.Program, error) {
		return testserver.Redis(dir, w.at(redisPort).String(), args...)
	})
}

// StartS3 starts an S3 server (versitygw), which has objects on the lab's disk. It ends with ctx.
func (w *World) StartS3(ctx context.Context) (*Store, error) {
	return w.startStore(ctx, "s3", testserver.S3Env(), func(dir string) (testserver.Program, error) {
		return testserver.VersityGW(dir, w.at(s3Port).String())
	})
}

// NATSStore is the store that the rendezvous keeps for the job.
func (w *World) NATSStore() worker.Store {
	return worker.Store{URL: "nats:", Env: map[string]string{"FNWIRE_URL": w.url, "FNWIRE_JOB_KEY": w.key.Encode()}}
}

func (w *World) startStore(ctx context.Context, name string, env map[string]string, program func(dir string) (testserver.Program, error)) (*Store, error) {
	dir := w.dir(name)
	if dir == "" {
		return nil, fmt.Errorf("world: %s: %w: the lab has no disk of its own", name, lab.ErrUnavailable)
	}
	s := &Store{w: w, env: env}
	var err error
	if s.prog, err = program(filepath.Clean(dir)); err != nil {
		return nil, fmt.Errorf("world: %w", err)
	}
	// Only processes of the lab see its disk.
	mkdir, err := w.lab.Start(ctx, Public, exec.Command("mkdir", append([]string{"-p", dir}, s.prog.Dirs...)...))
	if err == nil {
		err = mkdir.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("world: %s: %w", name, err)
	}
	return s, s.Start(ctx)
}

// Opened is how functions open it.
func (s *Store) Opened() worker.Store { return worker.Store{URL: s.prog.URL, Env: s.env} }

// Start starts it again, with what was in it, and waits until it answers. It ends with ctx.
func (s *Store) Start(ctx context.Context) (err error) {
	if s.proc, err = s.w.lab.Start(ctx, Public, s.prog.Command(ctx)); err != nil {
		return fmt.Errorf("world: %w", err)
	}
	asking, cancel := context.WithTimeout(ctx, storeUp)
	defer cancel()
	return s.w.lab.Do(Public, func() error { return s.prog.Ready(asking) })
}

// Kill ends it without a chance to write anything, and waits for its end.
func (s *Store) Kill() {
	_ = s.proc.Signal(syscall.SIGKILL) // it may have ended
	_ = s.proc.Wait()                  // as killed
}

// Freeze stops it where it is until Thaw.
func (s *Store) Freeze() error { return s.proc.Signal(sigStop) }

// Thaw lets it go on.
func (s *Store) Thaw() error { return s.proc.Signal(sigCont) }
