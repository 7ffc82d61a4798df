//go:build !linux

package cli

import (
	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/experiments/lab"
)

func newLab(*int) *cobra.Command {
	return &cobra.Command{
		Use:                "lab",
		Short:              "Hosts behind NATs on this machine (Linux only)",
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return lab.Enter() },
	}
}
