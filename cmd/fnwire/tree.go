package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// openTree is openState for a directory. Its name is that of the directory, wherever it was asked for from.
func openTree(dir string) (*state, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	t := &tree{dir: abs}
	return &state{key: filepath.Base(abs) + ".tar", size: -1, r: t, close: t.close}, nil
}

// tree is a directory as a tar stream. It can be read again from its beginning, and is then what the directory holds then. It may be closed
// while a Read is under way, for which Send does not wait.
type tree struct {
	dir string

	mu     sync.Mutex     // guards what follows
	pr     *io.PipeReader // nil before the first Read
	ended  chan struct{}  // closed when nobody writes to pr any more
	at     int64
	closed bool
}

func (t *tree) Read(b []byte) (int, error) {
	pr, err := t.open()
	if err != nil {
		return 0, err
	}
	n, err := pr.Read(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	if pr == t.pr {
		t.at += int64(n)
	}
	return n, err
}

func (t *tree) open() (*io.PipeReader, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fs.ErrClosed
	}
	if t.pr == nil {
		pr, pw := io.Pipe()
		ended := make(chan struct{})
		t.pr, t.ended = pr, ended
		go func() {
			defer close(ended)
			w := tar.NewWriter(pw)
			err := addDir(w, t.dir)
			if err == nil {
				err = w.Close()
			}
			_ = pw.CloseWithError(err) // never fails
		}()
	}
	return t.pr, nil
}

// addDir is tar's AddFS with what a directory of this machine may hold: package fs has no names that are not UTF-8.
func addDir(w *tar.Writer, dir string) error {
	dir, err := filepath.EvalSymlinks(dir) // WalkDir would stop at it
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir {
			err = addEntry(w, dir, path, d)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", path, bare(err))
		}
		return nil
	})
}

func addEntry(w *tar.Writer, dir, path string, d fs.DirEntry) error {
	st, err := d.Info()
	if err != nil {
		return err
	}
	var link string
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	case !st.Mode().IsRegular() && !st.IsDir():
		return errors.New("neither a file, a directory nor a symbolic link; remove it, or send what `tar c --exclude` leaves, with -")
	}
	h, err := tar.FileInfoHeader(st, filepath.ToSlash(link))
	if err != nil {
		return err
	}
	if h.Name, err = filepath.Rel(dir, path); err != nil {
		return err
	}
	h.Name = filepath.ToSlash(h.Name)
	if st.IsDir() {
		h.Name += "/"
	}
	if err := w.WriteHeader(h); err != nil || !st.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(w, f); err != nil {
		return err
	}
	return w.Flush() // which tells of a file that got shorter meanwhile
}

// Seek tells where it is and goes back to the beginning; it does nothing else.
func (t *tree) Seek(offset int64, whence int) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case whence == io.SeekCurrent && offset == 0:
		return t.at, nil
	case whence == io.SeekStart && offset == 0:
		t.stop()
		return 0, nil
	}
	return 0, errors.New("a directory can only be read from its beginning")
}

// stop ends the stream at hand.
func (t *tree) stop() {
	if t.pr != nil {
		_ = t.pr.Close() // never fails
		<-t.ended
		t.pr, t.at = nil, 0
	}
}

func (t *tree) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stop()
	t.closed = true
}

// unpack writes what a tar stream holds below a directory: files, directories, and links that stay inside. Of what an archive
// names twice the last stays.
func unpack(root *os.Root, r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF { //nolint:errorlint // as archive/tar returns it
			// What follows the end of an archive is padding. It is part of the state, and read for its digest.
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return unfitf("the state is no tar stream, or a broken one: %w", err)
		}
		if err := unpackOne(root, tr, h); errors.As(err, new(unfit)) {
			return err
		} else if err != nil {
			return blame(fmt.Errorf("%.200q cannot be unpacked: %w", h.Name, bare(err)))
		}
	}
}

func unpackOne(root *os.Root, r io.Reader, h *tar.Header) error {
	name := filepath.FromSlash(strings.TrimSuffix(h.Name, "/"))
	if !filepath.IsLocal(name) {
		return unfitf("the archive names %q, which is outside of the directory", h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") { // a few bytes would become as many as the disk has
			return unfitf("%q is sparse, and may be larger than what was sent: make the archive without tar's --sparse", h.Name)
		}
	}
	mode := fs.FileMode(h.Mode).Perm()
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, mode|0o700)
	}
	if dir := filepath.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return unpackFile(root, name, r, mode)
	case tar.TypeSymlink:
		if !filepath.IsLocal(filepath.Join(filepath.Dir(name), filepath.FromSlash(h.Linkname))) || filepath.IsAbs(h.Linkname) {
			return unfitf("%q is a link to %q, which is outside of the directory", h.Name, h.Linkname)
		}
		return root.Symlink(h.Linkname, name)
	}
	return unfitf("%q is neither a file, a directory nor a symbolic link", h.Name)
}

// unfit is what is wrong with a state itself: it is refused, and the receiver goes on.
type unfit struct{ error }

func (e unfit) Unwrap() error { return e.error }

func unfitf(format string, args ...any) error { return unfit{fmt.Errorf(format, args...)} }

// unpackFile returns when the file is on the disk.
func unpackFile(root *os.Root, name string, r io.Reader, mode fs.FileMode) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o200)
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, r); errors.Is(err, io.ErrUnexpectedEOF) {
		err = unfitf("the state is a broken tar stream: %w", err)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// makeDir makes a directory for what is unpacked, unless there is something of that name.
func makeDir(out string) error {
	if _, err := os.Stat(out); out == "-" || !errors.Is(err, fs.ErrNotExist) {
		return nil // or openSink says what is wrong
	}
	return os.MkdirAll(out, 0o777)
}

// treeTarget unpacks a state into a directory that gets its name when it is complete.
type treeTarget struct {
	*io.PipeWriter
	s          *dirSink
	temp, name string
	done       chan struct{} // closed when err is set: the end of unpack
	err        error
}

func (s *dirSink) beginTree(temp, name string) (target, error) {
	if err := s.root.Mkdir(temp, 0o777); err != nil {
		return nil, err
	}
	root, err := s.root.OpenRoot(temp)
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	t := &treeTarget{PipeWriter: pw, s: s, temp: temp, name: name, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.err = unpack(root, pr)
		_ = pr.CloseWithError(t.err) // never fails
		_ = root.Close()             // was only looked up in
	}()
	return t, nil
}

func (t *treeTarget) commit() (string, error) {
	_ = t.Close() // never fails
	<-t.done
	err := t.err
	if err == nil {
		err = t.s.place(t.temp, t.name)
	}
	if err != nil {
		t.remove()
		return "", blame(err)
	}
	return filepath.Join(t.s.root.Name(), t.name), nil
}

func (t *treeTarget) abort() {
	_ = t.CloseWithError(errors.New("the transfer broke off")) // never fails
	<-t.done
	t.remove()
}

func (t *treeTarget) remove()      { _ = t.s.root.RemoveAll(t.temp) } // what else could be done with it
func (t *treeTarget) undone() bool { return true }
