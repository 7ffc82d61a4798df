package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/natsobj"
	"github.com/fnwire/fnwire/fnlib/store/open"
	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

// lookTimeout is how long commands that only look wait, unless --timeout says otherwise.
const lookTimeout = 10 * time.Second

// common are the flags that all commands take.
type common struct {
	url, creds, job, jobKey, name string

	store string // of commands with storeFlag

	json, verbose bool
	portMap       bool
	timeout       time.Duration
	logLevel      string

	jsonErrors io.Writer // where --json tells of a failure; nil is standard output
}

func (c *common) register(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&c.url, "url", "", "NATS servers of the rendezvous, separated by commas (env FNWIRE_URL)")
	f.StringVar(&c.creds, "creds", "", "NATS credentials file (env FNWIRE_CREDS)")
	f.StringVar(&c.job, "job", "", "label of the job, for people only (env FNWIRE_JOB)")
	f.StringVar(&c.jobKey, "job-key", "", "job key; others see it in the list of processes, so prefer env FNWIRE_JOB_KEY")
	f.StringVar(&c.name, "name", "", "name to join under (env FNWIRE_NAME)")
	f.BoolVar(&c.portMap, "portmap", false, "ask the router for a port, by PCP, NAT-PMP or UPnP (env FNWIRE_PORTMAP=1)")
	f.BoolVar(&c.json, "json", false, "print results as JSON, one object a line")
	f.DurationVar(&c.timeout, "timeout", 0, "give up after this long, 0 never (default 10s for ping, ls and netcheck, else 0)")
	f.StringVar(&c.logLevel, "log-level", "warn", "log on stderr: debug, info, warn or error")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "tell more on stderr; means --log-level debug")
}

func (c *common) logger(w io.Writer) (*slog.Logger, error) {
	level := c.logLevel
	if c.verbose {
		level = "debug"
	}
	return cli.Logger(w, level, c.json)
}

// context bounds a command that takes at most def, 0 being forever, unless --timeout says otherwise.
func (c *common) context(cmd *cobra.Command, def time.Duration) (context.Context, context.CancelFunc, error) {
	if cmd.Flags().Changed("timeout") {
		def = c.timeout
	}
	if def < 0 {
		return nil, nil, cli.Usage(fmt.Errorf("--timeout %v: want 0 or more", def))
	}
	c.timeout = def
	if def == 0 {
		ctx, cancel := context.WithCancel(cmd.Context())
		return ctx, cancel, nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), def)
	return ctx, cancel, nil
}

// config merges flags and environment. What is missing or malformed is the caller's mistake.
func (c *common) config(name string, stderr io.Writer) (fnlib.Config, error) {
	cfg := fnlib.FromEnv()
	cfg.URL, cfg.Creds = cmp.Or(c.url, cfg.URL), cmp.Or(c.creds, cfg.Creds)
	cfg.Job, cfg.JobKey = cmp.Or(c.job, cfg.Job), cmp.Or(c.jobKey, cfg.JobKey)
	cfg.Name, cfg.PortMap = name, cfg.PortMap || c.portMap
	switch {
	case cfg.URL == "":
		return cfg, cli.Usage(errors.New("no rendezvous: set FNWIRE_URL or --url (`fnwire dev` starts one and prints it)"))
	case cfg.JobKey == "":
		return cfg, cli.Usage(errors.New("no job key: set FNWIRE_JOB_KEY (`fnwire dev` and `fnwire keygen` print one)"))
	}
	if err := rendezvous.CheckURL(cfg.URL); err != nil {
		return cfg, cli.Usage(err)
	}
	if _, err := job.ParseKey(cfg.JobKey); err != nil {
		return cfg, cli.Usage(err)
	}
	if err := job.CheckName(name); err != nil {
		return cfg, cli.Usage(err)
	}
	if cfg.Creds != "" {
		if _, err := os.Stat(cfg.Creds); err != nil {
			return cfg, cli.Usage(fmt.Errorf("NATS credentials: %w", err))
		}
	}
	var err error
	cfg.Logger, err = c.logger(stderr)
	return cfg, err
}

// storeFlag gives a command that moves states the flag --store.
func (c *common) storeFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.store, "store", "", "URL of the store for states whose receiver is not there (env FNWIRE_STORE)")
}

func (c *common) storeURL() string { return cmp.Or(c.store, os.Getenv(fnlib.EnvStore)) }

// openStore returns nil if there is none.
func (c *common) openStore(ctx context.Context) (store.Store, error) {
	url := c.storeURL()
	if url == "" {
		return nil, nil
	}
	var s store.Store
	var err error
	if cfg := fnlib.FromEnv(); url == natsobj.OfRendezvous { // which flags may name
		s, err = natsobj.OpenRendezvous(ctx, natsobj.Rendezvous{
			URL: cmp.Or(c.url, cfg.URL), Creds: cmp.Or(c.creds, cfg.Creds), JobKey: cmp.Or(c.jobKey, cfg.JobKey),
		})
	} else {
		if s, err = open.URL(ctx, url); errors.Is(err, rendezvous.ErrUnreachable) {
			return nil, fmt.Errorf("%w: %w", errStoreAway, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--store: %w", err)
	}
	return s, nil
}

// errStoreAway is that of a NATS server that is not the rendezvous.
var errStoreAway = errors.New("--store")

func closeStore(s store.Store) {
	if s != nil {
		_ = s.Close() // what it was asked for, it has told of
	}
}

// functionName is the name of a function: a flag or the environment gives it, or it is "".
func (c *common) functionName() string { return cmp.Or(c.name, os.Getenv(fnlib.EnvName)) }

// watcherName is the name of a command that only looks. The environment's name is left alone, for
// it belongs to a function, from which the command would take it.
func (c *common) watcherName() string { return cmp.Or(c.name, randomName()) }

func randomName() string { return "cli-" + strings.ToLower(rand.Text()[:8]) }

// join is fnlib.Join for a command that only looks: it never takes a name from a function.
func (c *common) watch(ctx context.Context, stderr io.Writer) (*fnlib.Node, error) {
	cfg, err := c.config(c.watcherName(), stderr)
	if err != nil {
		return nil, err
	}
	cfg.Exclusive = true
	return fnlib.Join(ctx, cfg)
}

// terminal tells whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// failure is what a command that fails prints last with --json.
type failure struct {
	OK    bool   `json:"ok"` // false
	Error string `json:"error"`
}

// run wraps what a command does, so that its error is one line which tells cause and remedy.
func (c *common) run(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		if err == nil {
			return nil
		}
		if cerr := cmd.Context().Err(); cerr != nil {
			c.tell(cmd, "interrupted")
			return cerr // a signal; what it broke off is no news
		}
		err = c.explain(err)
		c.tell(cmd, err.Error())
		return err
	}
}

// tell prints a failure with --json.
func (c *common) tell(cmd *cobra.Command, text string) {
	if !c.json {
		return
	}
	out := c.jsonErrors
	if out == nil {
		out = cmd.OutOrStdout()
	}
	_ = cli.PrintJSON(out, failure{Error: text}) // standard error tells as well
}

// tellUsage has what is wrong with a command's flags and arguments told too, which cobra finds before it runs the command.
func (c *common) tellUsage(root *cobra.Command) {
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		c.json = c.json || slices.Contains(os.Args, "--json") // which may stand after the wrong flag
		c.tell(cmd, err.Error())
		return err
	})
	for _, cmd := range append(root.Commands(), root) {
		check := cmd.Args
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err != nil {
				c.tell(cmd, err.Error())
			}
			return err
		}
	}
}
