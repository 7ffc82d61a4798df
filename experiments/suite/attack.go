package suite

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/flood"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/relay"
)

const (
	// What the attacker does.
	attackCalm    = "calm"       // nothing
	attackOther   = "other-port" // the same datagrams to a port of the relay's host that nobody reads: what they cost the machine anyway
	attackTokens  = "bad-tokens" // binds that are right in everything but who minted the token
	attackReplays = "replays"    // binds of admitted instances, captured on the line, from other addresses

	attackerHost = "attacker"
	newcomerHost = "newcomer"
	badFrames    = 256
	settleFor    = 500 * time.Millisecond // of stream and flood, before the goodput is measured
)

func attackCases() []string { return []string{attackCalm, attackOther, attackTokens, attackReplays} }

func attackNetwork() netip.Prefix { return netip.MustParsePrefix("198.18.0.0/16") }

// attack measures what an attacker who may not bind takes from those who have.
func attack() Experiment {
	return Experiment{
		Name: "attack",
		Summary: "a stream over the relay at a steady rate, while an attacker sends binds to it from many addresses: goodput of the stream, " +
			"what the relay makes of the binds, how long a newcomer takes to join, bytes that it sends to their addresses; beside the same flood to another port, since all share the machine's cores. Over plain cables: " +
			"emulated lines would carry fewer binds than an attacker sends",
		Settings: []Setting{
			{"cases", strings.Join(attackCases(), ","), "", "which to run"},
			{"reps", "5", "1", "repetitions of each case, in alternating order"},
			{"for", "20s", "5s", "how long the flood lasts"},
			{"rate", "100000", "", "binds a second"},
			{"from", "4096", "", "addresses that they come from, spread over 256 networks of /24"},
			{"load", "25MB", "", "bytes a second of the stream; 0: as fast as it goes"},
		},
		run: runAttack,
	}
}

type attackRun struct {
	w          *world.World
	seed       uint64
	args       flood.Args
	load       int64
	bad        [][]byte
	unread     netip.AddrPort
	unreadSock *net.UDPConn
}

