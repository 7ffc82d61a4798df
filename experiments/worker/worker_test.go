package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a worker in this process. stop ends it and returns its error.
func start(role worker.Role) (c *worker.Client, stop func() error) {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := worker.Run(context.Background(), role, inR, outW)
		_ = outW.Close()
		_ = inR.Close()
		ended <- err
	}()
	c = worker.NewClient(inW, outR)
	return c, func() error {
		_ = inW.Close()
		err := <-ended
		<-c.Done()
		return err
	}
}

func Example() {
	c, stop := start(worker.Function)
	u, err := c.Usage(context.Background())
	fmt.Println(u.MaxRSSBytes > 0, err)
	_, err = c.Receive(context.Background())
	fmt.Println(err)
	fmt.Println(stop())
	// Output:
	// true <nil>
	// receive: has not joined
	// <nil>
}

func TestErrors(t *testing.T) {
	c, stop := start(worker.Function)
	for want, call := range map[string]func() error{
		"unknown operation": func() error { return c.Call(t.Context(), "no-such", worker.None{}, nil) },
		"arguments":         func() error { return c.Call(t.Context(), "join", 5, nil) },
		"job key": func() error {
			_, err := c.Join(t.Context(), worker.JoinArgs{URL: "nats://127.0.0.1:1", Key: "x", Name: "a"})
			return err
		},
		"gopher": func() error {
			_, err := c.Get(t.Context(), worker.GetArgs{Store: worker.Store{URL: "gopher://h"}, Key: "k"})
			return err
		},
		"not streaming": func() error { return c.StopPour(t.Context()) },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := c.Call(t.Context(), "usage", worker.None{}, nil); !errors.Is(err, worker.ErrGone) {
		t.Errorf("call after the end: %v", err)
	}
	if err := worker.Run(t.Context(), "baker", strings.NewReader(""), io.Discard); err == nil {
		t.Error("an unknown role is accepted")
	}
	if err := worker.Run(t.Context(), worker.Function, strings.NewReader("garbage\n"), io.Discard); err == nil {
		t.Error("garbage is accepted")
	}
}

// An operation whose caller gives up ends, and so does one that is under way at the end.
func TestCancel(t *testing.T) {
	c, stop := start(worker.Function)
	dir := "file://" + t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Put(ctx, worker.PutArgs{Store: worker.Store{URL: dir}, Key: "k"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	go c.Put(t.Context(), worker.PutArgs{Store: worker.Store{URL: dir}, Key: "k"}) //nolint:errcheck // it ends with the worker
	if err := stop(); err != nil {
		t.Error(err)
	}
}
