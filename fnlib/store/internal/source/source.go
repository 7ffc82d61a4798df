// Package source reads what a driver is asked to store, so that a failure of the reader is told from its end, and from a failure of
// the store. It never reads ahead.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Error is a failure of the reader that was given to Put.
type Error struct{ Err error }

func (e *Error) Error() string { return fmt.Sprintf("reading what to store: %v", e.Err) }

// Unwrap returns the reader's own error.
func (e *Error) Unwrap() error { return e.Err }

// Reader reads until the context ends. Its errors are io.EOF, *Error, or the context's.
type Reader struct {
	ctx context.Context
	r   io.Reader
}

// New returns a Reader for one goroutine at a time.
func New(ctx context.Context, r io.Reader) *Reader { return &Reader{ctx: ctx, r: r} }

// Read reads once.
func (r *Reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	if ended := r.ctx.Err(); ended != nil {
		return 0, ended
	}
	if err != nil && err != io.EOF {
		return n, &Error{err}
	}
	return n, err
}

// Fill reads until p is full or the reader ends, which is no error: then n is less than len(p).
func (r *Reader) Fill(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	if errors.Is(err, io.EOF) && !failed(err) {
		err = nil
	}
	return n, err
}

func failed(err error) bool {
	var own *Error
	return errors.As(err, &own)
}
