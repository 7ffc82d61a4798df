// Package cli is the experiments command: its subcommands and their flags. What they do lives in the packages they call.
package cli

import (
	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/internal/cli"
)

// Main runs the command with the arguments of the process and returns its exit code.
func Main() int {
	exit := cli.ExitOK
	if code := cli.Main(NewRoot(&exit)); code != cli.ExitOK {
		return code
	}
	return exit
}

// NewRoot returns the command with all its subcommands. A subcommand that has done its work and
// passes on the exit code of another program puts that into exit.
func NewRoot(exit *int) *cobra.Command {
	root := &cobra.Command{
		Use:   "experiments",
		Short: "Measure fnwire: labs with NATs, experiments and their reports",
		Args:  cli.Args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newLab(exit), newFaas(), newDemo(), newRun(), newReport(), newWorker())
	return root
}
