package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/holder"
	"github.com/fnwire/fnwire/internal/cli"
)

const (
	defaultLabName  = "default"
	answerTimeout   = 20 * time.Second // of a holder that should answer at once
	exitNotFound    = 127              // as shells have it
	exitNotRunnable = 126
)

// labFlags is what all lab commands have in common.
type labFlags struct {
	name string
	json bool
}

func newLab(exit *int) *cobra.Command {
	f := &labFlags{}
	c := &cobra.Command{
		Use:   "lab",
		Short: "Hosts behind NATs on this machine, to run any program in",
		Long: `Raises a small internet on this machine: public hosts, and hosts behind NATs, each a network namespace.
Works as root, and otherwise in a user namespace of its own. Nothing outside the lab is touched or reached.

` + lab.KindHelp,
		Example: `  experiments lab up --public hub --nat A=port-restricted,B=symmetric
  experiments lab exec hub -- fnwire dev
  experiments lab exec A -- fnwire netcheck
  experiments lab down`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.PersistentFlags().StringVar(&f.name, "name", defaultLabName, "name of the lab, to have more than one")
	c.PersistentFlags().BoolVar(&f.json, "json", false, "print JSON")
	c.AddCommand(newLabUp(f), newLabExec(f, exit), newLabStatus(f), newLabDown(f), newLabHold(f))
	return c
}

func newLabExec(f *labFlags, exit *int) *cobra.Command {
	c := &cobra.Command{
		Use:   "exec HOST -- COMMAND [ARG...]",
		Short: "Run a command on a host of the lab",
		Long: `Runs the command on a host of the lab with this command's standard input, output and error, environment and
working directory. Passes signals on to it, and ends with its exit code (128 + n if it was killed by signal n).`,
		Args: cli.Args(func(_ *cobra.Command, args []string) error {
			if _, command := splitExec(args); len(command) == 0 {
				return errors.New("want HOST -- COMMAND [ARG...]")
			}
			return nil
		}),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return hostNames(cmd.Context(), f), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			host, command := splitExec(args)
			code, err := f.exec(host, command)
			*exit = code
			return err
		},
	}
	c.Flags().SetInterspersed(false) // flags after HOST are the command's
	return c
}

func splitExec(args []string) (host string, command []string) {
	if len(args) == 0 {
		return "", nil
	}
	host, command = args[0], args[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	return host, command
}

func (f *labFlags) exec(host string, command []string) (int, error) {
	socket, err := f.socket()
	if err != nil {
		return 0, err
	}
	path, err := exec.LookPath(command[0])
	switch {
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(os.Stderr, "experiments: %v\n", err)
		return exitNotFound, nil
	case err != nil && !errors.Is(err, exec.ErrDot):
		fmt.Fprintf(os.Stderr, "experiments: %v\n", err)
		return exitNotRunnable, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT)
	defer signal.Stop(signals)
	// Not the command's context: a signal is for the program in the lab, which says when it is over.
	code, err := holder.Exec(context.Background(), socket,
		holder.Command{Host: host, Path: path, Args: command, Env: os.Environ(), Dir: dir},
		[3]*os.File{os.Stdin, os.Stdout, os.Stderr}, signals)
	return code, f.explain(err)
}

func newLabStatus(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Print the hosts of the lab; fails if it is not up",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := f.status(cmd.Context())
			if err != nil {
				return err
			}
			return f.print(cmd.OutOrStdout(), info)
		},
	}
}

func newLabDown(f *labFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take the lab down, with all that runs in it",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			socket, err := f.socket()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), answerTimeout)
			defer cancel()
			info, err := holder.Down(ctx, socket)
			if err != nil {
				return f.explain(err)
			}
			if f.json {
				return f.print(cmd.OutOrStdout(), info)
			}
			return nil
		},
	}
}

func (f *labFlags) socket() (string, error) {
	if err := lab.CheckName(f.name); err != nil {
		return "", cli.Usage(fmt.Errorf("--name: %w", err))
	}
	return holder.Socket(f.name)
}

func (f *labFlags) status(ctx context.Context) (holder.Info, error) {
	socket, err := f.socket()
	if err != nil {
		return holder.Info{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	info, err := holder.Status(ctx, socket)
	return info, f.explain(err)
}

func hostNames(ctx context.Context, f *labFlags) []string {
	info, err := f.status(ctx)
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(info.Hosts))
	for _, h := range info.Hosts {
		names = append(names, h.Name)
	}
	return names
}

// explain says what to type when there is no lab, or one too many.
func (f *labFlags) explain(err error) error {
	name := ""
	if f.name != defaultLabName {
		name = " --name " + f.name
	}
	switch {
	case errors.Is(err, holder.ErrDown):
		return fmt.Errorf("%w: raise one with: experiments lab up%s --nat A=KIND,B=KIND", err, name)
	case errors.Is(err, holder.ErrInUse):
		return fmt.Errorf("%w: take it down with: experiments lab down%s, or give another --name", err, name)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the lab did not answer within %v", answerTimeout)
	}
	return err
}

func (f *labFlags) print(w io.Writer, info holder.Info) error {
	if f.json {
		return cli.PrintJSON(w, info)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HOST\tNAT\tADDRESS\tPUBLIC ADDRESS")
	for _, h := range info.Hosts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", h.Name, h.NAT, h.Addr, h.PublicAddr)
	}
	return t.Flush()
}
