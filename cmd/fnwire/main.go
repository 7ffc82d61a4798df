// Command fnwire is what a user has at hand: it makes job keys, runs a rendezvous and a relay for
// development, sends and receives states by name, carries TCP connections, and shows who is there and over
// what path.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/internal/cli"
)

func main() { os.Exit(cli.Main(newRoot())) }

const rootLong = `fnwire lets functions talk to each other directly, by name.

Start with a rendezvous and a relay of your own, and set the environment they print:

  fnwire dev

Then, in two other shells with that environment:

  fnwire receive --name B --out copy.bin
  fnwire send --name A --to B FILE

A flag beats the environment (FNWIRE_URL, FNWIRE_CREDS, FNWIRE_JOB, FNWIRE_JOB_KEY, FNWIRE_NAME), which
beats the default. The exit code is 0 only when the thing was done, 2 for a wrong call, 130 after Ctrl-C.
With --json the last object of a command that failed is {"ok":false,"error":"..."}.`

func newRoot() *cobra.Command {
	var c common
	root := &cobra.Command{
		Use:   "fnwire",
		Short: "Connect functions by name",
		Long:  rootLong,
		Args:  cli.Args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.register(root)
	root.AddCommand(
		newKeygen(&c), newDev(&c), newSend(&c), newReceive(&c), newPing(&c), newList(&c), newNetcheck(&c),
		newPut(&c), newGet(&c), newExpose(&c), newForward(&c),
	)
	c.tellUsage(root)
	return root
}
