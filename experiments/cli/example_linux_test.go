package cli_test

import (
	"fmt"

	"github.com/fnwire/fnwire/experiments/cli"
)

func ExampleNewRoot() {
	var exit int
	root := cli.NewRoot(&exit)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs([]string{"lab", "exec", "A"})
	fmt.Println(root.Execute())
	// Output: want HOST -- COMMAND [ARG...]
}
