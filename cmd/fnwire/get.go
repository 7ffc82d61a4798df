package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
)

// getReport is what get prints with --json. Times are in seconds.
type getReport struct {
	OK      bool             `json:"ok"`
	Bytes   int64            `json:"bytes"`
	Digest  string           `json:"digest"` // SHA-256
	From    map[string]int64 `json:"from"`   // bytes, by holder and by store
	Path    string           `json:"path"`   // at the end: direct, relay, both while a direct path is in doubt, or store
	Seconds float64          `json:"seconds"`
	File    string           `json:"file"`
}

type getter struct {
	*common
	path string
	hold bool
}

func newGet(c *common) *cobra.Command {
	g := getter{common: c}
	cmd := &cobra.Command{
		Use:   "get REF [FILE|-]",
		Short: "Get the state that a ref stands for",
		Long: `Get the state that fnwire put, or Put of package fnlib, has printed a ref to: from all functions that hold it at
once, or from the store that --store, or FNWIRE_STORE, names. FILE is replaced when the state is complete. Without FILE
the state goes to standard output as it comes, each piece checked before, and the report to standard error: there the
exit code tells whether what was written is whole.

With --hold get keeps the state for others too, and prints another ref, by which they get it from here as well; it goes
on as fnwire put does.`,
		Example: `  fnwire get "$REF" copy.parquet
  fnwire get "$REF" | tar x
  fnwire get --hold "$REF" copy.parquet`,
		Args: cli.Args(cobra.RangeArgs(1, 2)),
		RunE: c.run(func(cmd *cobra.Command, args []string) error {
			return g.run(cmd, fnlib.Ref(strings.TrimSpace(args[0])), append(args[1:], "-")[0])
		}),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveDefault // a file
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := cmd.Flags()
	f.StringVar(&g.path, "path", "auto", "auto: relay first, direct as soon as possible; direct: never a relay; relay: never direct")
	f.BoolVar(&g.hold, "hold", false, "keep the state for others, and print a ref that says so")
	c.storeFlag(cmd)
	complete(cmd, "path", cobra.FixedCompletions(pathNames, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (g *getter) run(cmd *cobra.Command, ref fnlib.Ref, file string) error {
	path, err := fnlib.ParsePath(g.path)
	if err != nil {
		return cli.Usage(fmt.Errorf("--path: %w", err))
	}
	cfg, err := g.config(g.watcherName(), cmd.ErrOrStderr()) // the environment's name may be that of the holder
	if err != nil {
		return err
	}
	ctx, cancel, err := g.context(cmd, 0)
	if err != nil {
		return err
	}
	defer cancel()
	out, err := openSink(ctx, file, cmd.OutOrStdout(), true)
	if err != nil {
		return wrongOut(ctx, err)
	}
	defer out.close()
	if d, ok := out.(*dirSink); ok && d.file == "" {
		return cli.Usage(fmt.Errorf("%s is a directory: name a file in it", file))
	}
	if cfg.Store, err = g.openStore(ctx); err != nil {
		return err
	}
	defer closeStore(cfg.Store)
	k := keeping{common: g.common, out: cmd.OutOrStdout(), notes: cmd.ErrOrStderr(), spills: cfg.Store != nil}
	if file == "-" {
		k.out, g.jsonErrors = k.notes, k.notes
		signal.Ignore(syscall.SIGPIPE)
	}
	if k.node, err = fnlib.Join(ctx, cfg); err != nil {
		return err
	}
	defer k.node.Close()
	t, err := out.begin("")
	if err != nil {
		return err
	}
	if ref, err = g.get(ctx, &k, ref, t, path); err != nil || !g.hold {
		return err
	}
	return k.keep(ctx, ref)
}

// get writes the state to t, which it ends.
func (g *getter) get(ctx context.Context, k *keeping, ref fnlib.Ref, t target, path fnlib.Path) (fnlib.Ref, error) {
	began := time.Now()
	show := newProgress(k.notes, false)
	show.wait("looking for the state")
	defer show.clear()
	got, err := k.node.Get(ctx, ref, fnlib.GetOptions{Path: path, Hold: g.hold})
	if err != nil {
		t.abort()
		return "", err
	}
	defer got.Close()
	m := show.start("state", "get", got.Size)
	h := sha256.New()
	readErr, writeErr := pump(io.MultiWriter(t, h), got, m)
	m.done()
	if err := errors.Join(readErr, writeErr); err != nil {
		t.abort()
		if !t.undone() {
			err = fmt.Errorf("%w; what was written is not whole", err)
		}
		return "", err
	}
	where, err := t.commit()
	if err != nil {
		return "", err
	}
	if g.hold {
		if ref, err = got.Ref(); err != nil {
			return "", err
		}
	}
	show.clear()
	return ref, g.report(k.out, getReport{
		OK: true, Bytes: got.Bytes(), Digest: hex.EncodeToString(h.Sum(nil)), From: got.From(), Path: got.Path(),
		Seconds: seconds(time.Since(began)), File: where,
	}, time.Since(began))
}

func (g *getter) report(w io.Writer, r getReport, took time.Duration) error {
	if g.json {
		return cli.PrintJSON(w, r)
	}
	_, err := fmt.Fprintf(w, "got %s from %s in %v%s, %s, sha256 %s, in %s\n", size(r.Bytes),
		strings.Join(slices.Sorted(maps.Keys(r.From)), ", "), short(took), rate(r.Bytes, took), r.Path, r.Digest, r.File)
	return err
}
