package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Modules are the programs that are modules of their own, by the directory below experiments/peer.
func Modules() []string { return []string{"pionturn", "libp2p"} }

// ErrMissing is wrapped by the errors of Build, and of servers that this machine would have to have, when something must
// be installed first; the error tells what and how.
var ErrMissing = errors.New("not available here")

// Build returns the program of a module: the file peer-NAME beside this program, or else, built now, from the source tree
// that this program or the working directory is in.
func Build(ctx context.Context, name string) (string, error) {
	return BuildAt(ctx, filepath.Join("experiments", "peer", name), "peer-"+name)
}

// BuildAt returns a program of the source tree by its directory there: the file of that name beside this program, or else built now.
func BuildAt(ctx context.Context, at, name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	if path := filepath.Join(filepath.Dir(self), name); executable(path) {
		return path, nil
	}
	wd, _ := os.Getwd() // without one, the program's own place must do
	for _, from := range []string{wd, filepath.Dir(self)} {
		if main := above(from, filepath.Join(at, "main.go")); main != "" {
			return build(ctx, filepath.Dir(main), name)
		}
	}
	return "", fmt.Errorf("peer: %s: %w: run \"make peers\" in the source tree, or put %s beside %s", name, ErrMissing, name, self)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// above returns the path of a file in dir or a directory above it.
func above(dir, file string) string {
	for dir != "" {
		if path := filepath.Join(dir, file); fileExists(path) {
			return path
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return ""
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func build(ctx context.Context, dir, name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	out := filepath.Join(cache, "fnwire", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", out, ".")
	cmd.Dir = dir
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("peer: %s: %w: go build in %s: %w: %s", name, ErrMissing, dir, err, strings.TrimSpace(string(said)))
	}
	return out, nil
}
