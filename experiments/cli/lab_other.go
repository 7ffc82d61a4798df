//go:build !linux

package cli

import (
	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/experiments/lab"
)

func newFaas() *cobra.Command {
	return &cobra.Command{
		Use:                "faas",
		Short:              "A function platform in a lab, for your own functions (Linux only)",
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return lab.Enter() },
	}
}

func newLab(*int) *cobra.Command {
	return &cobra.Command{
		Use:                "lab",
		Short:              "Hosts behind NATs on this machine (Linux only)",
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return lab.Enter() },
	}
}
