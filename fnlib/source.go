package fnlib

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
)

// source is the reader of a state. What may block is read by a goroutine, so that a send ends with its
// context (or its link) even if the reader never returns.
type source struct {
	r       io.Reader
	at      int64 // where it was at first, if it can be rewound
	rewinds bool
	left    bool  // by a read that was stopped: the reader still has its buffer
	failed  error // came with bytes, and is for the next read
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
		s.got <- s.readOnce(b)
	}
}

// readOnce turns a panic into an error: nobody could recover from it in this goroutine.
func (s *source) readOnce(b []byte) (g readResult) {
	defer func() {
		if p := recover(); p != nil {
			g = readResult{0, fmt.Errorf("the reader panicked: %v\n%s", p, debug.Stack())}
		}
	}()
	g.n, g.err = s.r.Read(b)
	if g.n < 0 || g.n > len(b) {
		g = readResult{0, fmt.Errorf("the reader says that it gave %d bytes when it was asked for up to %d", g.n, len(b))}
	}
	return g
}

func (s *source) close() {
	if s.want != nil {
		close(s.want)
	}
}

// read reads once. An error that comes with bytes is for the next read, whatever the reader would say then. After errStopped the
// reader may still write to b, and the next read waits for that and returns it: b must be the same then.
func (s *source) read(b []byte, stop stops) (int, error) {
	if s.failed != nil {
		return 0, s.failed
	}
	n, err := s.wait(b, stop)
	if n > 0 && err != nil {
		s.failed, err = err, nil
	}
	return n, err
}

func (s *source) wait(b []byte, stop stops) (int, error) {
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

// errNoSeeker: the reader cannot be read again.
var errNoSeeker = errors.New("the state cannot be read again (it can if it is given as an io.Seeker)")

// rewind takes the reader back to where it was at first, once a read that was stopped has returned.
func (s *source) rewind(stop stops) error {
	if !s.rewinds {
		return errNoSeeker
	}
	if s.left {
		select {
		case <-s.got:
			s.left = false
		case <-stop[0]:
			return errStopped
		case <-stop[1]:
			return errStopped
		case <-stop[2]:
			return errStopped
		case <-stop[3]:
			return errStopped
		}
	}
	if _, err := s.r.(io.Seeker).Seek(s.at, io.SeekStart); err != nil {
		return &readError{err}
	}
	s.failed = nil
	return nil
}
