package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
)

// putReport is what put prints first with --json, and get with --hold.
type putReport struct {
	OK      bool      `json:"ok"`
	Ref     fnlib.Ref `json:"ref"`
	Bytes   int64     `json:"bytes"`
	Expires time.Time `json:"expires"`
	Stored  string    `json:"stored,omitempty"` // the store that keeps the state, if it does already
}

// putEnd is what put prints last with --json.
type putEnd struct {
	OK     bool      `json:"ok"`
	Ref    fnlib.Ref `json:"ref"`
	Ended  string    `json:"ended"` // read, expired, dropped, or stored
	Stored string    `json:"stored,omitempty"`
}

// spillWithin is how long the store may take after Ctrl-C. Another one ends the command at once.
const spillWithin = time.Minute

type putter struct {
	*common
	ttl       time.Duration
	reads     int
	storeOnly bool
}

func newPut(c *common) *cobra.Command {
	p := putter{common: c}
	cmd := &cobra.Command{
		Use:   "put FILE|DIR|-",
		Short: "Keep a state for others, and print a ref to it",
		Long: `Keep a file, standard input, or a directory (as a tar stream), and print a ref: at most 512 bytes of text by which
every function of the job can get the state, with fnwire get or package fnlib, and nobody else.

put goes on until the state was read --reads times, or has expired. On Ctrl-C, or when --timeout has run out, it goes to
the store that --store, or FNWIRE_STORE, names, and can be got from there; without a store nobody gets it any more, and
put fails. The exit code is 0 if the state was read as often as asked, or has had its time, or is in the store.`,
		Example: `  fnwire put --reads 1 part-7.parquet
  pg_dump db | fnwire put --ttl 10m -
  fnwire put --store-only --store s3://bucket/prefix part-7.parquet`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: c.run(func(cmd *cobra.Command, args []string) error { return p.run(cmd, args[0]) }),
	}
	f := cmd.Flags()
	f.DurationVar(&p.ttl, "ttl", time.Hour, "how long the state can be got")
	f.IntVar(&p.reads, "reads", 0, "how often, to its end; 0 as often as anybody likes")
	f.BoolVar(&p.storeOnly, "store-only", false, "keep it in the store alone, and end at once")
	c.storeFlag(cmd)
	return cmd
}

func (p *putter) run(cmd *cobra.Command, file string) error {
	switch {
	case p.ttl <= 0:
		return cli.Usage(fmt.Errorf("--ttl %v: want more than 0", p.ttl))
	case p.reads < 0:
		return cli.Usage(fmt.Errorf("--reads %d: want 0 or more", p.reads))
	case p.storeOnly && p.storeURL() == "":
		return cli.Usage(errors.New("--store-only: no store: give --store URL or set FNWIRE_STORE"))
	}
	cfg, err := p.config(cmp.Or(p.functionName(), randomName()), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	ctx, cancel, err := p.context(cmd, 0)
	if err != nil {
		return err
	}
	defer cancel()
	in, err := openState(ctx, file, cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer in.close()
	if cfg.Store, err = p.openStore(ctx); err != nil {
		return err
	}
	defer closeStore(cfg.Store)
	node, err := fnlib.Join(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	k := keeping{common: p.common, node: node, out: cmd.OutOrStdout(), notes: cmd.ErrOrStderr(), spills: cfg.Store != nil}
	return k.put(ctx, in, fnlib.PutOptions{TTL: p.ttl, Reads: p.reads, StoreOnly: p.storeOnly})
}

// keeping is a state that a command keeps for others.
type keeping struct {
	*common
	node       *fnlib.Node
	out, notes io.Writer
	spills     bool
}

func (k *keeping) put(ctx context.Context, in *state, opt fnlib.PutOptions) error {
	show := newProgress(k.notes, false)
	r := &counted{r: in.r, m: show.start(in.key, "put", in.size)}
	expires := time.Now().Add(opt.TTL)
	ref, err := k.node.Put(ctx, r, opt)
	r.m.done()
	if err != nil {
		return err
	}
	if !opt.StoreOnly {
		return k.keep(ctx, ref)
	}
	return k.print(putReport{OK: true, Ref: ref, Bytes: r.n, Expires: expires, Stored: k.storeURL()})
}

func (k *keeping) print(r putReport) error {
	if k.json {
		return cli.PrintJSON(k.out, r)
	}
	_, err := fmt.Fprintln(k.out, r.Ref)
	return err
}

// keep prints a ref and waits until nobody can get its state from here any more.
func (k *keeping) keep(ctx context.Context, ref fnlib.Ref) error {
	h, err := k.node.Holding(ref)
	if err != nil {
		return err
	}
	if err := k.print(putReport{OK: true, Ref: ref, Bytes: h.Size, Expires: h.Expires}); err != nil {
		return err
	}
	show := newProgress(k.notes, false)
	show.wait("keeping %s until %s", size(h.Size), h.Expires.Local().Format(time.DateTime))
	defer show.clear()
	select {
	case <-h.Released:
		return k.ended(ref)
	case <-k.node.Done():
		return k.node.Err()
	case <-ctx.Done():
	}
	show.clear()
	if !k.spills {
		return fmt.Errorf("nobody gets the state any more, since there is no store: %w", ctx.Err())
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), spillWithin)
	defer cancel()
	where, err := k.node.Spill(sctx, ref)
	switch {
	case errors.Is(err, fnlib.ErrNotFound), errors.Is(err, fnlib.ErrExpired): // just now
		return k.ended(ref)
	case err != nil:
		return err
	}
	return k.end(putEnd{OK: true, Ref: ref, Ended: "stored", Stored: where}, "the state is in "+where+" now")
}

// ended tells why the state is not kept any more.
func (k *keeping) ended(ref fnlib.Ref) error {
	_, err := k.node.Holding(ref)
	switch {
	case k.node.Err() != nil:
		return k.node.Err()
	case errors.Is(err, fnlib.ErrReadOut):
		return k.end(putEnd{OK: true, Ref: ref, Ended: "read"}, "the state was read")
	case errors.Is(err, fnlib.ErrExpired):
		return k.end(putEnd{OK: true, Ref: ref, Ended: "expired"}, "the state's time is over")
	}
	return k.end(putEnd{OK: true, Ref: ref, Ended: "dropped"}, "the state was dropped")
}

func (k *keeping) end(e putEnd, text string) error {
	if k.json {
		return cli.PrintJSON(k.out, e)
	}
	_, err := fmt.Fprintln(k.notes, "fnwire: "+text)
	return err
}

// counted shows how much was read.
type counted struct {
	r     io.Reader
	n     int64
	m     *meter
	shown time.Time
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	if now := time.Now(); now.Sub(c.shown) > 100*time.Millisecond {
		c.shown = now
		c.m.set(c.n, "here")
	}
	return n, err
}
