package fnlib

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// source is the reader of a state. What may block is read by a goroutine, so that a send ends with its
// context (or its link) even if the reader never returns.
type source struct {
	r       io.Reader
	at      int64 // where it was at first, if it can be rewound
	rewinds bool
	left    bool // by a read that was stopped: the reader still has its buffer
	want    chan []byte
	got     chan readResult
}

type readResult struct {
	n   int
	err error
}

// readError is what the reader of a state failed with. It may look like an error of the link, since a
// state may be read from another link.
type readError struct{ error }

func (e *readError) Error() string { return "reading the state: " + e.error.Error() }
func (e *readError) Unwrap() error { return e.error }

var errStopped = errors.New("stopped before the reader returned")

func newSource(r io.Reader) *source {
	s := &source{r: r}
	if k, ok := r.(io.Seeker); ok {
		at, err := k.Seek(0, io.SeekCurrent)
		s.at, s.rewinds = at, err == nil
	}
	switch r.(type) {
	case *bytes.Reader, *bytes.Buffer, *strings.Reader:
		return s
	}
	s.want, s.got = make(chan []byte), make(chan readResult, 1)
	go s.run()
	return s
}

// run ends with close, or when the reader returns after that.
func (s *source) run() {
	for b := range s.want {
		n, err := s.r.Read(b)
		s.got <- readResult{n, err}
	}
}

func (s *source) close() {
	if s.want != nil {
		close(s.want)
	}
}

// read reads once. After errStopped the reader may still write to b, and the next read waits for that and
// returns it: b must be the same then.
func (s *source) read(b []byte, stop stops) (int, error) {
	if s.want == nil {
		return s.r.Read(b)
	}
	if !s.left {
		s.want <- b
	}
	select {
	case g := <-s.got:
		s.left = false
		return g.n, g.err
	case <-stop[0]:
	case <-stop[1]:
	case <-stop[2]:
	case <-stop[3]:
	}
	s.left = true
	return 0, errStopped
}

// stops are what ends a wait. Those that are nil do not.
type stops [4]<-chan struct{}

// rewind takes the reader back to where it was at first, or reports that this cannot be done.
func (s *source) rewind() bool {
	if !s.rewinds || s.left {
		return false
	}
	_, err := s.r.(io.Seeker).Seek(s.at, io.SeekStart)
	return err == nil
}
