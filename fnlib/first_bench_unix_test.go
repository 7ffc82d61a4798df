//go:build unix

package fnlib_test

import (
	"bytes"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
)

// BenchmarkFirstSend hands over a small state between two nodes of this process that have joined and never met: call, link, state and receipt. cpu-ms is what
// the process takes until a while later, with all that the link does by itself.
func BenchmarkFirstSend(b *testing.B) {
	for _, path := range []fnlib.Path{fnlib.Auto, fnlib.RelayOnly} {
		b.Run(path.String(), func(b *testing.B) {
			w := newWorld(b, 1)
			from := w.join(b, "a")
			var used time.Duration
			for i := range b.N {
				b.StopTimer()
				name := fmt.Sprint("b", i)
				to := w.join(b, name)
				time.Sleep(100 * time.Millisecond)
				before := cpu()
				b.StartTimer()
				go func() {
					in, err := to.Receive(b.Context())
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, in)
					_ = in.Accept()
				}()
				if _, err := from.SendWith(b.Context(), name, "k", bytes.NewReader([]byte("state")), fnlib.SendOptions{Path: path}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				time.Sleep(100 * time.Millisecond)
				used += cpu() - before
				if err := to.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(used.Seconds()*1e3/float64(b.N), "cpu-ms/op")
		})
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
