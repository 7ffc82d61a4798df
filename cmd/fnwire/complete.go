package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
)

// completeTimeout bounds what a shell waits for when the user presses Tab.
const completeTimeout = 2 * time.Second

// complete has a flag's values completed.
func complete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic("fnwire: " + err.Error()) // only for a flag that does not exist
	}
}

// pathNames are the policies for the path of a link.
var pathNames = []cobra.Completion{"auto", "direct", "relay"}

// completeNames completes the name of a function that has joined; of none if the rendezvous does not tell.
func (c *common) completeNames(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if cmd.Name() == "ping" && len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	members, err := c.members(ctx, io.Discard)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]cobra.Completion, 0, len(members))
	for _, m := range members {
		names = append(names, m.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// checkPeer checks the name of somebody else.
func checkPeer(name, own string) error {
	if err := job.CheckName(name); err != nil {
		return cli.Usage(err)
	}
	if name == own {
		return cli.Usage(fmt.Errorf("%q is this command's own name: choose another --name", name))
	}
	return nil
}
