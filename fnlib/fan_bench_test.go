package fnlib_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sync/errgroup"
)

// BenchmarkFanOut hands the same state to 15 nodes of this process at once, to the receipts.
func BenchmarkFanOut(b *testing.B) {
	const receivers = 15
	w := newWorld(b, 1)
	from := w.join(b, "a")
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	names := make([]string, receivers)
	for i := range names {
		names[i] = fmt.Sprint("b", i)
		to := w.join(b, names[i])
		go func() {
			for in, err := range to.States(ctx) {
				if err != nil {
					return
				}
				if _, err := io.Copy(io.Discard, in); err != nil {
					return
				}
				_ = in.Accept()
			}
		}()
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1 << 10, 10 << 10, 1 << 20} {
		state := program[1<<20:][:size]
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size * receivers))
			b.ReportAllocs()
			for b.Loop() {
				var all errgroup.Group
				for _, to := range names {
					all.Go(func() error {
						_, err := from.Send(ctx, to, "k", bytes.NewReader(state))
						return err
					})
				}
				if err := all.Wait(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
