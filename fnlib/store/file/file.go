package file

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/source"
	"github.com/fnwire/fnwire/internal/filelock"
)

const (
	tmpDir     = "+tmp"
	lockFile   = "+lock"
	magic      = "fnw1"
	headerSize = 12
	copySize   = 256 << 10 // bytes between two looks at the context
	dirMode    = 0o700
	fileMode   = 0o600
	sweepEvery = 10 * time.Minute
	leftover   = time.Hour // since the last write to a temporary file
)

// Store is a directory. Its methods may be called concurrently, also by other processes.
type Store struct {
	root *os.Root
	url  string
	now  func() time.Time
	stop context.CancelFunc
	wait sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// Open opens, or makes, the directory of a URL file:///DIR. It is not known to others before something is put, and its content is
// for its owner only. ErrDenied: the directory may not be used.
func Open(ctx context.Context, rawURL string) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", rawURL, err)
	}
	s, err := open(rawURL, time.Now)
	if err != nil {
		return nil, err
	}
	// The context of Open is for opening only.
	sweeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.wait.Go(func() { s.keepSwept(sweeping) })
	return s, nil
}

// open opens a store that is not swept.
func open(rawURL string, now func() time.Time) (*Store, error) {
	dir, err := directory(rawURL)
	if err != nil {
		return nil, err
	}
	s := &Store{url: (&url.URL{Scheme: "file", Path: slashed(dir)}).String(), now: now, stop: func() {}}
	if err := os.MkdirAll(filepath.Join(dir, tmpDir), dirMode); err != nil {
		return nil, s.fail("open", err)
	}
	if s.root, err = os.OpenRoot(dir); err != nil {
		return nil, s.fail("open", err)
	}
	return s, nil
}

// directory returns the path in a file URL.
func directory(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	if u.Scheme != "file" || u.Host != "" && u.Host != "localhost" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("store: %q: want file:///DIRECTORY, of this machine and with no options", u.Redacted())
	}
	dir := u.Path
	if runtime.GOOS == "windows" && len(dir) > 2 && dir[0] == '/' && dir[2] == ':' {
		dir = dir[1:]
	}
	dir = filepath.FromSlash(dir)
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("store: %q: want file:///DIRECTORY, with an absolute path", rawURL)
	}
	return filepath.Clean(dir), nil
}

func slashed(dir string) string {
	if dir = filepath.ToSlash(dir); dir[0] != '/' {
		return "/" + dir
	}
	return dir
}

// String returns the URL.
func (s *Store) String() string { return s.url }

// Close stops sweeping and frees the directory.
func (s *Store) Close() error {
	s.stop()
	s.wait.Wait()
	return s.root.Close()
}

// fail says what failed, and of which kind it is.
func (s *Store) fail(what string, err error) error {
	var reader *source.Error
	switch {
	case errors.As(err, &reader):
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: %w", store.ErrDenied, err)
	case full(err):
		err = fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return fmt.Errorf("store: %s: %s: %w", s.url, what, err)
}

// Put stores what r gives and syncs it to the disk. ErrFull: the disk, or the quota, is full.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, opt store.PutOptions) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	if err := s.put(ctx, pathOf(key), r, opt.TTL); err != nil {
		return s.fail("put "+key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, name string, r io.Reader, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	tmp, f, err := s.temp()
	if err != nil {
		return err
	}
	err = s.write(ctx, f, r, ttl)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = s.commit(tmp, name)
	}
	if err != nil {
		_ = s.root.Remove(tmp) // the sweep finds it otherwise
	}
	return err
}

func (s *Store) write(ctx context.Context, f *os.File, r io.Reader, ttl time.Duration) error {
	header := append(make([]byte, 0, headerSize), magic...)
	header = binary.BigEndian.AppendUint64(header, s.expiry(ttl))
	if _, err := f.Write(header); err != nil {
		return err
	}
	buf := make([]byte, copySize)
	if _, err := io.CopyBuffer(onlyWriter{f}, source.New(ctx, r), buf); err != nil {
		return err
	}
	return f.Sync()
}

func (s *Store) expiry(ttl time.Duration) uint64 {
	if ttl <= 0 {
		return 0
	}
	return uint64(s.now().Add(ttl).UnixMilli())
}

// commit moves a file into place. The lock keeps directories that look empty where they are, and the sweep from taking
// what has just been replaced for what it was.
func (s *Store) commit(tmp, name string) error {
	unlock, err := s.lock(false)
	if err != nil {
		return err
	}
	defer unlock()
	made, err := s.makeDirs(path.Dir(name))
	if err != nil {
		return err
	}
	if err := s.root.Rename(tmp, name); err != nil {
		return err
	}
	for _, dir := range append(made, path.Dir(name)) {
		if err := s.syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// lock locks the directory against all others, or, if it is not exclusive, against those who lock it exclusively. A file system that
// knows no locks is never swept, so what puts there needs none.
func (s *Store) lock(exclusive bool) (unlock func(), err error) {
	f, err := s.root.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	if exclusive {
		err = filelock.Exclusive(f)
	} else {
		_ = filelock.Shared(f)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// makeDirs makes a directory and those above it, and returns the directories in which it made one.
func (s *Store) makeDirs(dir string) ([]string, error) {
	if _, err := s.root.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	made, err := s.makeDirs(path.Dir(dir))
	if err != nil {
		return nil, err
	}
	if err := s.root.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return append(made, path.Dir(dir)), nil
}

// Get opens an object.
func (s *Store) Get(ctx context.Context, key string, offset int64) (io.ReadCloser, store.Info, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, store.Info{}, err
	}
	r, size, err := s.get(ctx, pathOf(key), offset)
	if err != nil {
		return nil, store.Info{}, s.fail("get "+key, err)
	}
	return r, store.Info{Key: key, Size: size}, nil
}

func (s *Store) get(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	f, err := s.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, store.ErrNotFound
	}
	if err != nil {
		return nil, 0, err
	}
	expires, size, err := examine(f)
	switch {
	case err != nil:
	case s.expired(expires):
		err = fmt.Errorf("%w: it has expired", store.ErrNotFound)
	case offset < 0 || offset > size:
		err = fmt.Errorf("offset %d of %d bytes", offset, size)
	default:
		_, err = f.Seek(headerSize+offset, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return &reader{ctx: ctx, r: f, Closer: f}, size, nil
}

// examine returns when an object expires and how many bytes it has.
func examine(f fs.File) (expires uint64, size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	var header [headerSize]byte
	if !info.Mode().IsRegular() {
		return 0, 0, fmt.Errorf("%s is not a file", info.Name())
	}
	if _, err := io.ReadFull(f, header[:]); err != nil || string(header[:len(magic)]) != magic {
		return 0, 0, fmt.Errorf("%s is not a file of fnwire", info.Name())
	}
	return binary.BigEndian.Uint64(header[len(magic):]), info.Size() - headerSize, nil
}

func (s *Store) expired(at uint64) bool { return at != 0 && uint64(s.now().UnixMilli()) > at }

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	err := ctx.Err()
	if err == nil {
		err = ignoreAbsent(s.root.Remove(pathOf(key)))
	}
	if err != nil {
		return s.fail("delete "+key, err)
	}
	return nil
}

// reader reads until the context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
	io.Closer
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// onlyWriter keeps io.Copy from handing everything over in one call.
type onlyWriter struct{ io.Writer }
