package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
)

const (
	// Whole hand-overs: SHA-256 at both ends, and a receipt.
	caseDirect = "fnwire-direct"
	caseRelay  = "fnwire-relay"
	casePlain  = "plain-quic"
	caseStore  = "nats-store"
	// One stream as it is, with CRC-32C at both ends, which costs next to nothing.
	caseStream      = "fnwire-stream"
	casePlainStream = "plain-quic-stream"

	coldBytes     = 1 << 10
	directTimeout = 15 * time.Second
)

func transferCases() []string {
	return []string{caseDirect, casePlain, caseStream, casePlainStream, caseRelay, caseStore}
}

// transfer measures one state over one stream through two kernel NATs, by every way there is.
func transfer() Experiment {
	return Experiment{
		Name: "transfer",
		Summary: "one state between two functions behind two port-restricted NATs: fnwire directly and by relay, " +
			"plain quic-go on punched sockets, and the NATS object store, each with SHA-256 at both ends; and one bare stream of " +
			"fnwire and of quic-go; goodput on a warm connection, set-up from nothing, CPU",
		Settings: []Setting{
			{"bytes", "256MiB", "64MiB", "size of the state whose goodput is measured"},
			{"reps", "5", "2", "repetitions of each case, in alternating order"},
			{"cases", strings.Join(transferCases(), ","), "", "which to run"},
			{"chunk", "512KiB", "", "chunk size of the NATS object store; 0 is NATS' own (128KiB)"},
		},
		run: runTransfer,
	}
}

func runTransfer(ctx context.Context, r *run) error {
	size, err := r.bytes("bytes")
	if err != nil {
		return err
	}
	reps, err := r.count("reps")
	if err != nil {
		return err
	}
	chunk, err := r.bytes("chunk")
	if err != nil {
		return err
	}
	cases := r.list("cases")
	for _, c := range cases {
		if !slices.Contains(transferCases(), c) {
			return fmt.Errorf("%w: cases: no %q: there are %v", ErrSettings, c, transferCases())
		}
	}
	if len(cases) == 0 {
		return fmt.Errorf("%w: cases: none", ErrSettings)
	}
	t := &transferRun{chunk: uint32(min(chunk, 1<<20))}
	if t.warm, err = realState(ctx, max(size, coldBytes)); err != nil {
		return err
	}
	if t.cold, err = t.warm.cut(coldBytes); err != nil {
		return err
	}
	cfg := r.o.World
	cfg.Hosts = []lab.Host{{Name: "a", NAT: lab.PortRestricted}, {Name: "b", NAT: lab.PortRestricted}}
	if t.w, err = world.New(ctx, cfg); err != nil {
		return err
	}
	defer t.w.Close()
	for rep := range reps {
		for _, c := range rotated(cases, r.o.Seed, rep) {
			if err := r.measure(ctx, c, rep, t.one(c)); err != nil {
				return err
			}
		}
	}
	return nil
}

type transferRun struct {
	w          *world.World
	cold, warm state
	chunk      uint32
}

func (t *transferRun) one(c string) func(context.Context, *results.Record) error {
	return func(ctx context.Context, rec *results.Record) error {
		switch c {
		case caseDirect:
			return t.fnwire(ctx, rec, "auto", "direct", func(c couple) (worker.Sent, worker.Received, error) {
				return c.handOver(ctx, "auto", t.warm)
			})
		case caseStream:
			return t.fnwire(ctx, rec, "auto", "direct", func(c couple) (worker.Sent, worker.Received, error) {
				return c.stream(ctx, t.warm)
			})
		case caseRelay:
			return t.fnwire(ctx, rec, "relay", "relay", func(c couple) (worker.Sent, worker.Received, error) {
				return c.handOver(ctx, "relay", t.warm)
			})
		case casePlain:
			return t.plain(ctx, rec, onestream.SHA256)
		case casePlainStream:
			return t.plain(ctx, rec, onestream.CRC32C)
		default:
			return t.store(ctx, rec)
		}
	}
}

// fill notes a transfer on a connection that was there.
func (t *transferRun) fill(rec *results.Record, path string, sent worker.Sent, got worker.Received) {
	rec.Path, rec.Bytes, rec.OK = path, got.Bytes, true
	rec.Seconds = since(sent.Began, got.Last) / 1e3
	rec.Measured["goodput_mbps"] = mbps(rec.Bytes, rec.Seconds)
	rec.Measured["warm_first_byte_ms"] = since(sent.Began, got.First)
	rec.Measured["warm_receipt_ms"] = since(got.Last, sent.Ended)
}

func (t *transferRun) loads(a, b *world.Proc) *load {
	l := &load{}
	l.add("sender", a)
	l.add("receiver", b)
	l.add("relay", t.w.Relay())
	l.add("nats", t.w.Rendezvous())
	return l
}

