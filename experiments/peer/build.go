package peer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
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

// build has go build keep what it needs meanwhile in the user's cache, not in a directory of temporary files, which would stay if this process were killed. Each
// source tree has a place of its own there: what another one builds takes no program away from who runs it.
func build(ctx context.Context, dir, name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	all := filepath.Join(cache, "fnwire", "built")
	of := sha256.Sum256([]byte(dir))
	place := filepath.Join(all, hex.EncodeToString(of[:8]))
	if err := os.MkdirAll(place, 0o755); err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	now := time.Now()
	_ = os.Chtimes(place, now, now) // or it may be built anew next time
	sweep(all, "*", unusedFor)
	sweep(place, "*"+tmpSuffix+"*", killedFor)
	out := filepath.Join(place, filepath.Base(name))
	tmp, err := os.MkdirTemp(place, filepath.Base(name)+tmpSuffix)
	if err != nil {
		return "", fmt.Errorf("peer: %w", err)
	}
	defer os.RemoveAll(tmp)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", out, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOTMPDIR="+tmp)
	said, err := contained(cmd)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("peer: %s: %w: it was not built in the time there was: run \"make peers\" first", name, ErrMissing)
	case err != nil:
		return "", fmt.Errorf("peer: %s: %w: go build in %s: %w: %s", name, ErrMissing, dir, err, strings.TrimSpace(string(said)))
	}
	return out, nil
}

const (
	tmpSuffix = ".tmp"
	killedFor = time.Hour           // after which a build does not go on
	unusedFor = 14 * 24 * time.Hour // after which a program is built anew
)

// sweep removes what is so old: what builds left that were killed, and programs that nobody has asked for.
func sweep(dir, pattern string, age time.Duration) {
	left, _ := filepath.Glob(filepath.Join(dir, pattern)) // the pattern is good
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > age {
			_ = os.RemoveAll(path) // or the next time
		}
	}
}
