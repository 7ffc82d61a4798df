package worker

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/rpc"
	"github.com/fnwire/fnwire/fnlib"
)

const (
	opServe = "serve"
	opLeave = "leave"

	takeAtOnce = 4 // states
)

// Taken is what a function that serves tells of a state: that it has all of it, and then what became of accepting it.
type Taken struct {
	From   string `json:"from"`
	Key    string `json:"key"`
	Bytes  int64  `json:"bytes"`
	Digest string `json:"digest"` // SHA-256 of what came, in hexadecimal
	Path   string `json:"path"`
	At     int64  `json:"at"`

	Accepted bool   `json:"accepted"`        // Accept has returned
	Error    string `json:"error,omitempty"` // what Accept has returned
}

// Serve has a function take states, several at a time, until ctx or the function ends. What it tells is its work on a state:
// it is done before the state is accepted, and known whatever becomes of the process.
func (c *Client) Serve(ctx context.Context, tell func(Taken)) error {
	return rpc.CallParts(ctx, c.Client, opServe, None{}, tell)
}

func (f *function) serve(ctx context.Context, _ None, tell func(Taken) error) error {
	node, err := f.joined()
	if err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	for range takeAtOnce {
		all.Go(func() error {
			for {
				in, err := node.Receive(ctx)
				if err != nil {
					return err
				}
				if err := takeOne(in, tell); err != nil {
					return err
				}
			}
		})
	}
	return all.Wait()
}

// takeOne takes a state. One that breaks off is its sender's to tell of.
func takeOne(in *fnlib.Incoming, tell func(Taken) error) error {
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{in}, make([]byte, copyBytes)); err != nil {
		return nil //nolint:nilerr // as said
	}
	t := Taken{From: in.From, Key: in.Key, Bytes: in.Bytes(), Digest: in.Digest().String(), Path: in.Path(), At: now()}
	if err := tell(t); err != nil {
		return err
	}
	if err := in.Accept(); err != nil {
		t.Error = err.Error()
	}
	t.Accepted, t.At = true, now()
	return tell(t)
}

// Leave closes the function's node, with what it was sending: that is stored, if there is a store, or fails.
func (c *Client) Leave(ctx context.Context) error { return c.Call(ctx, opLeave, None{}, nil) }

func (f *function) leave(context.Context, None) (None, error) {
	node, err := f.joined()
	if err != nil {
		return None{}, err
	}
	if err := node.Close(); err != nil && !errors.Is(err, fnlib.ErrFenced) {
		return None{}, err
	}
	return None{}, nil
}