func (t *transferRun) fnwire(ctx context.Context, rec *results.Record, policy, want string,
	warm func(couple) (worker.Sent, worker.Received, error),
) error {
	c, began, ja, jb, err := meet(ctx, t.w, "a", "b")
	if err != nil {
		return err
	}
	defer c.part()
	joinPhases(rec, "sender", ja)
	joinPhases(rec, "receiver", jb)
	sent, got, err := c.handOver(ctx, policy, t.cold)
	if err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	callPhases(rec, sent)
	rec.Measured["first_byte_ms"] = since(began, got.First)
	if want == "direct" {
		p, err := c.direct(ctx, directTimeout)
		if err != nil {
			return err
		}
		if p.Path != want {
			return fmt.Errorf("the path is %s after %v: %s", p.Path, directTimeout, p.Reason)
		}
		rec.Measured["direct_ms"] = since(began, p.At)
		rec.Measured["rtt_ms"] = ms(p.RTT)
	}
	l := t.loads(c.a, c.b)
	if err := l.start(ctx); err != nil {
		return err
	}
	if sent, got, err = warm(c); err != nil {
		return err
	}
	if err := l.stop(ctx, rec, t.warm.Size()); err != nil {
		return err
	}
	t.fill(rec, sent.Receipt.Path, sent, got)
	if rec.Path != want {
		return fmt.Errorf("went over %s, want %s: %s", rec.Path, want, sent.Receipt.Reason)
	}
	return nil
}

// plain is quic-go by itself. Its ports are those that the NATs preserve: it needs nobody to tell it its address.
func (t *transferRun) plain(ctx context.Context, rec *results.Record, check onestream.Check) error {
	a, b, err := t.w.Pair(ctx, "a", "b")
	if err != nil {
		return err
	}
	defer couple{a: a, b: b}.part()
	began := time.Now().UnixNano()
	ea, erra := a.OpenPlain(ctx)
	eb, errb := b.OpenPlain(ctx)
	if err := errors.Join(erra, errb); err != nil {
		return err
	}
	connecting, cctx := errgroup.WithContext(ctx)
	at := func(host string, e worker.PlainEnd) netip.AddrPort {
		return netip.AddrPortFrom(t.w.Lab().PublicAddr(host), e.Port)
	}
	connecting.Go(func() error {
		return a.ConnectPlain(cctx, worker.ConnectArgs{Peer: at("b", eb), Certificate: eb.Certificate})
	})
	connecting.Go(func() error { return b.ConnectPlain(cctx, worker.ConnectArgs{Peer: at("a", ea)}) })
	if err := connecting.Wait(); err != nil {
		return err
	}
	handOver := func(s state) (worker.Sent, worker.Received, error) {
		return together(ctx,
			func(ctx context.Context) (worker.Sent, error) {
				return a.SendPlain(ctx, worker.StreamArgs{Source: s.Source, Check: check})
			},
			func(ctx context.Context) (worker.Received, error) { return b.ReceivePlain(ctx, check) }, s, check)
	}
	_, got, err := handOver(t.cold)
	if err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	rec.Measured["first_byte_ms"] = since(began, got.First)
	l := t.loads(a, b)
	if err := l.start(ctx); err != nil {
		return err
	}
	sent, got, err := handOver(t.warm)
	if err != nil {
		return err
	}
	if err := l.stop(ctx, rec, t.warm.Size()); err != nil {
		return err
	}
	t.fill(rec, casePlain, sent, got)
	return nil
}

func (t *transferRun) store(ctx context.Context, rec *results.Record) error {
	a, b, err := t.w.Pair(ctx, "a", "b")
	if err != nil {
		return err
	}
	defer couple{a: a, b: b}.part()
	handOver := func(s state) (worker.Sent, worker.Received, error) {
		key := t.w.FreshName("state")
		return together(ctx,
			func(ctx context.Context) (worker.Sent, error) {
				return a.Put(ctx, worker.PutArgs{Bucket: t.w.Bucket(), Key: key, Source: s.Source, ChunkBytes: t.chunk})
			},
			func(ctx context.Context) (worker.Received, error) {
				return b.Get(ctx, worker.GetArgs{Bucket: t.w.Bucket(), Key: key, Delete: true})
			}, s, onestream.SHA256)
	}
	began := time.Now().UnixNano()
	_, got, err := handOver(t.cold)
	if err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	rec.Measured["first_byte_ms"] = since(began, got.First)
	l := t.loads(a, b)
	if err := l.start(ctx); err != nil {
		return err
	}
	sent, got, err := handOver(t.warm)
	if err != nil {
		return err
	}
	if err := l.stop(ctx, rec, t.warm.Size()); err != nil {
		return err
	}
	t.fill(rec, caseStore, sent, got)
	delete(rec.Measured, "warm_receipt_ms") // a store gives none
	return nil
}
