package fnlib_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/fnlib"
)

// sender is what README shows.
func sender(ctx context.Context) error {
	node, err := fnlib.Join(ctx, fnlib.FromEnv())
	if err != nil {
		return err
	}
	defer node.Close()
	receipt, err := node.Send(ctx, "reduce-0", "part-7", strings.NewReader("state"))
	if err != nil {
		return err
	}
	fmt.Println(receipt.To, "accepted", receipt.Bytes, "bytes")
	return nil
}

// receiver is what README shows.
func receiver(ctx context.Context) error {
	node, err := fnlib.Join(ctx, fnlib.FromEnv())
	if err != nil {
		return err
	}
	defer node.Close()
	in, err := node.Receive(ctx)
	if err != nil {
		return err
	}
	state, err := io.ReadAll(in) // ends well only if the digest is right
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s from %s\n", in.Key, state, in.From)
	return in.Accept()
}

// Two functions hand over a state. Here both run in one process, on a rendezvous and a relay of the
// example's own, and take their names from the environment one after the other.
func Example() {
	ctx := context.Background()
	tb := &exampleTB{}
	defer tb.cleanup()
	w := newWorld(tb, 1)
	_ = os.Setenv(fnlib.EnvURL, w.url)
	_ = os.Setenv(fnlib.EnvJobKey, w.key.Encode())

	done := make(chan error, 1)
	_ = os.Setenv(fnlib.EnvName, "map-0")
	go func() { done <- sender(ctx) }()
	if err := w.waitFor(ctx, "map-0"); err != nil {
		fmt.Println(err)
	}
	_ = os.Setenv(fnlib.EnvName, "reduce-0")
	if err := receiver(ctx); err != nil {
		fmt.Println(err)
	}
	if err := <-done; err != nil {
		fmt.Println(err)
	}
	// Output:
	// part-7: state from map-0
	// reduce-0 accepted 5 bytes
}

// exampleTB is what newWorld needs of a test.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (*exampleTB) Helper()                           {}
func (tb *exampleTB) Cleanup(f func())               { tb.cleanups = append(tb.cleanups, f) }
func (*exampleTB) Fatal(args ...any)                 { log.Fatal(args...) }
func (*exampleTB) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
func (*exampleTB) Errorf(format string, args ...any) { log.Printf(format, args...) }

func (tb *exampleTB) cleanup() {
	for _, f := range slices.Backward(tb.cleanups) {
		f()
	}
}