func runAttack(ctx context.Context, r *run) (err error) {
	t := &attackRun{seed: r.o.Seed, args: flood.Args{Network: attackNetwork()}}
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	if t.args.For, err = r.duration("for", shortest); err != nil {
		return err
	}
	if t.args.For <= settleFor || t.args.For > time.Minute {
		return fmt.Errorf("%w: for: %v: want more than %v and at most a minute", ErrSettings, t.args.For, settleFor)
	}
	if t.args.Rate, err = r.count("rate", 1, mostRate); err != nil {
		return err
	}
	if t.args.Addresses, err = r.count("from", 1, 1<<(32-attackNetwork().Bits())); err != nil {
		return err
	}
	if t.load, err = r.bytes("load", 0, mostFlow); err != nil {
		return err
	}
	cases := r.list("cases")
	for _, c := range cases {
		if !slices.Contains(attackCases(), c) {
			return fmt.Errorf("%w: cases: no %q: there are %v", ErrSettings, c, attackCases())
		}
	}
	if len(cases) == 0 {
		return fmt.Errorf("%w: cases: none", ErrSettings)
	}
	if err := r.checked(); err != nil {
		return err
	}
	cfg := r.o.World
	// Two symmetric NATs: the pair stays on the relay.
	cfg.Hosts = []lab.Host{{Name: "a", NAT: lab.Symmetric}, {Name: "b", NAT: lab.Symmetric}, {Name: attackerHost}, {Name: newcomerHost, NAT: lab.PortRestricted}}
	if t.w, err = world.New(ctx, cfg); err != nil {
		return err
	}
	defer t.w.Close()
	if err := t.prepare(); err != nil {
		return err
	}
	defer t.unreadSock.Close()
	for rep := range reps {
		for _, c := range shuffled(cases, r.o.Seed, rep) {
			if err := r.measure(ctx, c, rep, func(ctx context.Context, rec *results.Record) error { return t.one(ctx, rec, c) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *attackRun) prepare() error {
	if err := t.w.Lab().AddNetwork(attackerHost, t.args.Network); err != nil {
		return err
	}
	var err error
	if t.bad, err = badBinds(); err != nil {
		return err
	}
	t.unread = netip.AddrPortFrom(t.w.Lab().Addr(world.Public), turnPort)
	return t.w.Lab().Do(world.Public, func() (err error) {
		t.unreadSock, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(t.unread))
		return err
	})
}

// badBinds are binds whose tokens a stranger has minted: nothing short of the check of a signature tells them from good ones.
func badBinds() ([][]byte, error) {
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	frames := make([][]byte, badFrames)
	for i := range frames {
		pub, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		m := relay.Bind{Nonce: relay.Nonce(pub[:8]), Time: time.Now()}
		copy(m.Token[:], token.Mint(stranger, world.RelayID(0), token.Token{Job: job.NewKey().ID(), Peer: [32]byte(pub), Expires: time.Now().Add(time.Hour)}))
		frames[i] = relay.AppendBind(nil, world.RelayID(0), key, m)
	}
	return frames, nil
}

func (t *attackRun) one(ctx context.Context, rec *results.Record, c string) error {
	pair, captured, err := t.meet(ctx)
	if err != nil {
		return err
	}
	defer pair.part()
	args := t.args
	switch c {
	case attackOther:
		args.To, args.Frames = t.unread, t.bad
	case attackTokens:
		args.To, args.Frames = t.w.RelayAddr(0), t.bad
	case attackReplays:
		args.To, args.Frames = t.w.RelayAddr(0), captured
	}
	attacker, err := t.w.Attacker(ctx, attackerHost)
	if err != nil {
		return err
	}
	defer attacker.Kill()
	newcomer, err := t.w.Function(ctx, newcomerHost)
	if err != nil {
		return err
	}
	defer newcomer.Kill()
	var poured, drained worker.Poured
	flow, fctx := errgroup.WithContext(ctx)
	flow.Go(func() (err error) { drained, err = pair.b.Drain(fctx); return err })
	flow.Go(func() (err error) {
		poured, err = pair.a.Pour(fctx, worker.PourArgs{To: pair.nameB, Seed: t.seed, BytesPerSecond: t.load})
		return err
	})
	var sent flood.Report
	flow.Go(func() (err error) {
		if sent, err = t.observe(fctx, rec, pair, attacker, newcomer, args); err != nil {
			return err
		}
		return pair.a.StopPour(fctx)
	})
	if err := flow.Wait(); err != nil {
		return err
	}
	rec.Path = "relay"
	rec.OK = drained.Bytes == poured.Bytes && drained.Digest == poured.Digest && sent.Exceeded == 0
	if sent.Exceeded > 0 {
		return fmt.Errorf("%d addresses got more bytes than they had sent", sent.Exceeded)
	}
	if drained.Generation > 1 {
		return errors.New("the pair left the relay")
	}
	return nil
}

// meet has two functions join, and captures the binds by which they do.
func (t *attackRun) meet(ctx context.Context) (pair couple, captured [][]byte, err error) {
	var tap *flood.Tap
	if err := t.w.Lab().Do(world.Public, func() (err error) { tap, err = flood.OpenTap(); return err }); err != nil {
		return pair, nil, err
	}
	defer tap.Close()
	watching, wctx := errgroup.WithContext(ctx)
	wctx, cancel := context.WithTimeout(wctx, 10*time.Second)
	defer cancel()
	watching.Go(func() (err error) {
		captured, err = tap.Capture(wctx, 2, t.w.RelayAddr(0).Port(), relay.TypeBind)
		return err
	})
	if pair, _, _, _, err = meet(ctx, t.w, "a", "b"); err != nil {
		return pair, nil, err
	}
	if err := watching.Wait(); err != nil {
		pair.part()
		return pair, nil, err
	}
	return pair, captured, nil
}

// observe floods, unless there is nothing to send, and notes how the stream fares meanwhile.
func (t *attackRun) observe(ctx context.Context, rec *results.Record, pair couple, attacker, newcomer *world.Proc, args flood.Args) (flood.Report, error) {
	for { // the stream is up when the first bytes are there
		if p, err := pair.b.Poured(ctx); err == nil && p.Bytes > 0 {
			break
		}
		if err := pause(ctx, flapPoll); err != nil {
			return flood.Report{}, err
		}
	}
	var sent flood.Report
	var flooding errgroup.Group
	if len(args.Frames) > 0 {
		flooding.Go(func() (err error) { sent, err = attacker.Flood(ctx, args); return err })
	}
	err := t.measure(ctx, rec, pair, newcomer, args.For)
	if err := errors.Join(err, flooding.Wait()); err != nil {
		return sent, err
	}
	if took := sent.Took.Seconds(); took > 0 {
		u, err := attacker.Usage(ctx)
		if err != nil {
			return sent, err
		}
		rec.Measured["flood_kpps"] = float64(sent.Sent) / took / 1e3
		rec.Measured["flood_cores"] = u.CPU.Seconds() / took
		rec.Measured["flood_bytes_out"], rec.Measured["flood_bytes_back"] = float64(sent.SentBytes), float64(sent.ReceivedBytes)
	}
	return sent, nil
}

// measure notes what the pair receives, and what the relay does, once flood and stream have settled.
func (t *attackRun) measure(ctx context.Context, rec *results.Record, pair couple, newcomer *world.Proc, flooded time.Duration) error {
	if err := pause(ctx, settleFor); err != nil {
		return err
	}
	stats, err := t.w.Relay().Forwarded(ctx)
	if err != nil {
		return err
	}
	l := &load{}
	l.add("sender", pair.a)
	l.add("receiver", pair.b)
	l.add("relay", t.w.Relay())
	if err := l.start(ctx); err != nil {
		return err
	}
	before, err := pair.b.Poured(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	var joining errgroup.Group
	joining.Go(func() error {
		j, err := newcomer.Join(ctx, t.w.JoinArgs(t.w.FreshName("newcomer")))
		rec.Phases["newcomer_relay"], rec.Phases["newcomer_joined"] = ms(j.Timings.Relay), ms(j.Timings.Total)
		return err
	})
	waiting := pause(ctx, flooded-settleFor)
	after, err := pair.b.Poured(ctx)
	rec.Seconds, rec.Bytes = time.Since(began).Seconds(), after.Bytes-before.Bytes
	if joined := joining.Wait(); joined != nil {
		err = errors.Join(err, fmt.Errorf("a newcomer: %w", joined))
	}
	if err := errors.Join(waiting, err); err != nil {
		return err
	}
	rec.Measured["goodput_mbps"] = mbps(rec.Bytes, rec.Seconds)
	if err := l.stop(ctx, rec, max(rec.Bytes, 1)); err != nil {
		return err
	}
	for _, who := range l.names { // of a rate that is given, the cores say more
		rec.Measured["cores_"+who] = rec.Measured["cpu_s_per_gb_"+who] * float64(rec.Bytes) / 1e9 / rec.Seconds
		delete(rec.Measured, "cpu_s_per_gb_"+who)
		delete(rec.Measured, "max_rss_mb_"+who)
	}
	now, err := t.w.Relay().Forwarded(ctx)
	if err != nil {
		return err
	}
	for _, reason := range []string{"stranger", "replay", "limit"} {
		rec.Measured["dropped_kpps_"+reason] = float64(now.Dropped[reason]-stats.Dropped[reason]) / rec.Seconds / 1e3
	}
	return nil
}
