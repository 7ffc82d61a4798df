package cli_test

import (
	"fmt"
	"testing"

	"github.com/fnwire/fnwire/internal/cli"
)

func ExampleBytes() {
	for _, s := range []string{"0", "1000", "2048", "512MiB", "1024MiB", "16GiB"} {
		var b cli.Bytes
		fmt.Println(b.Set(s), int64(b), b.String())
	}
	// Output:
	// <nil> 0 0
	// <nil> 1000 1000
	// <nil> 2048 2KiB
	// <nil> 536870912 512MiB
	// <nil> 1073741824 1GiB
	// <nil> 17179869184 16GiB
}

func FuzzBytes(f *testing.F) {
	for _, s := range []string{"16GiB", "-1", "9223372036854775807TiB", "1.5GiB", "GiB", "1GB", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b, again cli.Bytes
		if err := b.Set(s); err != nil {
			return
		}
		if err := again.Set(b.String()); err != nil || again != b || b < 0 {
			t.Errorf("%q: %d, %q, %v", s, int64(b), b.String(), err)
		}
	})
}
