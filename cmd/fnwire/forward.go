package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
)

type forwarder struct {
	tunnel
	listen, to, pathName string
	path                 fnlib.Path
}

func newForward(c *common) *cobra.Command {
	f := forwarder{tunnel: tunnel{common: c}}
	cmd := &cobra.Command{
		Use:   "forward --name NAME --listen [HOST:]PORT --to NAME:SERVICE",
		Short: "Connect TCP programs to another function's service",
		Long: `Join under a name and listen for TCP connections on this machine. For each, forward connects to a service of
another function, such as fnwire expose or Listen of package fnlib offers, and carries bytes both ways. If
nobody holds that name yet, a connection waits as long as --dial-timeout says.

A connection that fails is reset and told of on standard error, and forward goes on until Ctrl-C. With --json it
prints events instead, one a line: ready, open, close.`,
		Example: `  fnwire forward --name A --listen 5432 --to B:5432       # on 127.0.0.1
  fnwire forward --name A --listen [::1]:0 --to B:db       # on a free port, which it prints`,
		Args: cli.Args(cobra.NoArgs),
		RunE: c.run(func(cmd *cobra.Command, _ []string) error { return f.run(cmd) }),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "", "PORT of 127.0.0.1 or HOST:PORT to listen on, [HOST]:PORT for IPv6, :PORT for all addresses; port 0 is a free one")
	fl.StringVar(&f.to, "to", "", "NAME:SERVICE to connect to; NAME alone is its service \"default\"")
	fl.StringVar(&f.pathName, "path", "auto", "auto: relay first, direct as soon as possible; direct: never a relay; relay: never direct")
	f.register(cmd, "the other function")
	complete(cmd, "to", c.completeNames)
	complete(cmd, "path", cobra.FixedCompletions(pathNames, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f *forwarder) run(cmd *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	var err error
	if f.path, err = fnlib.ParsePath(f.pathName); err != nil {
		return cli.Usage(fmt.Errorf("--path: %w", err))
	}
	switch {
	case f.listen == "":
		return cli.Usage(errors.New("listen where? give --listen PORT or HOST:PORT"))
	case f.to == "":
		return cli.Usage(errors.New("to whom? give --to NAME:SERVICE"))
	}
	if _, nerr := strconv.Atoi(f.listen); nerr == nil {
		f.listen = "127.0.0.1:" + f.listen
	}
	cfg, err := f.config(f.functionName(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	to, err := fnlib.SplitAddr(f.to)
	if err != nil {
		return cli.Usage(fmt.Errorf("--to: %w", err))
	}
	if err := checkPeer(to.Name, cfg.Name); err != nil {
		return err
	}
	ctx, cancel, err := f.context(cmd, 0)
	if err != nil {
		return err
	}
	defer cancel()
	f.out, f.logs = cmd.OutOrStdout(), cmd.ErrOrStderr()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		var wrong *net.AddrError
		if errors.As(err, &wrong) {
			return cli.Usage(fmt.Errorf("--listen %s: want PORT or HOST:PORT: %w", f.listen, err))
		}
		return fmt.Errorf("--listen: %w", err)
	}
	defer l.Close()
	if f.node, err = fnlib.Join(ctx, cfg); err != nil {
		return err
	}
	defer f.node.Close()
	f.ready(tunnelEvent{Listen: l.Addr().String(), To: to.String()}, fmt.Sprintf("forwarding %s to %s", l.Addr(), to))
	return f.serve(ctx, l, f.dial)
}

// dial is the side of an accepted connection that the other function is.
func (f *forwarder) dial(ctx context.Context, accepted net.Conn) (*splice, error) {
	c, ok := accepted.(*net.TCPConn)
	if !ok {
		return nil, errors.New("not a TCP connection") // "tcp" accepts no others
	}
	conn, err := f.node.DialPath(ctx, f.to, f.path)
	if err != nil {
		resetTCP(c)
		return nil, err
	}
	return &splice{tcp: c, conn: conn}, nil
}
