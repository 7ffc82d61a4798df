package fnlib_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fnwire/fnwire/fnlib"
)

// putter is what README shows.
func putter(ctx context.Context, node *fnlib.Node, invoke func(ref fnlib.Ref) error) error {
	ref, err := node.Put(ctx, strings.NewReader("state"), fnlib.PutOptions{TTL: time.Minute, Reads: 1})
	if err != nil {
		return err
	}
	return invoke(ref) // in the payload: at most 512 bytes of text
}

// getter is what README shows.
func getter(ctx context.Context, node *fnlib.Node, ref fnlib.Ref) error {
	got, err := node.Get(ctx, ref, fnlib.GetOptions{})
	if err != nil {
		return err
	}
	defer got.Close()
	_, err = io.Copy(os.Stdout, got) // each block is checked before it is given out
	return err
}

// A function keeps a state for one that it invokes, and hands over only a ref.
func ExampleNode_Put() {
	ctx := context.Background()
	tb := &exampleTB{}
	defer tb.cleanup()
	w := newWorld(tb, 1)
	a, b := w.joinAs(ctx, tb, "map-0"), w.joinAs(ctx, tb, "reduce-0")
	err := putter(ctx, a, func(ref fnlib.Ref) error { return getter(ctx, b, ref) })
	if err != nil {
		fmt.Println(err)
	}
	// Output: state
}

// joinAs is join for an example, which has no context.
func (w *world) joinAs(ctx context.Context, tb *exampleTB, name string) *fnlib.Node {
	n, err := fnlib.Join(ctx, w.config(name))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = n.Close() })
	return n
}
