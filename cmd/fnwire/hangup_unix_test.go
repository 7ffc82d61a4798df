//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/fnwire/fnwire/internal/cli"
)

// TestHangup holds that a terminal that is closed ends commands as Ctrl-C does, with nothing left behind, and that nohup keeps them.
func TestHangup(t *testing.T) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP) // or commands would inherit that it is ignored, if it is here
	defer signal.Stop(caught)
	env, _ := startDev(t)
	hangup := func(p *process) {
		t.Helper()
		for range 2 { // one from the kernel and one from the shell
			if err := p.handle.Signal(syscall.SIGHUP); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
		}
	}
	temp := t.TempDir()
	dev := environment{"TMPDIR=" + temp}.start(t, nil, "dev", "--listen", "127.0.0.1:0", "--json")
	dev.await(&dev.out, "\n")
	if made, err := os.ReadDir(temp); err != nil || len(made) == 0 {
		t.Errorf("dev has no temporary files, so nothing is tested: %v", err)
	}
	hangup(dev)
	dev.want(cli.ExitOK)
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("dev left %v, %v", left, err)
	}

	dir := t.TempDir()
	r := env.startReceive(t, "b", "--out", dir)
	_, pw := env.startPiped(t, "send", "--to", "b", "--key", "k", "-")
	if _, err := pw.Write(pattern(1 << 20)); err != nil {
		t.Fatal(err)
	}
	awaitPart(t, dir)
	hangup(r)
	r.want(cli.ExitCanceled)
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("receive left %q", left)
	}

	r = env.startWith(t, []string{"receive", "--verbose", "--name", "b", "--out", dir}, func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
	})
	r.await(&r.err, "fnwire: joined")
	hangup(r)
	env.start(t, strings.NewReader("x"), "send", "--to", "b", "--key", "k", "-").want(cli.ExitOK)
	r.want(cli.ExitOK)
}
