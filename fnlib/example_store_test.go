package fnlib_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store/file"
)

// leave is what README shows, and a sender that does not wait for its receiver.
func leave(ctx context.Context, cfg fnlib.Config, url string) error {
	states, err := file.Open(ctx, url)
	if err != nil {
		return err
	}
	defer states.Close()
	cfg.Store = states
	node, err := fnlib.Join(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	receipt, err := node.SendWith(ctx, "reduce-0", "part-7", strings.NewReader("state"), fnlib.SendOptions{StoreOnly: true})
	if err != nil {
		return err
	}
	fmt.Println(receipt.Bytes, "bytes are stored:", receipt.Stored != "")
	return nil
}

// A sender leaves a state for a receiver that starts when the sender has ended.
func Example_store() {
	ctx := context.Background()
	tb := &exampleTB{}
	defer tb.cleanup()
	w := newWorld(tb, 1)
	dir, err := os.MkdirTemp("", "fnwire-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := leave(ctx, w.config("map-0"), "file://"+dir); err != nil {
		fmt.Println(err)
	}

	states, err := file.Open(ctx, "file://"+dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer states.Close()
	cfg := w.config("reduce-0")
	cfg.Store = states
	node, err := fnlib.Join(ctx, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	in, err := node.Receive(ctx, fnlib.From("map-0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	state, err := io.ReadAll(in)
	fmt.Println(in.Key, string(state), in.Path(), err, in.Accept())
	// Output:
	// 5 bytes are stored: true
	// part-7 state store <nil> <nil>
}
