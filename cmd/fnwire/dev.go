package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
)

type dev struct {
	*common
	listen, relayListen, public string
	relays                      int
	https                       bool
}

// devReport is what dev prints with --json when it is ready.
type devReport struct {
	Ready  bool       `json:"ready"`
	URL    string     `json:"url"`
	Job    string     `json:"job"`
	JobKey string     `json:"job_key"`
	JobID  job.ID     `json:"job_id"`
	Relays []devRelay `json:"relays"`
	PID    int        `json:"pid"`
}

func newDev(c *common) *cobra.Command {
	d := dev{common: c}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a rendezvous and a relay for development",
		Long: `Run a rendezvous, with NATS in it, and a relay in one process, for one job. When both are ready dev prints the
environment to set in other shells, and runs until Ctrl-C. It logs on standard error.

Without --job-key and FNWIRE_JOB_KEY it makes a job key at each start. Nothing outlives it.`,
		Example: `  fnwire dev
  eval "$(fnwire dev &)"                               # in the background; prints no more than that
  fnwire dev --listen 0.0.0.0:4222 --relay-listen 0.0.0.0:3478 --public 203.0.113.7`,
		Args: cli.Args(cobra.NoArgs),
		RunE: c.run(func(cmd *cobra.Command, _ []string) error {
			return d.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	f := cmd.Flags()
	f.StringVar(&d.listen, "listen", "127.0.0.1:4222", "address of the rendezvous' NATS, HOST:PORT; port 0 is a free one")
	f.StringVar(&d.relayListen, "relay-listen", "", "UDP address of the relay, HOST:PORT, with the next port for STUN and those after for further relays\n(default the host of --listen and free ports)")
	f.StringVar(&d.public, "public", "", "address at which others reach this machine, if it is not that of --listen")
	f.BoolVar(&d.https, "https", false, "relays take WebSocket connections too, on free TCP ports, for functions whose UDP is blocked")
	f.IntVar(&d.relays, "relays", 1, "number of relays")
	return cmd
}

// run serves until ctx ends, which is how it is meant to end.
func (d *dev) run(ctx context.Context, stdout, stderr io.Writer) error {
	log, err := d.logger(stderr)
	if err != nil {
		return err
	}
	key := job.NewKey()
	if given := cmp.Or(d.jobKey, os.Getenv(fnlib.EnvJobKey)); given != "" {
		if key, err = job.ParseKey(given); err != nil {
			return cli.Usage(err)
		}
	}
	plan, err := d.plan(ctx)
	if err != nil {
		return cli.Usage(err)
	}
	s, err := startServers(ctx, plan, key.ID(), log)
	if err != nil {
		return err
	}
	defer s.stop()
	err = d.print(stdout, devReport{
		Ready: true, URL: s.url, Job: cmp.Or(d.job, os.Getenv(fnlib.EnvJob), "dev"),
		JobKey: key.Encode(), JobID: key.ID(), Relays: s.relays, PID: os.Getpid(),
	})
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// print shows the environment. A pipe is closed then, so that eval "$(fnwire dev &)" goes on.
func (d *dev) print(stdout io.Writer, r devReport) error {
	if d.json {
		if err := cli.PrintJSON(stdout, r); err != nil {
			return err
		}
	} else {
		var b strings.Builder
		for _, v := range [][2]string{{fnlib.EnvURL, r.URL}, {fnlib.EnvJob, r.Job}, {fnlib.EnvJobKey, r.JobKey}} {
			fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
		}
		fmt.Fprintf(&b, "# export %s=nats: # for states to wait here until their receiver comes\n", fnlib.EnvStore)
		fmt.Fprintf(&b, "# ready; process %d serves job %s until Ctrl-C or kill\n", r.PID, r.JobID)
		if _, err := io.WriteString(stdout, b.String()); err != nil {
			return err
		}
	}
	if f, ok := stdout.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeNamedPipe != 0 {
			return f.Close()
		}
	}
	return nil
}

// shellQuote makes s one word for a POSIX shell.
func shellQuote(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-+=/.:,@[]", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

var errRelays = errors.New("--relays: want 1 to 16")
