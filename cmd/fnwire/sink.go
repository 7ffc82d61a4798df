package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/fnwire/fnwire/internal/cli"
)

// sink is where received states go.
type sink interface {
	// begin makes room for a state. Its error is the reason for which the state is refused.
	begin(key string) (target, error)
	// parallel is how many states may arrive at the same time.
	parallel() int
	close()
}

// target takes one state. It ends with commit or abort, and nothing of an aborted one is left.
type target interface {
	io.Writer
	commit() (where string, err error)
	abort()
	// undone tells whether abort leaves nothing behind, so that the state may be sent again.
	undone() bool
}

// wrongOut is openSink's error, which is the caller's mistake unless it is the end of ctx.
func wrongOut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return cli.Usage(err)
}

// openSink finds out what out means: "-" is stdout, a directory takes each state under its key, anything
// else is a file.
func openSink(ctx context.Context, out string, stdout io.Writer, overwrite bool) (sink, error) {
	if out == "-" {
		return &streamSink{w: stdout, name: "-"}, nil
	}
	asDir := strings.HasSuffix(out, "/") || strings.HasSuffix(out, string(filepath.Separator))
	if asDir {
		if err := os.MkdirAll(out, 0o777); err != nil {
			return nil, err
		}
	}
	st, err := os.Stat(out)
	switch {
	case err == nil && st.IsDir():
		root, err := os.OpenRoot(out)
		if err != nil {
			return nil, err
		}
		return &dirSink{root: root, overwrite: overwrite}, nil
	case err == nil && !st.Mode().IsRegular(): // a device or a pipe: nothing to replace
		f, err := openWithin(ctx, out, os.O_WRONLY)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) }) // of a pipe that nobody reads; files have none
		return &streamSink{w: f, c: f, name: out}, nil
	case err == nil:
		if out, err = filepath.EvalSymlinks(out); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Dir(out))
	if err != nil {
		return nil, err
	}
	return &dirSink{root: root, overwrite: true, file: filepath.Base(out)}, nil
}

// openWithin is os.OpenFile, which waits for a pipe's other end, until ctx ends.
func openWithin(ctx context.Context, path string, flag int) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() { // which ends with the process if nobody comes
		f, err := os.OpenFile(path, flag, 0)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.f, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("open %s: %w", path, ctx.Err())
	}
}

// streamSink writes states one after the other as they come.
type streamSink struct {
	w    io.Writer
	c    io.Closer // nil if not ours
	name string
}

func (s *streamSink) begin(string) (target, error) { return &streamTarget{s: s}, nil }
func (s *streamSink) parallel() int                { return 1 }
func (s *streamSink) close() {
	if s.c != nil {
		_ = s.c.Close() // every state's end was told by Write
	}
}

type streamTarget struct {
	s     *streamSink
	wrote bool
}

func (t *streamTarget) Write(b []byte) (int, error) {
	t.wrote = t.wrote || len(b) > 0
	return t.s.w.Write(b)
}
func (t *streamTarget) commit() (string, error) { return t.s.name, nil }
func (t *streamTarget) abort()                  {}
func (t *streamTarget) undone() bool            { return !t.wrote }

// maxParallel bounds the states that a directory takes at the same time.
const maxParallel = 16

// dirSink writes each state to a temporary file, and gives it its name when it is complete. No key
// leads out of the directory, not by symbolic links either.
type dirSink struct {
	root      *os.Root
	overwrite bool
	extract   bool   // states are tar streams, and become directories
	file      string // if set, the name of the only file, whatever the keys

	mu sync.Mutex // held while a file gets its name
}

func (s *dirSink) parallel() int {
	if s.file != "" {
		return 1
	}
	return maxParallel
}

func (s *dirSink) close() { _ = s.root.Close() } // was only looked up in

func (s *dirSink) begin(key string) (target, error) {
	name := s.file
	if name == "" {
		var err error
		if name, err = fileName(s.base(key)); err != nil {
			return nil, err
		}
	}
	if err := s.vacant(name); err != nil {
		return nil, err
	}
	dir := filepath.Dir(name)
	if dir != "." {
		if err := s.root.MkdirAll(dir, 0o777); err != nil {
			return nil, refusal(key, err)
		}
	}
	temp := tempName(dir)
	if s.extract {
		t, err := s.beginTree(temp, name)
		if err != nil {
			return nil, refusal(key, err)
		}
		return t, nil
	}
	f, err := s.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, refusal(key, err)
	}
	return &fileTarget{file: f, s: s, temp: temp, name: name}, nil
}

