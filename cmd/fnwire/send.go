package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
)

// sendReport is what send prints with --json. Times are in seconds.
type sendReport struct {
	OK          bool    `json:"ok"`
	From        string  `json:"from"`
	To          string  `json:"to"`
	Key         string  `json:"key"`
	Bytes       int64   `json:"bytes"`
	Digest      string  `json:"digest"`           // SHA-256
	Stored      string  `json:"stored,omitempty"` // the store that keeps it for the receiver; without, the receiver has accepted it
	Path        string  `json:"path"`             // direct, relay, relay+direct, or store
	DirectBytes int64   `json:"direct_bytes"`
	WireBytes   int64   `json:"wire_bytes"`       // that its chunks took on the wire, or in the store: fewer if they were compressed
	Reason      string  `json:"reason,omitempty"` // why the link was relayed at the end, or the state stored
	RTT         float64 `json:"rtt_s"`
	Seconds     float64 `json:"seconds"` // from the call to the receipt; join is not in it
	Phases      struct {
		Join     float64 `json:"join_s"`
		Answer   float64 `json:"answer_s"`
		Link     float64 `json:"link_s"`
		Transfer float64 `json:"transfer_s"`
		Confirm  float64 `json:"confirm_s"`
	} `json:"phases"`
}

type sender struct {
	*common
	to, key, path string
	noCompress    bool
}

