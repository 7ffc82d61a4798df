package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fnwire/fnwire/experiments/demo"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
	"github.com/fnwire/fnwire/internal/cli"
)

func newDemo() *cobra.Command {
	var asJSON bool
	var nat, sizes string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Two functions behind two NATs hand over real state; prints one table",
		Long: `Raises a lab with a rendezvous and a relay on a public host and two functions behind two NATs, and hands over states:
directly, by relay only, as fnwire does by default (over the relay at once, directly as soon as possible), and
through an object store (NATS') for comparison. Leaves nothing behind, also after Ctrl-C.`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := demo.Config{}
			for s := range strings.SplitSeq(sizes, ",") {
				n, err := workload.ParseBytes(s)
				if err == nil && n < 1 {
					err = fmt.Errorf("%q: want 1 B or more", s)
				}
				if err != nil {
					return cli.Usage(fmt.Errorf("--sizes: %w", err))
				}
				cfg.Sizes = append(cfg.Sizes, n)
			}
			var err error
			if cfg.NAT, err = lab.ParseKind(nat); err != nil {
				return cli.Usage(fmt.Errorf("--nat: %w", err))
			}
			if err := lab.Enter(); err != nil {
				return err
			}
			p := newProgress(cmd.ErrOrStderr())
			cfg.Progress = p.show
			res, err := demo.Run(cmd.Context(), cfg)
			p.clear()
			if err != nil {
				return err
			}
			if asJSON {
				err = cli.PrintJSON(cmd.OutOrStdout(), res)
			} else {
				err = res.Print(cmd.OutOrStdout())
			}
			if failed := res.Failed(); failed != "" {
				return errors.New(failed)
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&nat, "nat", string(lab.PortRestricted), "NAT of both functions: "+kindNames())
	c.Flags().StringVar(&sizes, "sizes", "1KiB,1MiB,64MiB", "sizes of the states")
	return c
}

func kindNames() string {
	names := make([]string, 0, len(lab.Kinds()))
	for _, k := range lab.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// newWorker is what the processes in a lab run.
func newWorker() *cobra.Command {
	roles := make([]string, 0, len(worker.Roles()))
	for _, r := range worker.Roles() {
		roles = append(roles, string(r))
	}
	return &cobra.Command{
		Use:       world.WorkerCommand + " ROLE",
		Short:     "A process of an experiment, told by another what to do",
		Hidden:    true,
		ValidArgs: roles,
		Args:      cli.Args(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return worker.Run(cmd.Context(), worker.Role(args[0]), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// progress is a line on standard error: overwritten if that is a terminal, one below the other if not.
type progress struct {
	w        io.Writer
	terminal bool
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w, ok && term.IsTerminal(int(f.Fd()))}
}

func (p *progress) show(message string) {
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", message)
		return
	}
	fmt.Fprintln(p.w, message)
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
