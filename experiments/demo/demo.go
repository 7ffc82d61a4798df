// Package demo shows fnwire at work in a minute: two functions behind two NATs hand over real state over a direct path, over
// the relay and, for comparison, through an object store. It measures once and proves nothing statistical: the experiments do that.
package demo

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
)

// Ways in which a state is handed over.
const (
	Auto   = "auto"   // over the relay at once, directly as soon as possible
	Direct = "direct" // directly only
	Relay  = "relay"  // by relay only
	Store  = "store"  // through the NATS object store
)

const (
	sendTimeout = 12 * time.Second
	rowTimeout  = 20 * time.Second
)

// Sizes are those of the states handed over.
func Sizes() []int64 { return []int64{1 << 10, 1 << 20, 64 << 20} }

// Config of a demonstration. Zero values are the defaults.
type Config struct {
	Sizes    []int64
	NAT      lab.Kind             // of both functions; default port-restricted
	World    world.Config         // its hosts are set by Run
	Progress func(message string) // told what goes on; may be nil
}

// Row is one hand-over between two fresh functions. Times count from the moment at which both functions begin to run:
// joining, or connecting to the store, is included.
type Row struct {
	Way         string  `json:"way"`
	Bytes       int64   `json:"bytes"`
	Path        string  `json:"path"` // what the bytes went over: direct, relay, relay+direct, or nats
	FirstByteMS float64 `json:"first_byte_ms"`
	LastByteMS  float64 `json:"last_byte_ms"`
	GoodputMbps float64 `json:"goodput_mbps"` // bytes over the time to the last one
	// DigestsEqual says that the receiver's SHA-256 is that of the file, as the demonstration itself read it.
	DigestsEqual bool   `json:"digests_equal"`
	SHA256       string `json:"sha256"`
	Error        string `json:"error,omitempty"`
}

// OK tells whether the state arrived as it should have.
func (r Row) OK() bool { return r.Error == "" && r.DigestsEqual }

// Result is all of a demonstration.
type Result struct {
	NAT     string   `json:"nat"` // of both functions
	Files   []string `json:"files"`
	Rows    []Row    `json:"rows"`
	Seconds float64  `json:"seconds"`
}

// Run raises a world, hands states over, and takes the world down. lab.Enter must have been called. The error is that of
// the world; a hand-over that failed is a Row that is not OK.
func Run(ctx context.Context, cfg Config) (res Result, err error) {
	began := time.Now()
	if len(cfg.Sizes) == 0 {
		cfg.Sizes = Sizes()
	}
	if cfg.NAT == "" {
		cfg.NAT = lab.PortRestricted
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	res.NAT = string(cfg.NAT)
	states, err := states(ctx, cfg.Sizes, &res)
	if err != nil {
		return res, err
	}
	cfg.Progress("raising a rendezvous, a relay and two NATs")
	cfg.World.Hosts = []lab.Host{{Name: "a", NAT: cfg.NAT}, {Name: "b", NAT: cfg.NAT}}
	w, err := world.New(ctx, cfg.World)
	if err != nil {
		return res, err
	}
	defer w.Close()
	for _, way := range []string{Auto, Direct, Relay, Store} {
		for _, s := range states {
			cfg.Progress(fmt.Sprintf("%s, %s", way, workload.FormatBytes(s.src.Size())))
			row := Row{Way: way, Bytes: s.src.Size()}
			if err := handOver(ctx, w, s, &row); err != nil {
				if ctx.Err() != nil {
					return res, ctx.Err()
				}
				row.Error = err.Error()
			}
			res.Rows = append(res.Rows, row)
		}
	}
	res.Seconds = time.Since(began).Seconds()
	return res, nil
}

type state struct {
	src    workload.Source
	sha256 string
}

func states(ctx context.Context, sizes []int64, res *Result) ([]state, error) {
	var most int64
	for _, n := range sizes {
		if n < 1 { // whose first byte there is not
			return nil, fmt.Errorf("demo: a state of %d bytes", n)
		}
		most = max(most, n)
	}
	all, err := workload.Real(ctx, most)
	if err != nil {
		return nil, err
	}
	for _, p := range all.Parts {
		res.Files = append(res.Files, p.Path)
	}
	out := make([]state, 0, len(sizes))
	for _, n := range sizes {
		s := state{src: all.Cut(n)}
		if s.sha256, err = s.src.SHA256(ctx); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// handOver has two fresh functions hand over a state.
func handOver(ctx context.Context, w *world.World, s state, row *Row) error {
	ctx, cancel := context.WithTimeout(ctx, rowTimeout)
	defer cancel()
	a, b, err := w.Pair(ctx, "a", "b")
	if err != nil {
		return err
	}
	defer a.Kill()
	defer b.Kill()
	var sent worker.Sent
	var got worker.Received
	began := time.Now()
	both, bctx := errgroup.WithContext(ctx)
	if row.Way == Store {
		key := w.FreshName("state")
		both.Go(func() (err error) {
			if sent, err = a.Put(bctx, worker.PutArgs{Store: w.NATSStore(), Key: key, Source: s.src}); err == nil {
				got, err = b.Get(bctx, worker.GetArgs{Store: w.NATSStore(), Key: key})
			}
			return err
		})
	} else {
		receiver := w.FreshName("receiver")
		both.Go(func() error {
			if _, err := a.Join(bctx, w.JoinArgs(w.FreshName("sender"))); err != nil {
				return err
			}
			var err error
			sent, err = a.Send(bctx, worker.SendArgs{To: receiver, Key: "state", Path: row.Way, Source: s.src, Within: sendTimeout})
			return err
		})
		both.Go(func() error {
			if _, err := b.Join(bctx, w.JoinArgs(receiver)); err != nil {
				return err
			}
			var err error
			got, err = b.Receive(bctx)
			return err
		})
	}
	if err := both.Wait(); err != nil {
		return err
	}
	row.Path, row.SHA256 = sent.Receipt.Path, got.Digest
	if row.Way == Store {
		row.Path = got.Path
	}
	row.DigestsEqual = got.Digest == s.sha256 && got.Bytes == row.Bytes
	row.FirstByteMS = float64(got.First-began.UnixNano()) / 1e6
	row.LastByteMS = float64(got.Last-began.UnixNano()) / 1e6
	row.GoodputMbps = float64(row.Bytes) * 8 / row.LastByteMS / 1e3
	if err := a.Stop(); err != nil {
		return err
	}
	return b.Stop()
}

// Failed names the hand-overs that did not work, or is empty.
func (r Result) Failed() string {
	var failed []string
	for _, row := range r.Rows {
		if !row.OK() {
			why := row.Error
			if why == "" {
				why = "the digest is wrong"
			}
			failed = append(failed, fmt.Sprintf("%s, %s: %s", row.Way, workload.FormatBytes(row.Bytes), why))
		}
	}
	return strings.Join(failed, "; ")
}
