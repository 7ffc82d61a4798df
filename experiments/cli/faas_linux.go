package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/experiments/faas"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/holder"
	"github.com/fnwire/fnwire/internal/cli"
)

// Where the platform is, in its lab.
const (
	platformHost = "public"
	platformPort = 9000
)

type faasFlags struct {
	labFlags
	functions, logs, records, logLevel string
	nats                               []string
	hosts                              int
	idle, lifetime                     time.Duration
	seed                               uint64
}

// platformInfo is what the command says when the platform is up.
type platformInfo struct {
	holder.Info
	Endpoint  string   `json:"endpoint"`
	Functions []string `json:"functions"`
}

func newFaas() *cobra.Command {
	f := &faasFlags{}
	c := &cobra.Command{
		Use:   "faas --functions DIR",
		Short: "A function platform in a lab, for your own functions",
		Long: `Raises a lab in the foreground with a function platform that is like AWS Lambda, until Ctrl-C or "lab down". Every directory in DIR
with a program "bootstrap", built for Lambda's runtime provided.al2023, is a function; a file function.json beside it may set
memory_mb, timeout, env, concurrency, nat and no_freeze. Instances run on hosts of their own, each behind a NAT; they are frozen while they wait.
AWS SDKs and the AWS CLI invoke functions from any host of the lab, at the endpoint that is printed.

At the end it prints what each function has used. --records keeps a line of JSON for every invocation and every instance's end:
cold, warm or thawed start, times, memory, bill, and why an instance has ended.

` + lab.KindHelp,
		Example: `  go build -o functions/echo/bootstrap ./experiments/faas/echo
  experiments faas --functions functions --nat port-restricted,symmetric --hosts 8 --records records.jsonl
  experiments lab exec public -- curl -d '{"echo": "hello"}' http://198.51.100.2:9000/2015-03-31/functions/echo/invocations
  experiments lab exec public -- aws lambda invoke --endpoint-url http://198.51.100.2:9000 --function-name echo out.json`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	c.Flags().StringVar(&f.functions, "functions", "", "directory with a directory for each function (required)")
	c.Flags().IntVar(&f.hosts, "hosts", 4, "hosts for instances: how many may run at once")
	c.Flags().StringSliceVar(&f.nats, "nat", []string{string(lab.PortRestricted)}, "kinds of the hosts' NATs, in turn: KIND,...")
	c.Flags().DurationVar(&f.idle, "idle", 10*time.Minute, "reclaim instances that have waited so long")
	c.Flags().DurationVar(&f.lifetime, "lifetime", 0, "reclaim instances at random, at this age on average; 0: not")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "of what is random")
	c.Flags().StringVar(&f.records, "records", "", "file for the records; it must not exist")
	c.Flags().StringVar(&f.logs, "logs", "", "directory for the functions' logs, as FUNCTION/INSTANCE.log")
	c.Flags().StringVar(&f.logLevel, "log-level", "warn", "debug, info (every invocation), warn or error")
	c.Flags().StringVar(&f.name, "name", defaultLabName, "name of the lab, to have more than one")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

// spec is the platform's lab.
func (f *faasFlags) spec() (spec lab.Spec, pool []string, err error) {
	if f.functions == "" {
		return spec, nil, errors.New("--functions: want the directory that holds them")
	}
	if f.hosts < 1 || len(f.nats) == 0 {
		return spec, nil, errors.New("--hosts, --nat: want at least one")
	}
	spec.Hosts = []lab.Host{{Name: platformHost}}
	for i := range min(f.hosts, lab.MaxHosts) { // one too many is told by Check
		name := fmt.Sprint("f", i+1)
		pool = append(pool, name)
		spec.Hosts = append(spec.Hosts, lab.Host{Name: name, NAT: lab.Kind(f.nats[i%len(f.nats)])})
	}
	return spec, pool, spec.Check()
}

func (f *faasFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	spec, pool, err := f.spec()
	if err != nil {
		return cli.Usage(err)
	}
	socket, err := f.socket()
	if err != nil {
		return err
	}
	logger, err := cli.Logger(stderr, f.logLevel, f.json)
	if err != nil {
		return cli.Usage(err)
	}
	functions, err := faas.Load(f.functions)
	if err != nil {
		return err
	}
	if err := lab.Enter(); err != nil {
		return err
	}
	ln, err := holder.Listen(socket)
	if err != nil {
		return f.explain(err)
	}
	defer holder.Cleanup(socket)
	defer ln.Close()
	record, closeRecords, err := f.openRecords()
	if err != nil {
		return err
	}
	l, err := lab.New(ctx, spec)
	if err != nil {
		return errors.Join(err, closeRecords())
	}
	p, err := faas.New(faas.Config{
		Lab: l, Hosts: pool, Functions: functions, Idle: f.idle, Lifetime: f.lifetime, Seed: f.seed, LogDir: f.logs, Record: record, Logger: logger,
	})
	if err == nil {
		err = f.serve(ctx, p, l, ln, stdout)
	}
	return errors.Join(err, l.Close(), closeRecords())
}

// serve has the platform and its lab be there for others until ctx ends or the lab is taken down.
func (f *faasFlags) serve(ctx context.Context, p *faas.Platform, l *lab.Lab, ln *net.UnixListener, stdout io.Writer) error {
	endpoint := fmt.Sprintf("%v:%d", l.Addr(platformHost), platformPort)
	var api net.Listener
	if err := l.Do(platformHost, func() (err error) { api, err = net.Listen("tcp4", endpoint); return err }); err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	holding, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	go func() {
		served <- p.Serve(serving, api)
		release() // the platform ends before its lab does
	}()
	info := platformInfo{Info: holder.Info{Name: f.name, Pid: os.Getpid(), Hosts: l.Hosts()}, Endpoint: "http://" + endpoint, Functions: p.Functions()}
	err := f.tell(stdout, info)
	if err == nil {
		err = holder.Serve(holding, ln, l, f.name)
	}
	stop()
	return errors.Join(err, <-served, f.total(stdout, p.Totals()))
}

func (f *faasFlags) openRecords() (record func(faas.Record), done func() error, err error) {
	if f.records == "" {
		return nil, func() error { return nil }, nil
	}
	file, err := os.OpenFile(f.records, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, nil, err
	}
	var failed error // written by the platform, which is closed before done is called
	return faas.Lines(file, func(err error) { failed = err }), func() error { return errors.Join(failed, file.Close()) }, nil
}

func (f *faasFlags) tell(w io.Writer, info platformInfo) error {
	if f.json {
		return cli.PrintJSON(w, info)
	}
	if err := f.print(w, info.Info); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "functions %v at %s\n", info.Functions, info.Endpoint)
	return err
}

// total prints what functions have used.
func (f *faasFlags) total(w io.Writer, totals map[string]faas.Totals) error {
	if f.json {
		return cli.PrintJSON(w, map[string]any{"totals": totals})
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FUNCTION\tREQUESTS\tCOLD\tERRORS\tTHROTTLED\tBILLED MS\tGB-S")
	names := make([]string, 0, len(totals))
	for name := range totals {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		u := totals[name]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%.6f\n", name, u.Requests, u.Cold, u.Errors, u.Throttled, u.BilledMS, u.GBSeconds)
	}
	return t.Flush()
}
