//go:build unix

package main

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fnwire/fnwire/internal/cli"
)

// TestNamedPipe holds that a named pipe whose other end nobody opens, or reads, is waited for no longer than asked.
func TestNamedPipe(t *testing.T) {
	env, _ := startDev(t)
	env, dir := withStore(t, env)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"send", "--to", "b", fifo}, {"put", fifo}, {"receive", "--name", "b", "--out", fifo}, {"get", "fnwire:x", fifo},
	} {
		env.run(t, append(args, "--timeout", "300ms")...).fails(cli.ExitFailed, fifo, "300ms", "--timeout")
	}

	file := write(t, "state.bin", pattern(3<<20))
	env.run(t, "send", "--name", "a", "--to", "b", "--path", "store", file).want(cli.ExitOK)
	r := env.start(t, nil, "receive", "--name", "b", "--out", fifo)
	pipe, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if _, err := io.ReadFull(pipe, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	r.interrupt()
	r.want(cli.ExitCanceled)
	if left := files(t, dir); len(left) != 2 { // the driver's lock is one
		t.Errorf("left in the store: %q", left)
	}
}
