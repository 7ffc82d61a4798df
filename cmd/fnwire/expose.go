package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
)

type exposer struct {
	tunnel
	service string
	target  string // HOST:PORT
}

func newExpose(c *common) *cobra.Command {
	e := exposer{tunnel: tunnel{common: c}}
	cmd := &cobra.Command{
		Use:   "expose --name NAME PORT|HOST:PORT",
		Short: "Let other functions connect to a TCP server",
		Long: `Join under a name and take connections of other functions to a service, by default called as the port is. For
each, expose connects to the TCP server at that port of this machine, or at HOST:PORT, and carries bytes both
ways. Only members of the job reach it: through fnwire forward, or Dial of package fnlib. Whoever connects
chooses the path.

A connection that fails is told of on standard error, and expose goes on until Ctrl-C. With --json it prints
events instead, one a line: ready, open, close.`,
		Example: `  fnwire expose --name B 5432                      # B:5432
  fnwire expose --name B --service db [::1]:5432    # B:db`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: c.run(func(cmd *cobra.Command, args []string) error { return e.run(cmd, args[0]) }),
	}
	cmd.Flags().StringVar(&e.service, "service", "", "service to take connections for (default PORT)")
	e.register(cmd, "the TCP server")
	return cmd
}

func (e *exposer) run(cmd *cobra.Command, target string) error {
	if err := e.check(); err != nil {
		return err
	}
	host, port, err := splitTarget(target)
	if err != nil {
		return cli.Usage(err)
	}
	e.target = net.JoinHostPort(host, port)
	e.service = cmp.Or(e.service, port)
	cfg, err := e.config(e.functionName(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if _, err := fnlib.SplitAddr(cfg.Name + ":" + e.service); err != nil {
		return cli.Usage(err)
	}
	ctx, cancel, err := e.context(cmd, 0)
	if err != nil {
		return err
	}
	defer cancel()
	e.out, e.logs = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if e.node, err = fnlib.Join(ctx, cfg); err != nil {
		return err
	}
	defer e.node.Close()
	l, err := e.node.Listen(e.service)
	if err != nil {
		return err
	}
	as := l.Addr().String()
	e.ready(tunnelEvent{Service: e.service, To: e.target}, fmt.Sprintf("exposing %s as %s", e.target, as))
	return e.serve(ctx, l, e.dial)
}

// splitTarget reads PORT or HOST:PORT. A port may have a name.
func splitTarget(s string) (host, port string, err error) {
	host, port = "localhost", s
	if _, nerr := strconv.Atoi(s); nerr != nil {
		if host, port, err = net.SplitHostPort(s); err != nil {
			return "", "", fmt.Errorf("%q: want PORT or HOST:PORT: %w", s, err)
		}
		host = cmp.Or(host, "localhost")
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n == 0 {
		return "", "", fmt.Errorf("%q: no such port: %s", s, port)
	}
	return host, port, nil
}

// dial is the side of an accepted connection that TCP is.
func (e *exposer) dial(ctx context.Context, accepted net.Conn) (*splice, error) {
	conn, ok := accepted.(*fnlib.Conn)
	if !ok {
		return nil, errors.New("not a connection of fnwire") // a Listener has no others
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", e.target)
	if err != nil {
		conn.Reset(resetRefused)
		return nil, &targetError{err}
	}
	return &splice{tcp: c.(*net.TCPConn), conn: conn}, nil // "tcp" gives nothing else
}

// targetError is kept whole, with the address.
type targetError struct{ err error }

func (e *targetError) Error() string { return e.err.Error() }
