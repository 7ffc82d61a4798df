package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/transport"
)

// pingReport is what ping prints for each answer with --json. Times are in seconds.
type pingReport struct {
	OK     bool    `json:"ok"`
	Name   string  `json:"name"`
	Seq    int     `json:"seq"`
	RTT    float64 `json:"rtt_s"`
	Path   string  `json:"path"`          // direct, relay, or both while a direct path is in doubt
	Remote string  `json:"remote"`        // the peer's address when direct, else the relay's ID
	Why    string  `json:"why,omitempty"` // it is relayed, in a word: see transport.Why
	Reason string  `json:"reason,omitempty"`
}

// pingSummary is the last that ping prints with --json. Times are in seconds.
type pingSummary struct {
	OK      bool    `json:"ok"`
	Summary bool    `json:"summary"` // true
	Name    string  `json:"name"`
	Count   int     `json:"count"`
	Min     float64 `json:"min_s"`
	Median  float64 `json:"p50_s"`
	P95     float64 `json:"p95_s"`
	Max     float64 `json:"max_s"`
	Path    string  `json:"path"` // of the last answer, as what follows
	Remote  string  `json:"remote"`
	Why     string  `json:"why,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	NAT     string  `json:"nat"`
	PeerNAT string  `json:"peer_nat"`
}

type pinger struct {
	*common
	count    int
	interval time.Duration
	path     string

	rtts []time.Duration // the last maxRTTs
	seen int
	last transport.Status
}

// maxRTTs bounds what percentiles are taken of when ping goes on for days.
const maxRTTs = 10000

func newPing(c *common) *cobra.Command {
	p := pinger{common: c}
	cmd := &cobra.Command{
		Use:   "ping NAME",
		Short: "Measure the way to a function",
		Long: `Link with a function, send it pings, and tell for each over what path it went, how long it took, and, while the
path is over a relay, why. At the end, or at Ctrl-C, ping sums up. --timeout holds for each ping; the first one includes the link.

ping joins as cli-<random> unless --name is given. FNWIRE_NAME is left to the function whose name it is.`,
		Args:              cli.Args(cobra.ExactArgs(1)),
		ValidArgsFunction: c.completeNames,
		RunE:              c.run(func(cmd *cobra.Command, args []string) error { return p.run(cmd, args[0]) }),
	}
	f := cmd.Flags()
	f.IntVarP(&p.count, "count", "c", 4, "number of pings, 0 for no end")
	f.DurationVarP(&p.interval, "interval", "i", time.Second, "time between them")
	f.StringVar(&p.path, "path", "auto", "auto, direct or relay: what ways the link may use")
	complete(cmd, "path", cobra.FixedCompletions(pathNames, cobra.ShellCompDirectiveNoFileComp))
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
	err = p.repeat(cmd, node, name, path)
	if p.seen == 0 {
		return err
	}
	if serr := p.summarize(cmd.OutOrStdout(), name); err == nil {
		err = serr
	}
	if p.count == 0 && cmd.Context().Err() != nil {
		return nil // that is how it was meant to end
	}
	return err
}

func (p *pinger) repeat(cmd *cobra.Command, node *fnlib.Node, name string, path fnlib.Path) error {
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
	p.last = pong.Link
	if len(p.rtts) < maxRTTs {
		p.rtts = append(p.rtts, pong.RTT)
	} else {
		p.rtts[p.seen%maxRTTs] = pong.RTT
	}
	p.seen++
	return p.print(cmd.OutOrStdout(), pingReport{
		OK: true, Name: name, Seq: seq, RTT: seconds(pong.RTT),
		Path: pong.Link.Path, Remote: pong.Link.Remote,
		Why: string(pong.Link.Why), Reason: pong.Link.Reason,
	}, pong.RTT)
}

func (p *pinger) summarize(out io.Writer, name string) error {
	slices.Sort(p.rtts)
	// at is the nearest rank, so that each figure is one that was measured.
	at := func(percent int) time.Duration { return p.rtts[max((len(p.rtts)*percent+99)/100, 1)-1] }
	l := p.last
	if p.json {
		return cli.PrintJSON(out, pingSummary{
			OK: true, Summary: true, Name: name, Count: p.seen,
			Min: seconds(p.rtts[0]), Median: seconds(at(50)), P95: seconds(at(95)), Max: seconds(at(100)),
			Path: l.Path, Remote: l.Remote, Why: string(l.Why), Reason: l.Reason, NAT: l.NAT, PeerNAT: l.PeerNAT,
		})
	}
	_, err := fmt.Fprintf(out, "%s: %d pings, RTT min %v, median %v, 95%% %v, max %v; %s %s%s\n", name, p.seen,
		short(p.rtts[0]), short(at(50)), short(at(95)), short(at(100)), l.Path, l.Remote, because(l.Path, l.Reason))
	if err == nil && l.Path != "direct" {
		_, err = fmt.Fprintf(out, "%s: NAT here: %s; there: %s\n", name, printable(l.NAT), printable(l.PeerNAT))
	}
	return err
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
