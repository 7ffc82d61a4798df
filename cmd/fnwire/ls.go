package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

func newList(c *common) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the functions that have joined the job",
		Long: `List the functions that have joined the job: name, epoch (which grows with each new holder of the name) and
identity. ls itself does not join, so --name means nothing to it.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: c.run(func(cmd *cobra.Command, _ []string) error {
			ctx, cancel, err := c.context(cmd, lookTimeout)
			if err != nil {
				return err
			}
			defer cancel()
			members, err := c.members(ctx, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return c.printMembers(cmd.OutOrStdout(), members)
		}),
	}
}

// members asks the rendezvous who is there, without joining.
func (c *common) members(ctx context.Context, stderr io.Writer) ([]rendezvous.Member, error) {
	cfg, err := c.config(c.watcherName(), stderr)
	if err != nil {
		return nil, err
	}
	key, err := job.ParseKey(cfg.JobKey)
	if err != nil {
		return nil, err
	}
	id, err := ident.New()
	if err != nil {
		return nil, err
	}
	client, err := rendezvous.Dial(ctx, rendezvous.Config{
		URL: cfg.URL, Creds: cfg.Creds, Key: key, Identity: id, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.List(ctx)
}

func (c *common) printMembers(out io.Writer, members []rendezvous.Member) error {
	if c.json {
		for _, m := range members {
			if err := cli.PrintJSON(out, m); err != nil {
				return err
			}
		}
		return nil
	}
	if len(members) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tEPOCH\tIDENTITY")
	for _, m := range members {
		fmt.Fprintf(w, "%s\t%d\t%s\n", m.Name, m.Epoch, m.Peer)
	}
	return w.Flush()
}
