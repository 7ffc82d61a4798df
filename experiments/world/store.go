package world

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/internal/testserver"
)

const (
	storePort = 6379
	storeUp   = 30 * time.Second
)

// Store is a storage server on the host Public. Its methods are for one goroutine.
type Store struct {
	w    *World
	prog testserver.Program
	proc *lab.Proc
}

// StartRedis starts a Redis that has everything on its disk before it answers. It ends with ctx.
func (w *World) StartRedis(ctx context.Context) (*Store, error) {
	dir := w.dir("redis")
	if dir == "" {
		return nil, fmt.Errorf("world: Redis: %w: the lab has no disk of its own", lab.ErrUnavailable)
	}
	mkdir, err := w.lab.Start(ctx, Public, exec.Command("mkdir", "-p", dir))
	if err == nil {
		err = mkdir.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("world: Redis: %w", err)
	}
	p, err := testserver.Redis(filepath.Clean(dir), w.at(storePort).String(), "--appendonly", "yes", "--appendfsync", "always", "--protected-mode", "no")
	if err != nil {
		return nil, fmt.Errorf("world: %w", err)
	}
	s := &Store{w: w, prog: p}
	return s, s.Start(ctx)
}

// URL is how functions open it.
func (s *Store) URL() string { return s.prog.URL }

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