func tempName(dir string) string { return filepath.Join(dir, ".fnwire-"+rand.Text()[:12]+".part") }

// base is what a state of that key is called here.
func (s *dirSink) base(key string) string {
	if s.extract {
		return strings.TrimSuffix(key, ".tar")
	}
	return key
}

// fileName turns a key into a path below the directory. Only keys that are clean paths can be one.
func fileName(key string) (string, error) {
	if key == "" {
		return "", errors.New("the state has no key to name a file by")
	}
	name, err := filepath.Localize(key)
	if err != nil || name == "." || strings.ContainsFunc(key, unicode.IsControl) {
		return "", fmt.Errorf("key %.200q is no file name: absolute paths, '..' and control characters are refused", key)
	}
	return name, nil
}

// refusal takes the directory's own path out of what the sender gets to see.
func refusal(key string, err error) error { return fmt.Errorf("key %.200q: %w", key, bare(err)) }

// bare is an error without the paths that it was met at.
func bare(err error) error {
	var perr *fs.PathError
	var lerr *os.LinkError
	switch {
	case errors.As(err, &perr):
		return perr.Err
	case errors.As(err, &lerr):
		return lerr.Err
	}
	return err
}

// troubles are errors of this machine, which the next state would meet as well.
var troubles = []error{
	syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EACCES, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
}

// blame makes an error unfit unless it is one of this machine.
func blame(err error) error {
	if err == nil || errors.As(err, new(unfit)) || slices.ContainsFunc(troubles, func(t error) bool { return errors.Is(err, t) }) {
		return err
	}
	return unfit{err}
}

// vacant refuses what exists already, unless it may be replaced.
func (s *dirSink) vacant(name string) error {
	st, err := s.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return refusal(filepath.ToSlash(name), err)
	case st.IsDir() && !s.extract:
		return fmt.Errorf("%q is a directory at the receiver", filepath.ToSlash(name))
	case !s.overwrite:
		return fmt.Errorf("%q exists at the receiver already (receive --overwrite replaces it)", filepath.ToSlash(name))
	}
	return nil
}

// file is what a state is written to: an *os.File.
type file interface {
	io.WriteCloser
	Sync() error
}

type fileTarget struct {
	file
	s          *dirSink
	temp, name string
}

// commit returns when the state is on the disk under its name: the sender may forget it then.
func (t *fileTarget) commit() (string, error) {
	err := t.Sync()
	err = errors.Join(err, t.Close())
	if err == nil {
		err = t.s.place(t.temp, t.name)
	}
	if err != nil {
		t.remove()
		return "", blame(err)
	}
	return filepath.Join(t.s.root.Name(), t.name), nil
}

func (t *fileTarget) Write(b []byte) (int, error) {
	n, err := t.file.Write(b)
	return n, blame(err)
}

// place gives what is complete its name, and returns when that is on the disk.
func (s *dirSink) place(temp, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.vacant(name); err != nil { // two states may have had the same key
		return err
	}
	if s.extract { // no rename replaces a directory that is not empty
		old := tempName(filepath.Dir(name))
		switch err := s.root.Rename(name, old); {
		case err == nil:
			defer func() { _ = s.root.RemoveAll(old) }() // it is out of the way
		case !errors.Is(err, fs.ErrNotExist):
			return refusal(filepath.ToSlash(name), err)
		}
	}
	if err := s.root.Rename(temp, name); err != nil {
		return refusal(filepath.ToSlash(name), err)
	}
	s.syncDir(filepath.Dir(name))
	return nil
}

// syncDir puts a new name on the disk. Not every system can be asked to; the name itself is there all the same.
func (s *dirSink) syncDir(dir string) {
	if d, err := s.root.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close() // was only read
	}
}

func (t *fileTarget) abort() {
	_ = t.Close() // removed next
	t.remove()
}

func (t *fileTarget) remove()      { _ = t.s.root.Remove(t.temp) } // what else could be done with it
func (t *fileTarget) undone() bool { return true }
