//go:build unix

package main

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fnwire/fnwire/internal/cli"
)

// TestUnusualEntries holds that names that are no text arrive, also by way of a link to their directory, and that what cannot be sent is named.
func TestUnusualEntries(t *testing.T) {
	env, _ := startDev(t)
	dir, out := makeTree(t), t.TempDir()
	name, quoted := "caf\xe9", `caf\xe9`
	if runtime.GOOS != "linux" { // where file systems may take no such name
		name, quoted = "caf", "caf"
	}
	if err := os.WriteFile(filepath.Join(dir, name), pattern(9), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "linked")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	r := env.startReceive(t, "b", "--extract", "--out", out)
	env.run(t, "send", "--to", "b", link).want(cli.ExitOK)
	r.want(cli.ExitOK)
	if got, want := look(t, filepath.Join(out, "linked")), look(t, dir); !slices.Equal(got, want) {
		t.Errorf("received:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	if err := syscall.Mkfifo(filepath.Join(dir, "a", name), 0o600); err != nil {
		t.Fatal(err)
	}
	r = env.startReceive(t, "b", "--extract", "--out", out)
	env.run(t, "send", "--to", "b", dir).fails(cli.ExitFailed, `a/`+quoted+`": neither a file`, "remove it")
	r.interrupt()
	r.want(cli.ExitCanceled)
}
