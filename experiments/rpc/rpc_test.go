package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves in this process. stop ends it and returns its error.
func start(ops map[string]rpc.Op) (c *rpc.Client, stop func() error) {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := rpc.Serve(context.Background(), inR, outW, ops)
		_ = outW.Close()
		_ = inR.Close()
		ended <- err
	}()
	c = rpc.NewClient(inW, outR)
	return c, func() error {
		_ = inW.Close()
		err := <-ended
		<-c.Done()
		return err
	}
}

func Example() {
	c, stop := start(map[string]rpc.Op{
		"double": rpc.Handle(func(_ context.Context, n int) (int, error) { return 2 * n, nil }),
	})
	var n int
	fmt.Println(c.Call(context.Background(), "double", 21, &n), n)
	fmt.Println(c.Call(context.Background(), "halve", 21, &n))
	u, err := c.Usage(context.Background())
	fmt.Println(u.MaxRSSBytes > 0, err)
	fmt.Println(stop())
	// Output:
	// <nil> 42
	// halve: unknown operation "halve": is this another version?
	// true <nil>
	// <nil>
}

// A caller that gives up ends the operation, and so does the end of input.
func TestCancel(t *testing.T) {
	ended := make(chan struct{}, 2)
	begun := make(chan struct{}, 2)
	c, stop := start(map[string]rpc.Op{"wait": rpc.Handle(func(ctx context.Context, _ rpc.None) (rpc.None, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return rpc.None{}, ctx.Err()
	})})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if err := c.Call(ctx, "wait", rpc.None{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
	go c.Call(t.Context(), "wait", rpc.None{}, nil) //nolint:errcheck // it ends with the process
	<-begun
	if err := stop(); err != nil {
		t.Error(err)
	}
	<-ended
	if err := c.Call(t.Context(), "wait", rpc.None{}, nil); !errors.Is(err, rpc.ErrGone) {
		t.Errorf("got %v", err)
	}
}

// What was told before the end is there, in order, whether the operation ends or the process.
func TestParts(t *testing.T) {
	blocked := make(chan struct{})
	c, stop := start(map[string]rpc.Op{"count": rpc.HandleParts(func(ctx context.Context, n int, tell func(int) error) error {
		for i := range max(n, -n) {
			if err := tell(i); err != nil {
				return err
			}
		}
		if n < 0 {
			close(blocked)
			<-ctx.Done()
		}
		return ctx.Err()
	})})
	var got []int
	note := func(i int) { got = append(got, i) }
	if err := rpc.CallParts(t.Context(), c, "count", 3, note); err != nil || !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("%v, %v", got, err)
	}
	if err := rpc.CallParts(t.Context(), c, "count", 1, func(string) {}); err == nil {
		t.Error("a part of another type is taken")
	}
	got = nil
	ended := make(chan error, 1)
	go func() { ended <- rpc.CallParts(t.Context(), c, "count", -4, note) }()
	<-blocked
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil || !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestGarbage(t *testing.T) {
	if err := rpc.Serve(t.Context(), strings.NewReader("garbage\n"), io.Discard, nil); err == nil {
		t.Error("garbage is taken")
	}
}
