package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
)

// receiveReport is what receive prints with --json for each state. Times are in seconds.
type receiveReport struct {
	OK      bool    `json:"ok"`
	From    string  `json:"from"`
	To      string  `json:"to"`
	Key     string  `json:"key"`
	Bytes   int64   `json:"bytes"`
	Digest  string  `json:"digest"`  // SHA-256
	Path    string  `json:"path"`    // at the end: direct, relay, both while a direct path is in doubt, or store
	Seconds float64 `json:"seconds"` // from the state's first bytes to its acceptance
	File    string  `json:"file"`
}

type receiver struct {
	*common
	out       string
	count     int
	key       string
	overwrite bool
	extract   bool

	node    *fnlib.Node
	sink    sink
	show    *progress
	reports io.Writer
	notes   io.Writer
	claimed atomic.Int64
	broken  atomic.Bool // a state was under way when the command ended
	mu      sync.Mutex  // held while a line is printed
}

func newReceive(c *common) *cobra.Command {
	r := receiver{common: c}
	cmd := &cobra.Command{
		Use:   "receive --name NAME",
		Short: "Receive states from other functions",
		Long: `Join under a name and accept the states that others send to it. A state gets its place only when it is
complete and its digest is right; then the sender gets its receipt.

With --out DIR each state is a file below DIR under its key; what exists is not replaced unless --overwrite
says so. With --extract it is a directory there, without the key's ".tar". With --out FILE the file is replaced. With --out - states go to standard output as they come, and
reports to standard error: there the exit code tells whether what was written is whole.

A state that is refused or breaks off does not count, and is told of on standard error; what is in the store stays
there. With --count 0 receive goes on until Ctrl-C.`,
		Example: `  fnwire receive --name B                        # one state, into the current directory
  fnwire receive --name B --out in/ --count 0    # all there are
  fnwire receive --name B --extract              # a directory that was sent
  fnwire receive --name B --out - | wc -c`,
		Args: cli.Args(cobra.NoArgs),
		RunE: c.run(func(cmd *cobra.Command, _ []string) error { return r.run(cmd) }),
	}
	f := cmd.Flags()
	f.StringVarP(&r.out, "out", "o", ".", "FILE, DIR, or - for standard output")
	f.IntVar(&r.count, "count", 1, "states to receive, 0 for no end")
	f.StringVar(&r.key, "key", "", "accept only states with this key")
	f.BoolVar(&r.overwrite, "overwrite", false, "replace files that exist in DIR")
	f.BoolVarP(&r.extract, "extract", "x", false, "states are tar streams, as send makes of directories: unpack each into a directory below DIR")
	c.storeFlag(cmd)
	return cmd
}

