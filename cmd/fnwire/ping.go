package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
)

// pingReport is what ping prints for each answer with --json. Times are in seconds.
type pingReport struct {
	OK     bool    `json:"ok"`
	Name   string  `json:"name"`
	Seq    int     `json:"seq"`
	RTT    float64 `json:"rtt_s"`
	Path   string  `json:"path"`   // direct, relay, or both while a direct path is in doubt
	Remote string  `json:"remote"` // the peer's address when direct, else the relay's ID
	Reason string  `json:"reason,omitempty"`
}

type pinger struct {
	*common
	count    int
	interval time.Duration
	path     string
}

func newPing(c *common) *cobra.Command {
	p := pinger{common: c}
	cmd := &cobra.Command{
		Use:   "ping NAME",
		Short: "Measure the way to a function",
		Long: `Link with a function, send it pings, and tell for each over what path it went, how long it took, and, while the
path is over a relay, why. --timeout holds for each ping; the first one includes the link.

ping joins as cli-<random> unless --name is given. FNWIRE_NAME is left to the function whose name it is.`,
		Args:              cli.Args(cobra.ExactArgs(1)),
		ValidArgsFunction: c.completeNames,
		RunE:              c.run(func(cmd *cobra.Command, args []string) error { return p.run(cmd, args[0]) }),
	}
	f := cmd.Flags()
	f.IntVarP(&p.count, "count", "c", 4, "number of pings, 0 for no end")
	f.DurationVarP(&p.interval, "interval", "i", time.Second, "time between them")
	f.StringVar(&p.path, "path", "auto", "auto, direct or relay: what ways the link may use")
	complete(cmd, "path", pathNames)
	return cmd
}

func (p *pinger) run(cmd *cobra.Command, name string) error {
	path, err := fnlib.ParsePath(p.path)
	switch {
	case err != nil:
		return cli.Usage(fmt.Errorf("--path: %w", err))
	case p.count < 0:
		return cli.Usage(fmt.Errorf("--count %d: want 0 or more", p.count))
	case p.interval < 0:
		return cli.Usage(fmt.Errorf("--interval %v: want 0 or more", p.interval))
	}
	if err := checkPeer(name, p.name); err != nil {
		return err
	}
	ctx, cancel, err := p.context(cmd, lookTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	node, err := p.watch(ctx, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer node.Close()
	for seq := 1; p.count == 0 || seq <= p.count; seq++ {
		if seq > 1 {
			if err := pause(cmd.Context(), p.interval); err != nil {
				return err
			}
		}
		if err := p.once(cmd, node, name, path, seq); err != nil {
			return err
		}
	}
	return nil
}

func (p *pinger) once(cmd *cobra.Command, node *fnlib.Node, name string, path fnlib.Path, seq int) error {
	ctx, cancel, err := p.context(cmd, lookTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	pong, err := node.Ping(ctx, name, path)
	if err != nil {
		return err
	}
	return p.print(cmd.OutOrStdout(), pingReport{
		OK: true, Name: name, Seq: seq, RTT: seconds(pong.RTT),
		Path: pong.Link.Path, Remote: pong.Link.Remote, Reason: pong.Link.Reason,
	}, pong.RTT)
}

func (p *pinger) print(out io.Writer, r pingReport, rtt time.Duration) error {
	if p.json {
		return cli.PrintJSON(out, r)
	}
	_, err := fmt.Fprintf(out, "%s: %v, %s %s%s\n", r.Name, short(rtt), r.Path, r.Remote, because(r.Path, r.Reason))
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
