package suite

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/crowd"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/world"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/relay"
)

// relayOf measures what a relay carries.
func relayOf() Experiment {
	return Experiment{
		Name: "relay",
		Summary: "many instances, each with a socket and a session at one relay on the same machine; then nothing happens, and then a few pairs of them send packets by it at a steady " +
			"rate: binds a second, memory of the relay for each session, its CPU in each phase, packets and bytes a second that it would forward with a core of its own, and how many are lost. " +
			"Over plain cables: emulated lines would carry fewer packets than a relay, and take the CPU that is measured",
		Settings: []Setting{
			{"sessions", "1000,10000", "200", "how many bind, for each case; each must join the rendezvous first, which needs a file descriptor for it (ulimit -n)"},
			{"idle", "30s", "5s", "how long nothing is done: each session is asked after every 15 s"},
			{"pairs", "4", "", "how many send"},
			{"bytes", "1200", "", "of a packet"},
			{"rate", "100000", "", "packets a second, of all pairs, in bursts of 32"},
			{"for", "10s", "5s", "how long packets are sent, at most a minute"},
			{"reps", "3", "1", "repetitions of each case, each with a new relay"},
		},
		run: runRelay,
	}
}

type relayRun struct {
	r       *run
	idle    time.Duration
	forward crowd.ForwardArgs // its To is as long as there are pairs
}

func runRelay(ctx context.Context, r *run) error {
	r.limit = rendezvousLimit
	t := &relayRun{r: r}
	cases, err := r.crowds("sessions")
	if err != nil {
		return err
	}
	if t.idle, err = r.duration("idle", shortest); err != nil {
		return err
	}
	if t.forward.For, err = r.duration("for", 0); err != nil {
		return err
	}
	var pairs, reps int
	err = r.counts(bounded{"pairs", &pairs, 1, crowdMost / 2}, bounded{"bytes", &t.forward.Bytes, 1, relay.MaxPacket},
		bounded{"rate", &t.forward.Rate, 1, mostRate}, bounded{"reps", &reps, 1, mostReps})
	if err != nil {
		return err
	}
	for _, c := range cases {
		if n, _ := strconv.Atoi(c); pairs > n/2 { // checked above
			return fmt.Errorf("%w: pairs: %d of %s sessions", ErrSettings, pairs, c)
		}
	}
	t.forward.To = make([]ident.Short, pairs)
	if err := t.forward.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrSettings, err)
	}
	if err := r.checked(); err != nil {
		return err
	}
	r.planned = reps * len(cases)
	for rep := range reps {
		for _, c := range shuffled(cases, r.o.Seed, rep) {
			if err := r.measure(ctx, c, rep, func(ctx context.Context, rec *results.Record) error {
				n, _ := strconv.Atoi(c) // checked above
				return t.one(ctx, rec, n)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *relayRun) one(ctx context.Context, rec *results.Record, n int) error {
	g, err := t.r.gather(ctx, n, 2, world.New)
	if err != nil {
		return err
	}
	defer g.w.Close()
	if _, err := g.join(ctx); err != nil {
		return err
	}
	relay := g.w.Relay()
	empty, err := memory(relay.Pid(), "VmRSS")
	if err != nil {
		return err
	}
	var to []ident.Short
	if err := phase(ctx, rec, "bind", relay, func() (err error) { to, err = g.bind(ctx, n); return err }); err != nil {
		return err
	}
	rec.Measured["binds_per_s"] = float64(n) / (rec.Phases["bind"] / 1e3)
	if err := pause(ctx, rendezvousSettle); err != nil {
		return err
	}
	full, err := memory(relay.Pid(), "VmRSS")
	if err != nil {
		return err
	}
	rec.Measured["relay_empty_rss_mib"], rec.Measured["relay_rss_mib"] = empty, full
	rec.Measured["rss_kib_per_session"] = (full - empty) * 1024 / float64(n)
	if err := phase(ctx, rec, "idle", relay, func() error { return pause(ctx, t.idle) }); err != nil {
		return err
	}
	a := t.forward
	a.To = to[:len(a.To)]
	if err := g.forward(ctx, rec, a); err != nil {
		return err
	}
	stats, err := relay.Forwarded(ctx)
	if err != nil {
		return err
	}
	rec.Path, rec.OK = "relay", stats.Sessions == n && rec.Measured["received"] > 0
	if stats.Sessions != n {
		return fmt.Errorf("%d sessions at the end, want %d", stats.Sessions, n)
	}
	return nil
}

// bind has all instances bind at once, waits until the relay has proven their addresses, and returns how the last process's are addressed.
func (g *gathering) bind(ctx context.Context, n int) ([]ident.Short, error) {
	shorts := make([][]ident.Short, len(g.crowds))
	all, bctx := errgroup.WithContext(ctx)
	for i, p := range g.crowds {
		all.Go(func() (err error) { shorts[i], err = p.CrowdBind(bctx); return err })
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	for {
		s, err := g.w.Relay().Forwarded(ctx)
		if err != nil || s.Bound >= uint64(n) {
			return shorts[len(shorts)-1], err
		}
		if err := pause(ctx, rendezvousPoll); err != nil {
			return nil, fmt.Errorf("the relay has bound %d of %d: %w", s.Bound, n, err)
		}
	}
}

// forward has instances of the first process send to those of the last.
func (g *gathering) forward(ctx context.Context, rec *results.Record, a crowd.ForwardArgs) error {
	relay := g.w.Relay()
	before, err := relay.Forwarded(ctx)
	if err != nil {
		return err
	}
	var sent int64
	if err := phase(ctx, rec, "forward", relay, func() (err error) { sent, err = g.crowds[0].CrowdForward(ctx, a); return err }); err != nil {
		return err
	}
	after, err := relay.Forwarded(ctx)
	if err != nil {
		return err
	}
	state, err := g.state(ctx)
	if err != nil {
		return err
	}
	rec.Seconds, rec.Bytes = rec.Phases["forward"]/1e3, state.Packets*int64(a.Bytes)
	rec.Measured["sent"], rec.Measured["received"] = float64(sent), float64(state.Packets)
	rec.Measured["lost_percent"] = 100 * (1 - float64(state.Packets)/float64(max(sent, 1)))
	packets := float64(after.PacketsOut - before.PacketsOut)
	rec.Measured["kpps"] = packets / rec.Seconds / 1e3
	rec.Measured["goodput_mbps"] = mbps(rec.Bytes, rec.Seconds)
	if cores := rec.Measured["forward_cpu_percent"] / 100; cores > 0 {
		rec.Measured["kpps_per_core"] = rec.Measured["kpps"] / cores
		rec.Measured["mbps_per_core"] = packets * float64(a.Bytes) * 8 / 1e6 / rec.Seconds / cores
	}
	return nil
}
