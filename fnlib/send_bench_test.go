package fnlib_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/fnwire/fnwire/fnlib"
)

// BenchmarkSend hands over states one after the other between two nodes of this process, to the receipt.
func BenchmarkSend(b *testing.B) {
	w := newWorld(b, 1)
	from, to := w.join(b, "a"), w.join(b, "b")
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go func() {
		buf := make([]byte, 256<<10)
		for in, err := range to.States(ctx) {
			if err != nil {
				return
			}
			if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, buf); err != nil {
				return
			}
			_ = in.Accept()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20, 16 << 20} {
		state := program[:size] // which can be compressed to half
		for _, off := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dKiB/no-compress=%v", size>>10, off), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := from.SendWith(ctx, "b", "k", bytes.NewReader(state), fnlib.SendOptions{NoCompress: off}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