func newSend(c *common) *cobra.Command {
	s := sender{common: c}
	cmd := &cobra.Command{
		Use:   "send --to NAME FILE|DIR|-",
		Short: "Send a state to a function",
		Long: `Send a file, standard input, or a directory (as a tar stream), to the function of that name, and wait until it
has accepted it. If nobody holds the name yet, send waits until somebody joins.

With --store, or FNWIRE_STORE, a state whose receiver is not reached within some seconds goes to that store, sealed, and the
receiver finds it there when it joins. So it does on Ctrl-C and on SIGTERM, if the state can still be read from its beginning.`,
		Example: `  fnwire send --name A --to B part-7.parquet
  fnwire send --name A --to B results/
  pg_dump db | fnwire send --name A --to B --key db.sql -
  fnwire send --name A --to B --path store --store s3://bucket/prefix part-7.parquet`,
		Args: cli.Args(cobra.ExactArgs(1)),
		RunE: c.run(func(cmd *cobra.Command, args []string) error {
			return s.run(cmd, args[0])
		}),
	}
	f := cmd.Flags()
	f.StringVar(&s.to, "to", "", "name of the receiver")
	f.StringVar(&s.key, "key", "", "key of the state (default: the file's name, or \"stdin\")")
	f.StringVar(&s.path, "path", "auto", "auto: relay first, direct as soon as possible; direct: never a relay; relay: never direct; store: over no link")
	f.BoolVar(&s.noCompress, "no-compress", false, "send the state as it is, also where compressing it would be faster")
	c.storeFlag(cmd)
	complete(cmd, "to", c.completeNames)
	complete(cmd, "path", cobra.FixedCompletions(append(slices.Clone(pathNames), viaStore), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// viaStore is the path of a state that goes to the store alone.
const viaStore = "store"

// options are those of the transfer, as far as flags tell.
func (s *sender) options() (fnlib.SendOptions, error) {
	if s.path == viaStore {
		if s.storeURL() == "" {
			return fnlib.SendOptions{}, errors.New("--path store: no store: give --store URL or set FNWIRE_STORE")
		}
		return fnlib.SendOptions{StoreOnly: true}, nil
	}
	path, err := fnlib.ParsePath(s.path)
	if err != nil {
		return fnlib.SendOptions{}, fmt.Errorf("--path: %w, or store", err)
	}
	return fnlib.SendOptions{Path: path}, nil
}

func (s *sender) run(cmd *cobra.Command, file string) error {
	opt, err := s.options()
	if err != nil {
		return cli.Usage(err)
	}
	if s.to == "" {
		return cli.Usage(errors.New("to whom? give --to NAME"))
	}
	cfg, err := s.config(cmp.Or(s.functionName(), randomName()), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	cfg.NoCompress = s.noCompress
	if err := checkPeer(s.to, cfg.Name); err != nil {
		return err
	}
	if len(s.key) > fnlib.MaxKey {
		return cli.Usage(fmt.Errorf("--key of %d bytes, at most %d", len(s.key), fnlib.MaxKey))
	}
	ctx, cancel, err := s.context(cmd, 0)
	if err != nil {
		return err
	}
	defer cancel()
	in, err := openState(ctx, file, cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer in.close()
	if cfg.Store, err = s.openStore(ctx); err != nil {
		return err
	}
	defer closeStore(cfg.Store)
	if opt.Path == fnlib.Auto && !opt.StoreOnly {
		cfg.Call = []string{s.to} // the offer goes with the join
	}
	node, err := fnlib.Join(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	if cfg.Store != nil {
		// Whoever is stopped gives its state to the store, for which Close takes care, and not the end of the context.
		stop := context.AfterFunc(ctx, func() { _ = node.Close() }) // the deferred one tells the same
		defer stop()
		ctx = context.WithoutCancel(ctx)
	}
	receipt, err := s.send(ctx, node, in, opt, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	return s.print(cmd.OutOrStdout(), receipt, node.Timings().Total)
}

func (s *sender) send(ctx context.Context, node *fnlib.Node, in *state, opt fnlib.SendOptions, stderr io.Writer) (fnlib.Receipt, error) {
	key := cmp.Or(s.key, in.key)
	p := newProgress(stderr, false)
	p.wait("waiting for %s", s.to)
	var m *meter
	opt.Size = max(in.size, 0)
	opt.Progress = func(bytes int64, path string) {
		if m == nil {
			m = p.start(key, "to "+s.to, in.size)
		}
		m.set(bytes, path)
	}
	rc, err := node.SendWith(ctx, s.to, key, in.r, opt)
	if m != nil {
		m.done()
	}
	p.clear()
	return rc, err
}

func (s *sender) print(out io.Writer, rc fnlib.Receipt, joined time.Duration) error {
	if !s.json && rc.Stored != "" {
		_, err := fmt.Fprintf(out, "stored %q for %s in %s (%s): %s in %v, sha256 %s\n", rc.Key, rc.To, rc.Stored, rc.Reason,
			size(rc.Bytes), short(rc.Phases.Total), rc.Digest)
		return err
	}
	if !s.json {
		_, err := fmt.Fprintf(out, "sent %q to %s: %s in %v%s, %s%s, sha256 %s\n", rc.Key, rc.To, size(rc.Bytes),
			short(rc.Phases.Total), rate(rc.Bytes, rc.Phases.Transfer+rc.Phases.Confirm), rc.Path, because(rc.Path, rc.Reason), rc.Digest)
		return err
	}
	r := sendReport{
		OK: true, From: rc.From, To: rc.To, Key: rc.Key, Bytes: rc.Bytes, Digest: rc.Digest.String(), Stored: rc.Stored, Path: rc.Path,
		DirectBytes: rc.DirectBytes, WireBytes: rc.WireBytes, Reason: rc.Reason, RTT: seconds(rc.RTT), Seconds: seconds(rc.Phases.Total),
	}
	p := rc.Phases
	r.Phases.Join, r.Phases.Answer, r.Phases.Link = seconds(joined), seconds(p.Answer), seconds(p.Link)
	r.Phases.Transfer, r.Phases.Confirm = seconds(p.Transfer), seconds(p.Confirm)
	return cli.PrintJSON(out, r)
}

// state is what send reads.
type state struct {
	key   string
	size  int64 // -1 if unknown
	r     io.Reader
	close func()
}

// openState opens a file, or standard input for "-". What may block (a pipe, a terminal) is read so
// that the end of ctx ends it.
func openState(ctx context.Context, file string, stdin io.Reader) (*state, error) {
	f, isFile := stdin.(*os.File)
	in := &state{key: "stdin", size: -1, r: stdin, close: func() {}}
	if file != "-" {
		var err error
		if f, err = openWithin(ctx, file, os.O_RDONLY); err != nil {
			return nil, err
		}
		isFile = true
		in.key, in.r, in.close = filepath.Base(file), f, func() { _ = f.Close() } // was only read
	}
	if isFile {
		st, err := f.Stat()
		switch {
		case err != nil:
			in.close()
			return nil, err
		case st.IsDir():
			in.close()
			return openTree(file)
		case st.Mode().IsRegular():
			if at, err := f.Seek(0, io.SeekCurrent); err == nil {
				in.size = max(st.Size()-at, 0)
				return in, nil
			}
		}
	}
	in.r = interruptible(ctx, in.r)
	return in, nil
}

// interruptible returns a reader whose Read ends with ctx. The goroutine behind it ends with r or, if a
// read of r never returns, with the process.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	context.AfterFunc(ctx, func() { _ = pw.CloseWithError(context.Cause(ctx)) }) // never fails
	go func() {
		buf := make([]byte, 256<<10)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				if _, werr := pw.Write(buf[:n]); werr != nil {
					return
				}
			}
			if err != nil {
				_ = pw.CloseWithError(err) // never fails; io.EOF stays io.EOF
				return
			}
		}
	}()
	return pr
}
