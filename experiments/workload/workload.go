// Package workload says which bytes an experiment moves: real files of this machine, so that nothing on
// the way can profit from zeros or from repetition of a few bytes. It names parts of files and never copies them:
// nothing has to be cleaned up.
package workload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Part is a piece of a file.
type Part struct {
	Path   string `json:"path"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
}

// Source is a state: its parts, one after the other. It travels as JSON to the processes that send it.
type Source struct {
	Parts []Part `json:"parts"`
}

const minFileBytes = 1 << 20 // smaller files of the toolchain are left out: opening them would be measured too

// Real returns a source of exactly n bytes: the programs of the Go toolchain, or if there is no toolchain
// this program itself, repeated if they are too few.
func Real(ctx context.Context, n int64) (Source, error) {
	var paths []string
	if out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		root := strings.TrimSpace(string(out))
		for _, dir := range []string{"pkg/tool", "bin"} {
			paths = append(paths, bigFiles(filepath.Join(root, dir))...)
		}
	}
	if err := ctx.Err(); err != nil {
		return Source{}, err
	}
	if len(paths) == 0 {
		self, err := os.Executable()
		if err != nil {
			return Source{}, fmt.Errorf("workload: neither a Go toolchain nor this program's file: %w", err)
		}
		paths = []string{self}
	}
	return FromFiles(n, paths...)
}

// bigFiles returns the files below dir that are worth sending, in the order of their names.
func bigFiles(dir string) []string {
	var paths []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read is not sent
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() && info.Size() >= minFileBytes {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}

// FromFiles returns a source of exactly n bytes out of the files, repeated as often as that takes.
func FromFiles(n int64, paths ...string) (Source, error) {
	var all []Part
	var total int64
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return Source{}, fmt.Errorf("workload: %w", err)
		}
		all = append(all, Part{Path: p, Bytes: info.Size()})
		total += info.Size()
	}
	if total == 0 {
		return Source{}, errors.New("workload: the files are empty")
	}
	var s Source
	for left := n; left > 0; {
		for _, p := range all {
			p.Bytes = min(p.Bytes, left)
			if left -= p.Bytes; p.Bytes > 0 {
				s.Parts = append(s.Parts, p)
			}
		}
	}
	return s, nil
}

// Size returns the number of bytes.
func (s Source) Size() int64 {
	var n int64
	for _, p := range s.Parts {
		n += p.Bytes
	}
	return n
}

// Cut returns the first n bytes of s, or all if there are fewer.
func (s Source) Cut(n int64) Source { return s.Section(0, n) }

// Section returns n bytes of s from an offset on, or fewer if there are not so many.
func (s Source) Section(offset, n int64) Source {
	var out Source
	for _, p := range s.Parts {
		skip := min(offset, p.Bytes)
		offset -= skip
		p.Offset, p.Bytes = p.Offset+skip, min(p.Bytes-skip, n)
		if n -= p.Bytes; p.Bytes > 0 {
			out.Parts = append(out.Parts, p)
		}
	}
	return out
}

// SHA256 reads all of s and returns its digest in hexadecimal.
func (s Source) SHA256(ctx context.Context) (string, error) {
	h := sha256.New()
	err := s.CopyTo(ctx, h)
	return hex.EncodeToString(h.Sum(nil)), err
}

// CopyTo writes all of s to w, unless ctx ends before.
func (s Source) CopyTo(ctx context.Context, w io.Writer) error {
	r := s.Open()
	defer r.Close()
	_, err := io.Copy(w, untilEnd{ctx, r})
	return err
}

// untilEnd is a reader that fails when ctx has ended.
type untilEnd struct {
	ctx context.Context //nolint:containedctx // of one call of CopyTo
	io.Reader
}

// Read implements io.Reader.
func (r untilEnd) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// Open returns a reader of s. Files are opened as their turn comes, so the errors are those of Read.
func (s Source) Open() io.ReadSeekCloser { return &reader{all: s, parts: s.Parts} }

type reader struct {
	all   Source
	at    int64
	parts []Part // still to come
	file  *os.File
	left  int64 // of the file at hand
}

// Seek implements io.Seeker.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.all.Size()
	}
	if offset < 0 {
		return r.at, errors.New("workload: seek before the beginning")
	}
	if offset == r.at {
		return r.at, nil
	}
	if err := r.Close(); err != nil {
		return r.at, err
	}
	r.at, r.left = offset, 0
	r.parts = r.all.Section(offset, r.all.Size()).Parts
	return r.at, nil
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	for r.left == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n, err := r.file.Read(b[:min(int64(len(b)), r.left)])
	r.left -= int64(n)
	r.at += int64(n)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("workload: %s is shorter than it was", r.file.Name())
	}
	return n, err
}

func (r *reader) next() error {
	if err := r.Close(); err != nil {
		return err
	}
	if len(r.parts) == 0 {
		return io.EOF
	}
	p := r.parts[0]
	r.parts = r.parts[1:]
	f, err := os.Open(p.Path)
	if err != nil {
		return fmt.Errorf("workload: %w", err)
	}
	r.file, r.left = f, p.Bytes
	if _, err := f.Seek(p.Offset, io.SeekStart); err != nil {
		return fmt.Errorf("workload: %w", err)
	}
	return nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file, r.left = nil, 0
	return f.Close()
}

// ParseBytes reads a number of bytes such as 1000, 64MiB, 1.5GiB or 200MB.
func ParseBytes(s string) (int64, error) {
	units := []struct {
		suffix string
		bytes  float64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1},
	}
	number, unit := strings.TrimSpace(s), 1.0
	for _, u := range units {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v >= 0 && v*unit <= 1<<50) {
		return 0, fmt.Errorf("%q is no number of bytes, such as 64MiB", s)
	}
	return int64(v * unit), nil
}

// FormatBytes writes n as ParseBytes reads it.
func FormatBytes(n int64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
