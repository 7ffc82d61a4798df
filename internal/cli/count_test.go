package cli_test

import (
	"fmt"

	"github.com/fnwire/fnwire/internal/cli"
)

func ExampleCount() {
	var n int64
	c := cli.Count[int64]{N: &n}
	for _, s := range []string{"65536", "0", "-1", "1.5", "9223372036854775808", ""} {
		fmt.Println(c.Set(s), n, c)
	}
	// Output:
	// <nil> 65536 65536
	// <nil> 0 0
	// want a whole number of 0 or more 0 0
	// want a whole number of 0 or more 0 0
	// want a whole number of 0 or more 0 0
	// want a whole number of 0 or more 0 0
}
