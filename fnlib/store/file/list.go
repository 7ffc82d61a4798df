package file

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/leaf"
)

// List calls each for every object whose key starts with prefix.
func (s *Store) List(ctx context.Context, prefix string, each func(store.Info) bool) error {
	err := s.walk(ctx, leaf.Prefix(fold(prefix)), func(f object) bool {
		key, ok := keyOf(f.name)
		return !ok || s.expired(f.expires) || !strings.HasPrefix(key, prefix) || each(store.Info{Key: key, Size: f.size})
	}, func(string) {})
	if err != nil {
		return s.fail("list "+prefix, err)
	}
	return nil
}

// object is a file of fnwire.
type object struct {
	name    string // with slashes
	expires uint64 // milliseconds since 1970; 0: never
	size    int64  // bytes, without the header
}

// walk calls each for every object whose path starts with prefix, until it returns false, and below for every directory that
// such paths may lead through, before what is in it.
func (s *Store) walk(ctx context.Context, prefix string, each func(object) bool, below func(dir string)) error {
	tree, start := s.root.FS(), path.Dir(prefix)
	if !fs.ValidPath(start) {
		return ctx.Err() // no key starts like that
	}
	err := fs.WalkDir(tree, start, func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return ignoreAbsent(err)
		case name == start && d.IsDir():
			return nil
		case d.IsDir() && (name == tmpDir || !strings.HasPrefix(name, prefix)):
			return fs.SkipDir
		case d.IsDir():
			below(name)
			return nil
		case !d.Type().IsRegular() || !strings.HasPrefix(name, prefix):
			return nil
		}
		f, err := s.examine(name)
		if err != nil {
			return nil //nolint:nilerr // removed meanwhile, or somebody else's
		}
		if !each(f) {
			return fs.SkipAll
		}
		return nil
	})
	return ignoreAbsent(err)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// examine looks at a file.
func (s *Store) examine(name string) (object, error) {
	f, err := s.root.Open(name)
	if err != nil {
		return object{}, err
	}
	defer func() { _ = f.Close() }()
	expires, size, err := examine(f)
	return object{name, expires, size}, err
}

// keepSwept sweeps now and from time to time.
func (s *Store) keepSwept(ctx context.Context) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		s.sweep(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// sweep removes what nobody will ask for. What it cannot remove is there the next time.
func (s *Store) sweep(ctx context.Context) {
	s.sweepTemp(ctx)
	var dirs []string
	_ = s.walk(ctx, "", func(f object) bool {
		if _, ok := keyOf(f.name); ok && s.expired(f.expires) {
			s.removeExpired(f.name)
		}
		return true
	}, func(dir string) { dirs = append(dirs, dir) })
	for i := len(dirs) - 1; i >= 0 && ctx.Err() == nil; i-- {
		s.removeEmpty(dirs[i])
	}
}

// removeExpired removes an object unless it has been replaced meanwhile.
func (s *Store) removeExpired(name string) {
	unlock, err := s.lock(true)
	if err != nil {
		return
	}
	defer unlock()
	if f, err := s.examine(name); err == nil && s.expired(f.expires) {
		_ = s.root.Remove(name)
	}
}

// removeEmpty removes a directory if there is nothing in it.
func (s *Store) removeEmpty(dir string) {
	if entries, err := fs.ReadDir(s.root.FS(), dir); err != nil || len(entries) > 0 {
		return
	}
	unlock, err := s.lock(true)
	if err != nil {
		return
	}
	defer unlock()
	_ = s.root.Remove(dir) // only an empty one goes
}

// sweepTemp removes what killed writers left. One that is only slow fails when it moves its file into place.
func (s *Store) sweepTemp(ctx context.Context) {
	entries, err := fs.ReadDir(s.root.FS(), tmpDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); ctx.Err() == nil && err == nil && s.now().Sub(info.ModTime()) > leftover {
			_ = s.root.Remove(path.Join(tmpDir, e.Name()))
		}
	}
}