func (r *receiver) run(cmd *cobra.Command) error {
	if r.count < 0 {
		return cli.Usage(fmt.Errorf("--count %d: want 0 or more", r.count))
	}
	if r.functionName() == "" {
		return cli.Usage(errors.New("under what name? give --name NAME or set FNWIRE_NAME"))
	}
	cfg, err := r.config(r.functionName(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	ctx, cancel, err := r.context(cmd, 0)
	if err != nil {
		return err
	}
	defer cancel()
	if r.extract {
		if err := makeDir(r.out); err != nil {
			return cli.Usage(fmt.Errorf("--out: %w", err))
		}
	}
	if r.sink, err = openSink(ctx, r.out, cmd.OutOrStdout(), r.overwrite); err != nil {
		return wrongOut(ctx, fmt.Errorf("--out: %w", err))
	}
	defer r.sink.close()
	if err := r.checkOut(); err != nil {
		return cli.Usage(err)
	}
	if cfg.Store, err = r.openStore(ctx); err != nil {
		return err
	}
	defer closeStore(cfg.Store)
	r.reports, r.notes = cmd.OutOrStdout(), cmd.ErrOrStderr()
	if r.out == "-" {
		r.reports, r.jsonErrors = r.notes, r.notes
		signal.Ignore(syscall.SIGPIPE) // so that the sender is told when nobody reads on
	}
	r.show = newProgress(r.notes, false)

	if r.node, err = fnlib.Join(ctx, cfg); err != nil {
		return err
	}
	defer r.node.Close()
	if r.verbose {
		r.note("joined as %s, waiting for states", cfg.Name)
	}
	err = r.receiveAll(ctx)
	r.show.clear()
	if r.count == 0 && ctx.Err() != nil && errors.Is(err, ctx.Err()) && !r.broken.Load() {
		return nil // that is how it was meant to end
	}
	return err
}

// checkOut refuses what --out cannot hold.
func (r *receiver) checkOut() error {
	s, ok := r.sink.(*dirSink)
	switch {
	case r.extract && (!ok || s.file != ""):
		return fmt.Errorf("--extract makes directories, and --out %s is none", r.out)
	case ok && s.file != "" && r.count != 1:
		return fmt.Errorf("--out %s is one file and --count asks for more states: give a directory", r.out)
	case ok:
		s.extract = r.extract
	}
	return nil
}

// receiveAll takes states, several at a time where the sink allows, until count were accepted.
func (r *receiver) receiveAll(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var first sync.Once
	var failed error
	for range r.sink.parallel() {
		wg.Go(func() {
			for r.count == 0 || r.claimed.Add(1) <= int64(r.count) {
				if err := r.receiveOne(ctx); err != nil {
					first.Do(func() { failed = err })
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// receiveOne returns when a state was accepted, or when there is no point in going on.
func (r *receiver) receiveOne(ctx context.Context) error {
	for {
		r.show.wait("waiting for states")
		in, err := r.node.Receive(ctx)
		if err != nil {
			return err
		}
		accepted, err := r.take(ctx, in)
		if accepted || err != nil {
			return err
		}
	}
}

// take reads a state into the sink. An error ends the command; what is wrong with this state only is
// told, and the next one waited for.
func (r *receiver) take(ctx context.Context, in *fnlib.Incoming) (accepted bool, err error) {
	began := time.Now()
	defer context.AfterFunc(ctx, func() { _ = in.SetReadDeadline(time.Unix(1, 0)) })() // fails on a link that is gone
	if r.key != "" && in.Key != r.key {
		return false, r.refuse(in, fmt.Errorf("only the key %q is wanted here", r.key))
	}
	t, err := r.sink.begin(in.Key)
	if err != nil {
		return false, r.refuse(in, err)
	}
	m := r.show.start(in.Key, "from "+in.From, in.Size)
	readErr, writeErr := pump(t, in, m)
	m.done()
	if readErr != nil || writeErr != nil {
		t.abort()
		return false, r.failed(ctx, in, t, readErr, writeErr)
	}
	where, err := t.commit()
	if errors.As(err, new(unfit)) {
		return false, r.refuse(in, err)
	}
	if err != nil {
		_ = in.Release("the receiver cannot keep the state") // told below
		return false, fmt.Errorf("state %q from %s: %w", in.Key, in.From, err)
	}
	path := in.Path()
	if err := in.Accept(); err != nil {
		r.note("state %q from %s is here, but the sender may not know: %v", in.Key, in.From, err)
	}
	return true, r.report(receiveReport{
		OK: true, From: in.From, To: r.node.Name(), Key: in.Key, Bytes: in.Bytes(), Digest: in.Digest().String(),
		Path: path, Seconds: seconds(time.Since(began)), File: where,
	}, time.Since(began))
}

// refuse tells sender and user why a state is not taken. What is in the store stays there.
func (r *receiver) refuse(in *fnlib.Incoming, why error) error {
	if in.Path() == viaStore {
		r.note("left state %q from %s in the store: %v", in.Key, in.From, why)
	} else {
		r.note("refused state %q from %s: %v", in.Key, in.From, why)
	}
	if err := in.Release(why.Error()); err != nil {
		r.note("%v", err)
	}
	return nil
}

// failed decides what a broken transfer means for the command.
func (r *receiver) failed(ctx context.Context, in *fnlib.Incoming, t target, readErr, writeErr error) error {
	if err := ctx.Err(); err != nil {
		r.broken.Store(true)
		_ = in.Release("the receiver was stopped") // the sender notices in any case
		return fmt.Errorf("state %q from %s broke off after %s: %w", in.Key, in.From, size(in.Bytes()), err)
	}
	if errors.As(writeErr, new(unfit)) {
		return r.refuse(in, writeErr)
	}
	if writeErr != nil {
		_ = in.Release("the receiver cannot write the state") // likewise
		return fmt.Errorf("state %q from %s: %w", in.Key, in.From, writeErr)
	}
	if err := r.node.Err(); err != nil {
		return err
	}
	if !t.undone() {
		return fmt.Errorf("%w; what was written is not whole", readErr)
	}
	r.note("%s", strings.ReplaceAll(readErr.Error(), "fnlib: ", "")) // the remedy is the sender's
	return nil
}

// arriving is a state that is being read.
type arriving interface {
	io.Reader
	Bytes() int64
	Path() string
}

// pump copies a state and tells reading and writing apart.
func pump(w io.Writer, in arriving, m *meter) (readErr, writeErr error) {
	buf := make([]byte, 256<<10)
	for shown := time.Now(); ; {
		n, err := in.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return nil, err
			}
			if now := time.Now(); m.bar != nil && now.Sub(shown) > 100*time.Millisecond {
				shown = now
				m.set(in.Bytes(), in.Path())
			}
		}
		if err == io.EOF { //nolint:errorlint // io.Reader's contract is the bare io.EOF
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

func (r *receiver) report(s receiveReport, took time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.show.clear()
	if r.json {
		return cli.PrintJSON(r.reports, s)
	}
	_, err := fmt.Fprintf(r.reports, "received %q from %s: %s in %v%s, %s, sha256 %s, in %s\n",
		s.Key, s.From, size(s.Bytes), short(took), rate(s.Bytes, took), s.Path, s.Digest, s.File)
	return err
}

func (r *receiver) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.show.clear()
	_, _ = fmt.Fprintf(r.notes, "fnwire: %s\n", printable(fmt.Sprintf(format, args...))) // nowhere else to say it
}
