package suite

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
)

// state is what is handed over, with the checksums that the harness itself has found, in hexadecimal.
type state struct {
	workload.Source
	sums map[onestream.Check]string
}

func newState(ctx context.Context, src workload.Source) (state, error) {
	sha, err := onestream.SHA256.New()
	if err != nil {
		return state{}, err
	}
	crc, err := onestream.CRC32C.New()
	if err != nil {
		return state{}, err
	}
	err = src.CopyTo(ctx, io.MultiWriter(sha, crc))
	return state{src, map[onestream.Check]string{
		onestream.SHA256: hex.EncodeToString(sha.Sum(nil)), onestream.CRC32C: hex.EncodeToString(crc.Sum(nil)),
	}}, err
}

func (r *run) realState(ctx context.Context, n int64) (state, error) {
	src, err := workload.Real(ctx, n)
	if err != nil {
		return state{}, err
	}
	r.say(fmt.Sprintf("%s: reading a state of %s", r.e.Name, workload.FormatBytes(n)))
	return newState(ctx, src)
}

func (s state) cut(ctx context.Context, n int64) (state, error) { return newState(ctx, s.Cut(n)) }

// check tells whether what was received is the state.
func (s state) check(got worker.Received, check onestream.Check) error {
	if want := s.sums[check]; got.Bytes != s.Size() || got.Digest != want {
		return fmt.Errorf("received %d bytes with %s %s, want %d with %s", got.Bytes, check, got.Digest, s.Size(), want)
	}
	return nil
}

// couple is two functions that have joined.
type couple struct {
	a, b         *world.Proc
	nameA, nameB string
}

// meet starts a function on each of two hosts and has them join. Whoever meets must part.
func meet(ctx context.Context, w *world.World, hostA, hostB string, change ...func(*worker.JoinArgs)) (c couple, began int64, ja, jb worker.Joined, err error) {
	c = couple{nameA: w.FreshName("a"), nameB: w.FreshName("b")}
	if c.a, c.b, err = w.Pair(ctx, hostA, hostB); err != nil {
		return c, 0, ja, jb, err
	}
	began = time.Now().UnixNano()
	joining, jctx := errgroup.WithContext(ctx)
	argsA, argsB := w.JoinArgsAt(hostA, c.nameA), w.JoinArgsAt(hostB, c.nameB)
	for _, f := range change {
		f(&argsA)
		f(&argsB)
	}
	joining.Go(func() (err error) { ja, err = c.a.Join(jctx, argsA); return err })
	joining.Go(func() (err error) { jb, err = c.b.Join(jctx, argsB); return err })
	if err = joining.Wait(); err != nil {
		c.part()
	}
	return c, began, ja, jb, err
}

// part ends both functions, in order if they can.
func (c couple) part() {
	var ending errgroup.Group
	ending.Go(c.a.Stop)
	ending.Go(c.b.Stop)
	_ = ending.Wait() // the measurement is made
}

// handOver sends a state from a to b with fnwire.
func (c couple) handOver(ctx context.Context, path string, s state) (worker.Sent, worker.Received, error) {
	return together(ctx,
		func(ctx context.Context) (worker.Sent, error) {
			return c.a.Send(ctx, worker.SendArgs{To: c.nameB, Key: "state", Path: path, Source: s.Source})
		},
		func(ctx context.Context) (worker.Received, error) { return c.b.Receive(ctx) }, s, onestream.SHA256)
}

// together sends and receives at the same time and checks what came.
func together(ctx context.Context, send func(context.Context) (worker.Sent, error),
	receive func(context.Context) (worker.Received, error), s state, check onestream.Check,
) (sent worker.Sent, got worker.Received, err error) {
	both, bctx := errgroup.WithContext(ctx)
	both.Go(func() (err error) { sent, err = send(bctx); return err })
	both.Go(func() (err error) { got, err = receive(bctx); return err })
	if err = both.Wait(); err == nil {
		err = s.check(got, check)
	}
	return sent, got, err
}

// direct waits until the link is direct at the sender, at most for the time given.
func (c couple) direct(ctx context.Context, wait time.Duration) (worker.PathState, error) {
	return c.a.Path(ctx, worker.PathArgs{Peer: c.nameB, Want: "direct", Wait: wait})
}

// joinPhases notes how long the parts of joining took.
func joinPhases(rec *results.Record, who string, j worker.Joined) {
	t := j.Timings
	for name, d := range map[string]time.Duration{
		"connect": t.Connect, "join": t.Join, "relay": t.Relay, "stun": t.STUN, "joined": t.Total,
	} {
		rec.Phases[who+"_"+name] = ms(d)
	}
}

// callPhases notes how long the parts of the first transfer took.
func callPhases(rec *results.Record, sent worker.Sent) {
	p := sent.Receipt.Phases
	rec.Phases["call_answer"], rec.Phases["call_link"] = ms(p.Answer), ms(p.Link)
	rec.Phases["call_transfer"], rec.Phases["call_confirm"], rec.Phases["call_total"] = ms(p.Transfer), ms(p.Confirm), ms(p.Total)
}

// load measures what processes use.
type load struct {
	names  []string
	procs  []*world.Proc
	before []worker.Usage
}

func (l *load) add(name string, p *world.Proc) {
	l.names, l.procs = append(l.names, name), append(l.procs, p)
}

func (l *load) start(ctx context.Context) error {
	l.before = l.before[:0]
	for _, p := range l.procs {
		u, err := p.Usage(ctx)
		if err != nil {
			return err
		}
		l.before = append(l.before, u)
	}
	return nil
}

// stop notes the CPU seconds per gigabyte (10^9 bytes) since start, and the peaks of memory.
func (l *load) stop(ctx context.Context, rec *results.Record, bytes int64) error {
	for i, p := range l.procs {
		u, err := p.Usage(ctx)
		if err != nil {
			return err
		}
		rec.Measured["cpu_s_per_gb_"+l.names[i]] = (u.CPU - l.before[i].CPU).Seconds() / (float64(bytes) / 1e9)
		rec.Measured["max_rss_mb_"+l.names[i]] = float64(u.MaxRSSBytes) / 1e6
	}
	return nil
}
