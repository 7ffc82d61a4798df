package world

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/service"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/internal/testserver"
)

const (
	redisPort = 6379
	s3Port    = 7070
	behind    = 1 // to the port of a server that has a forwarder at its own
	storeUp   = 30 * time.Second
)

// Store is a storage server on the host Public, with a process of its own in front of it if it is modelled. Its methods are for one goroutine.
type Store struct {
	w     *World
	prog  testserver.Program
	env   map[string]string
	addr  netip.AddrPort // where functions reach it
	model service.Model
	proc  *lab.Proc
	front *Proc // nil: none
}

// Keeping is where a Redis has its data.
type Keeping bool

// The places.
const (
	InMemory Keeping = false // alone
	OnDisk   Keeping = true  // as well, before it answers
)

// StartRedis starts a Redis, as fast as it is, or by a model of one in a cloud. It ends with ctx.
func (w *World) StartRedis(ctx context.Context, keep Keeping, m service.Model) (*Store, error) {
	args := []string{"--protected-mode", "no"}
	if keep == OnDisk {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	return w.startStore(ctx, "redis", redisPort, nil, m, func(dir, addr string) (testserver.Program, error) {
		return testserver.Redis(dir, addr, args...)
	})
}

// StartS3 starts an S3 server (versitygw), which has objects on the lab's disk, as fast as it is, or by a model of one in a cloud. It ends with ctx.
func (w *World) StartS3(ctx context.Context, m service.Model) (*Store, error) {
	return w.startStore(ctx, "s3", s3Port, testserver.S3Env(), m, testserver.VersityGW)
}

// NATSStore is the store that the rendezvous keeps for the job.
func (w *World) NATSStore() worker.Store {
	return worker.Store{URL: "nats:", Env: map[string]string{"FNWIRE_URL": w.url, "FNWIRE_JOB_KEY": w.key.Encode()}}
}

func (w *World) startStore(ctx context.Context, name string, port int, env map[string]string, m service.Model,
	program func(dir, addr string) (testserver.Program, error),
) (*Store, error) {
	dir := w.dir(name)
	if dir == "" {
		return nil, fmt.Errorf("world: %s: %w: the lab has no disk of its own", name, lab.ErrUnavailable)
	}
	s := &Store{w: w, env: env, addr: w.at(port), model: m}
	own := s.addr
	if !m.None() {
		own = w.at(port + behind)
	}
	var err error
	if s.prog, err = program(filepath.Clean(dir), own.String()); err != nil {
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
func (s *Store) Opened() worker.Store {
	return worker.Store{URL: strings.Replace(s.prog.URL, s.prog.Addr, s.addr.String(), 1), Env: s.env}
}

// Start starts it again, with what was in it, and waits until it answers. It ends with ctx.
func (s *Store) Start(ctx context.Context) (err error) {
	if s.proc, err = s.w.lab.Start(ctx, Public, s.prog.Command(ctx)); err != nil {
		return fmt.Errorf("world: %w", err)
	}
	asking, cancel := context.WithTimeout(ctx, storeUp)
	defer cancel()
	if err := s.w.lab.Do(Public, func() error { return s.prog.Ready(asking) }); err != nil || s.model.None() {
		return err
	}
	if s.front, err = s.w.start(ctx, Public, worker.Service); err != nil {
		return err
	}
	return s.front.explain(s.front.Service(asking, worker.ServiceArgs{Listen: s.addr, Server: s.prog.Addr, Model: s.model}))
}

// Kill ends it without a chance to write anything, and waits for its end.
func (s *Store) Kill() {
	if s.front != nil { // nobody may see it without its server
		s.front.Kill()
	}
	_ = s.proc.Signal(syscall.SIGKILL) // it may have ended
	_ = s.proc.Wait()                  // as killed
}

// Freeze stops it where it is until Thaw.
func (s *Store) Freeze() error { return s.signal(sigStop) }

// Thaw lets it go on.
func (s *Store) Thaw() error { return s.signal(sigCont) }

func (s *Store) signal(sig os.Signal) error {
	err := s.proc.Signal(sig)
	if s.front != nil {
		err = errors.Join(err, s.front.proc.Signal(sig))
	}
	return err
}
