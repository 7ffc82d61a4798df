package fnlib_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"testing"

	"github.com/fnwire/fnwire/fnlib"
)

// BenchmarkPutGet hands over by ref what does not fit into memory, from one holder and from two, and tells how much more than before is in the heap at most: of getter
// and holders, which are one process here, with QUIC's windows.
func BenchmarkPutGet(b *testing.B) {
	const size = 64 << 20
	b.Setenv("TMPDIR", b.TempDir())
	w := newWorld(b, 1)
	first, second, getter := w.join(b, "first"), w.join(b, "second"), w.join(b, "getter")
	one, err := first.Put(b.Context(), io.LimitReader(rand.NewChaCha8([32]byte{}), size), fnlib.PutOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		holders int
		ref     fnlib.Ref
	}{{1, one}, {2, hold(b, second, one)}} {
		b.Run(fmt.Sprintf("holders=%d", c.holders), func(b *testing.B) {
			b.SetBytes(size)
			runtime.GC()
			before, most := heap(), uint64(0)
			buf := make([]byte, 256<<10)
			for b.Loop() {
				g, err := getter.Get(b.Context(), c.ref, fnlib.GetOptions{})
				if err != nil {
					b.Fatal(err)
				}
				for ; err == nil; _, err = io.ReadFull(g, buf) {
					most = max(most, heap())
				}
				if err != io.EOF {
					b.Fatal(err)
				}
			}
			b.ReportMetric((float64(most)-float64(before))/(1<<20), "heap-MiB")
		})
	}
}

// heap is how many bytes are in objects, the dead ones that are not swept yet included.
func heap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
