package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/report"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/suite"
	"github.com/fnwire/fnwire/internal/cli"
)

// everything is the name that stands for all experiments.
const everything = "all"

// runFlags are those of the run command.
type runFlags struct {
	out   string
	json  bool
	reps  int
	set   []string
	fault []string
	quick bool
	seed  uint64
}

func newRun() *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:   "run NAME --out DIR",
		Short: "Run an experiment, or all; appends to DIR/results.jsonl",
		Long: `Runs an experiment in a lab of its own and appends one line a measurement to DIR/results.jsonl. Measurements that
are there already, made by the same program with the same settings and seed, are not made again, but shown with the
others: so a run that was stopped goes on where it was. Ctrl-C leaves nothing behind but the results.

"all" is every experiment in turn, ` + about() + `.
One that fails does not stop the others; the exit code is 1 then. What cannot be measured because a program is missing
is left out, and named at the end with the command that installs it. --set is for those that have the setting, and
--set EXPERIMENT.NAME=VALUE for one.

Experiments and their settings (default, with --quick):
` + describe(),
		Example: `  experiments run all --quick --out out/all
  experiments run transfer --quick --out out/transfer
  experiments run faults --fault silent,relay-killed --reps 2 --out out/faults
  experiments run pairs --set nats=symmetric:port-restricted --reps 10 --out out/pairs
  experiments report out/transfer`,
		Args: cli.Args(cobra.ExactArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			names := []string{everything}
			for _, e := range suite.All() {
				names = append(names, e.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	c.Flags().StringVar(&f.out, "out", "", "directory for the results (required)")
	c.Flags().BoolVar(&f.quick, "quick", false, "a small version, mostly under a minute")
	c.Flags().BoolVar(&f.json, "json", false, "print each measurement as JSON, when it is stored, instead of a table at the end")
	c.Flags().Uint64Var(&f.seed, "seed", 1, "of whatever is random")
	c.Flags().IntVar(&f.reps, "reps", 0, "repetitions; 0 is the experiment's default")
	c.Flags().StringArrayVar(&f.set, "set", nil, "NAME=VALUE of a setting; may be repeated")
	c.Flags().StringSliceVar(&f.fault, "fault", nil, "of the experiment faults, these only; short for --set faults=NAME,...")
	return c
}

// about says how long all experiments take.
func about() string {
	var full, quick time.Duration
	for _, e := range suite.All() {
		full, quick = full+e.Takes(false), quick+e.Takes(true)
	}
	return fmt.Sprintf("about %.0f minutes on two cores, %.0f with --quick", full.Minutes(), quick.Minutes())
}

func describe() string {
	var b strings.Builder
	for _, e := range suite.All() {
		fmt.Fprintf(&b, "\n%s: %s\n", e.Name, e.Summary)
		for _, s := range e.Settings {
			quick := ""
			if s.Quick != "" {
				quick = ", " + s.Quick
			}
			fmt.Fprintf(&b, "    %-7s %s (%s%s)\n", s.Name, s.Help, s.Default, quick)
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

func (f *runFlags) run(cmd *cobra.Command, name string) (err error) {
	todo := suite.All()
	if name != everything {
		e, err := suite.Find(name)
		if err != nil {
			return cli.Usage(fmt.Errorf("%w, and %s", err, everything))
		}
		todo = []suite.Experiment{e}
	}
	if f.out == "" {
		return cli.Usage(errors.New("--out is required: the directory for the results"))
	}
	set, err := f.settings(todo)
	if err != nil {
		return err
	}
	if err := lab.Enter(); err != nil {
		return err
	}
	commit, program, err := results.ThisProgram()
	if err != nil {
		return err
	}
	w, err := results.Open(f.out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	p := newProgress(cmd.ErrOrStderr())
	k := &kept{w: w}
	o := suite.Options{
		Quick: f.quick, Seed: f.seed, Commit: commit, Program: program, Progress: p.show, Has: k.has, Before: w.Before(),
		Emit: func(r results.Record) error {
			if err := k.add(r); err != nil || !f.json {
				return err
			}
			p.clear()
			return cli.PrintJSON(cmd.OutOrStdout(), r)
		},
	}
	var summary []string
	if name == everything {
		summary, err = suite.RunAll(cmd.Context(), o, func(e suite.Experiment) map[string]string { return set[e.Name] })
	} else {
		o.Set = set[name]
		err = todo[0].Run(cmd.Context(), o)
	}
	p.clear()
	if errors.Is(err, suite.ErrSettings) {
		err = cli.Usage(err)
	}
	if !f.json && len(k.all) > 0 {
		err = errors.Join(err, report.WriteText(cmd.OutOrStdout(), k.all))
	}
	if k.before > 0 {
		summary = append(summary, fmt.Sprintf("%d of %d measurements were made before", k.before, len(k.all)))
	}
	for _, line := range summary {
		fmt.Fprintln(cmd.ErrOrStderr(), line)
	}
	return err
}

// kept is the measurements of a run: those that it makes, and those that were made before and that it does not make again.
type kept struct {
	w      *results.Writer
	all    []results.Record
	before int
}

func (k *kept) has(r results.Record) bool {
	found, ok := k.w.Find(r)
	if ok {
		k.all = append(k.all, found)
		k.before++
	}
	return ok
}

func (k *kept) add(r results.Record) error {
	k.all = append(k.all, r)
	return k.w.Write(r)
}

// settings returns what is set for each experiment of todo, by its name. NAME=VALUE is for all that have it, and there must be one;
// EXPERIMENT.NAME=VALUE for one.
func (f *runFlags) settings(todo []suite.Experiment) (map[string]map[string]string, error) {
	if f.reps < 0 {
		return nil, cli.Usage(fmt.Errorf("--reps %d: want 0 or more", f.reps))
	}
	var all []string
	if f.reps > 0 {
		all = append(all, fmt.Sprintf("reps=%d", f.reps))
	}
	if len(f.fault) > 0 {
		all = append(all, "faults="+strings.Join(f.fault, ","))
	}
	set := make(map[string]map[string]string)
	for _, s := range append(all, f.set...) {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, cli.Usage(fmt.Errorf("--set %q: want NAME=VALUE", s))
		}
		only, short, one := strings.Cut(name, ".")
		if !one {
			short = name
		}
		var has []string
		found := false
		for _, e := range todo {
			if one && e.Name != only {
				continue
			}
			for _, s := range e.Settings {
				if has = append(has, s.Name); s.Name == short {
					if set[e.Name] == nil {
						set[e.Name] = make(map[string]string)
					}
					set[e.Name][short], found = value, true
				}
			}
		}
		if !found {
			slices.Sort(has)
			return nil, cli.Usage(fmt.Errorf("--set %q: no experiment that is to run has it: there are %s", s, strings.Join(slices.Compact(has), ", ")))
		}
	}
	return set, nil
}

func newReport() *cobra.Command {
	var asJSON bool
	var readme string
	c := &cobra.Command{
		Use:   "report DIR",
		Short: "Make DIR/report.html, report.md and plots from DIR/results.jsonl",
		Long: `Makes DIR/report.html, one page that needs nothing else, and the same as DIR/report.md with its plots in DIR/plots, from
DIR/results.jsonl. They open with how fnwire compares with storage, and why not to trust that, and end with how to repeat it.`,
		Example: `  experiments report out/transfer
  experiments report --readme README.md experiments/results/DIR`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			made, err := report.Make(args[0])
			if err == nil && readme != "" {
				err = report.UpdateReadme(readme, args[0])
			}
			if err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), made)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), made.Page)
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the paths of what was made, as JSON")
	c.Flags().StringVar(&readme, "readme", "", "also renew the block of results in this Markdown file")
	return c
}
