package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/rpc"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
	"github.com/fnwire/fnwire/internal/testserver"
)

// turnPort is the first port of servers that are not fnwire's; each has its own.
const turnPort = 5000

// contender is one of the cases of throughput.
type contender struct {
	name      string
	kind      string // "direct" or "by a relay": those of a kind are compared
	path      string // what a record says of it: direct or relay for fnwire, else a peer's name
	module    string // of the program; "" is this one
	sender    string // kind of end
	receiver  string
	server    string // kind of server; "" for none
	serverIn  string // module of that
	public    bool   // the receiver is the public host
	relayed   bool   // the ends stay on the server's relay
	configure string // in words, for the report
}

// way is what a record says of it, among those of its kind.
func (c contender) way() string {
	if c.sender == "" {
		return wayFnwire
	}
	return c.name
}

const quicWords = "quic-go with fnwire's windows (16 MiB a stream, 24 MiB a connection) and X25519"

// contenders are all cases, in the order in which they are shown.
func contenders() []contender {
	return []contender{
		{name: "fnwire-direct", kind: "direct", path: "direct", configure: "as shipped; one stream of a connection"},
		{
			name: "plain-quic", kind: "direct", path: "plain-quic", sender: worker.PeerPlainQUIC, receiver: worker.PeerPlainQUIC,
			configure: quicWords + " on its own punched sockets of 7 MiB; GSO and path MTU discovery as quic-go does them",
		},
		{
			name: "tls-tcp", kind: "direct", path: "tls-tcp", sender: worker.PeerTLS, receiver: worker.PeerTLS, public: true,
			configure: "crypto/tls, TLS 1.3 on one TCP connection of the kernel's defaults, to the public host: nobody relays, nobody punches",
		},
		{
			name: "libp2p-direct", kind: "direct", path: "libp2p-direct", module: "libp2p", sender: "libp2p", receiver: "libp2p",
			server: "libp2p-relay", serverIn: "libp2p",
			configure: "go-libp2p with its own defaults over QUIC: circuit relay v2, then hole punching (DCUtR); measured once direct",
		},
		{name: "fnwire-relay", kind: "by a relay", path: "relay", configure: "as shipped; a socket for each core and one for binds"},
		{
			name: "coturn", kind: "by a relay", path: "coturn", module: "pionturn", sender: "plain", receiver: "turn", server: worker.PeerCoturn,
			configure: "coturn of Debian, a relay thread for each core, UDP only, no log; " + quicWords +
				" to one allocation of the receiver's, which it has by the client of pion/turn and channel data; the sender on a plain socket",
		},
		{
			name: "pion-turn", kind: "by a relay", path: "pion-turn", module: "pionturn", sender: "plain", receiver: "turn", server: "pion-turn", serverIn: "pionturn",
			configure: "pion/turn with a socket for each core (SO_REUSEPORT) and buffers of 7 MiB; " + quicWords +
				" to one allocation of the receiver's, by its client and channel data; the sender on a plain socket",
		},
		{
			name: "libp2p-relay", kind: "by a relay", path: "libp2p-relay", module: "libp2p", sender: "libp2p", receiver: "libp2p",
			server: "libp2p-relay", serverIn: "libp2p", relayed: true,
			configure: "go-libp2p, circuit relay v2 without limits over QUIC on both legs; no hole punching",
		},
	}
}

func contenderNames() []string {
	var names []string
	for _, c := range contenders() {
		names = append(names, c.name)
	}
	return names
}

// throughput measures how fast one stream goes and what it costs, beside what others do.
func throughput() Experiment {
	return Experiment{
		Name: "throughput",
		Summary: "one warm stream with a CRC at both ends, through two port-restricted NATs: fnwire directly and by " +
			"relay, and others directly and by their relays; goodput, CPU of both ends and of the relay, packets a second. Cases whose " +
			"program is not installed are skipped, and the report says how to install it",
		Settings: []Setting{
			{"bytes", "512MiB", "128MiB", "size of the state whose goodput is measured"},
			{"reps", "5", "2", "repetitions of each case, in alternating order"},
			{"cases", strings.Join(contenderNames(), ","), "", "which to run"},
			profileSetting(),
		},
		run: runThroughput,
	}
}

type throughputRun struct {
	w          *world.World
	cold, warm state
	servers    map[string]*serving // by kind
}

// serving is a server that stands for the whole experiment, or what kept it from that.
type serving struct {
	peer.Client
	said string
	err  error
}

func runThroughput(ctx context.Context, r *run) error {
	r.limit = transferLimit
	size, err := r.bytes("bytes", coldBytes, mostBytes)
	if err != nil {
		return err
	}
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	cases := r.list("cases")
	all := make(map[string]contender)
	for _, c := range contenders() {
		all[c.name] = c
	}
	for _, c := range cases {
		if _, ok := all[c]; !ok {
			return fmt.Errorf("%w: cases: no %q: there are %v", ErrSettings, c, contenderNames())
		}
	}
	if len(cases) == 0 {
		return fmt.Errorf("%w: cases: none", ErrSettings)
	}
	if err := r.checked(); err != nil {
		return err
	}
	t := &throughputRun{servers: make(map[string]*serving)}
	if t.warm, err = r.realState(ctx, size); err != nil {
		return err
	}
	if t.cold, err = t.warm.cut(ctx, coldBytes); err != nil {
		return err
	}
	programs := make(map[string]string) // by module
	missing := make(map[string]error)   // by case
	for _, name := range cases {
		c := all[name]
		for _, m := range []string{c.module, c.serverIn} {
			if m == "" || programs[m] != "" || missing[name] != nil {
				continue
			}
			r.o.Progress("throughput: building " + m)
			if programs[m], err = r.build(ctx, m); err != nil {
				missing[name] = err
			}
		}
	}
	cfg := r.o.World
	cfg.Hosts = []lab.Host{{Name: "a", NAT: lab.PortRestricted}, {Name: "b", NAT: lab.PortRestricted}}
	if t.w, err = r.raise(ctx, cfg); err != nil {
		return err
	}
	defer t.w.Close()
	for rep := range reps {
		for _, name := range shuffled(cases, r.o.Seed, rep) {
			c := all[name]
			err := r.measure(ctx, name, rep, func(ctx context.Context, rec *results.Record) error {
				rec.Config, rec.Way = c.configure, c.way()
				rec.Work = fmt.Sprintf("a stream of %s, %s", workload.FormatBytes(t.warm.Size()), c.kind)
				err := missing[name]
				if err == nil && c.sender == "" {
					err = t.fnwire(ctx, rec, c)
				} else if err == nil {
					err = t.peer(ctx, rec, c, programs)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// note fills in a transfer on a connection that was there.
func (t *throughputRun) note(rec *results.Record, path string, began, first, last int64) {
	rec.Path, rec.Bytes, rec.OK = path, t.warm.Size(), true
	rec.Seconds = since(began, last) / 1e3
	rec.Measured["goodput_mbps"] = mbps(rec.Bytes, rec.Seconds)
	rec.Measured["warm_first_byte_ms"] = since(began, first)
}

// perCore notes what the relay would carry if it had a core to itself and did nothing else.
func perCore(rec *results.Record, packets float64) {
	if cost := rec.Measured["cpu_s_per_gb_relay"]; cost > 0 {
		rec.Measured["relay_mbps_per_core"] = 8e3 / cost
		if packets > 0 {
			rec.Measured["relay_kpps_per_core"] = packets / (cost * float64(rec.Bytes) / 1e9) / 1e3
		}
	}
	if packets > 0 {
		rec.Measured["kpps"] = packets / rec.Seconds / 1e3
	}
}

func (t *throughputRun) fnwire(ctx context.Context, rec *results.Record, c contender) error {
	couple, _, _, _, err := meet(ctx, t.w, "a", "b")
	if err != nil {
		return err
	}
	defer couple.part()
	policy := map[string]string{"direct": "auto", "relay": "relay"}[c.path]
	stream := func(s state) (worker.Sent, worker.Received, error) {
		return together(ctx,
			func(ctx context.Context) (worker.Sent, error) {
				return couple.a.SendStream(ctx, worker.StreamArgs{To: couple.nameB, Path: policy, Source: s.Source, Check: onestream.CRC32C})
			},
			func(ctx context.Context) (worker.Received, error) {
				return couple.b.ReceiveStream(ctx, onestream.CRC32C)
			}, s, onestream.CRC32C)
	}
	if _, _, err := stream(t.cold); err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	if c.path == "direct" {
		if p, err := couple.direct(ctx, directTimeout); err != nil || p.Path != c.path {
			return errors.Join(err, fmt.Errorf("the path is %s after %v: %s", p.Path, directTimeout, p.Reason))
		}
	}
	l := &load{}
	l.add("sender", couple.a)
	l.add("receiver", couple.b)
	l.add("relay", t.w.Relay())
	if err := l.start(ctx); err != nil {
		return err
	}
	before, err := t.w.Relay().Forwarded(ctx)
	if err != nil {
		return err
	}
	sent, got, err := stream(t.warm)
	if err != nil {
		return err
	}
	if err := l.stop(ctx, rec, t.warm.Size()); err != nil {
		return err
	}
	after, err := t.w.Relay().Forwarded(ctx)
	if err != nil {
		return err
	}
	t.note(rec, sent.Receipt.Path, sent.Began, got.First, got.Last)
	if rec.Path != c.path {
		return fmt.Errorf("went over %s, want %s: %s", rec.Path, c.path, sent.Receipt.Reason)
	}
	if c.path != "relay" {
		delete(rec.Measured, "cpu_s_per_gb_relay") // it had nothing to do with it
		return nil
	}
	perCore(rec, float64(after.PacketsOut-before.PacketsOut))
	return nil
}

// serve returns the server of a contender, which is started the first time.
func (t *throughputRun) serve(ctx context.Context, c contender, programs map[string]string) *serving {
	s := t.servers[c.server]
	if s != nil {
		return s
	}
	s = &serving{}
	t.servers[c.server] = s
	listen := netip.AddrPortFrom(t.w.Lab().PublicAddr(world.Public), uint16(turnPort+len(t.servers)))
	if s.Client, _, s.err = t.w.Peer(ctx, world.Public, programs[c.serverIn]); s.err == nil {
		s.said, s.err = s.Serve(ctx, c.server, listen)
	}
	return s
}

// used is what a server and its own processes have used.
func (s *serving) used(ctx context.Context) (rpc.Usage, error) {
	u, err := s.Usage(ctx)
	if err != nil {
		return u, err
	}
	more, err := s.Served(ctx)
	return rpc.Usage{CPU: u.CPU + more.CPU, MaxRSSBytes: cmp.Or(more.MaxRSSBytes, u.MaxRSSBytes)}, err
}

// peer measures what is not fnwire.
func (t *throughputRun) peer(ctx context.Context, rec *results.Record, c contender, programs map[string]string) error {
	var server *serving
	args := peer.OpenArgs{Relayed: c.relayed}
	if c.server != "" {
		// It outlives this measurement, whose context must not be its life.
		if server = t.serve(context.WithoutCancel(ctx), c, programs); server.err != nil {
			return server.err
		}
		args.Server = server.said
	}
	receiver := "b"
	if c.public {
		receiver = world.Public
	}
	a, procA, err := t.w.Peer(ctx, "a", programs[c.module])
	if err != nil {
		return err
	}
	defer procA.Stop() //nolint:errcheck // the measurement is made
	b, procB, err := t.w.Peer(ctx, receiver, programs[c.module])
	if err != nil {
		return err
	}
	defer procB.Stop() //nolint:errcheck // as above
	if err := t.connect(ctx, c, a, b, receiver, args); err != nil {
		return err
	}
	if _, _, err := carry(ctx, a, b, t.cold); err != nil {
		return fmt.Errorf("cold: %w", err)
	}
	l := &load{}
	l.add("sender", procA)
	l.add("receiver", procB)
	if err := l.start(ctx); err != nil {
		return err
	}
	packets, err := a.Packets(ctx)
	if err != nil {
		return err
	}
	var before rpc.Usage
	if server != nil {
		if before, err = server.used(ctx); err != nil {
			return err
		}
	}
	sent, got, err := carry(ctx, a, b, t.warm)
	if err != nil {
		return err
	}
	if server != nil {
		after, err := server.used(ctx)
		if err != nil {
			return err
		}
		if c.relayed || c.module == "pionturn" {
			rec.Measured["cpu_s_per_gb_relay"] = (after.CPU - before.CPU).Seconds() / (float64(t.warm.Size()) / 1e9)
			rec.Measured["max_rss_mb_relay"] = float64(after.MaxRSSBytes) / 1e6
		}
	}
	if err := l.stop(ctx, rec, t.warm.Size()); err != nil {
		return err
	}
	end, err := a.Packets(ctx)
	if err != nil {
		return err
	}
	t.note(rec, c.path, sent.Began, got.First, got.Last)
	// Both ways, as the relay has them.
	perCore(rec, float64(end.Sent-packets.Sent+end.Received-packets.Received))
	return nil
}

func (t *throughputRun) connect(ctx context.Context, c contender, a, b peer.Client, receiver string, args peer.OpenArgs) error {
	open := func(p peer.Client, host, kind string, receives bool) (string, error) {
		mine := args
		mine.Public, mine.Receives = t.w.Lab().PublicAddr(host), receives
		return p.Open(ctx, kind, mine)
	}
	saysB, err := open(b, receiver, c.receiver, true)
	if err != nil {
		return err
	}
	saysA, err := open(a, "a", c.sender, false)
	if err != nil {
		return err
	}
	connecting, cctx := errgroup.WithContext(ctx)
	connecting.Go(func() error { return a.Connect(cctx, saysB) })
	connecting.Go(func() error { return b.Connect(cctx, saysA) })
	return connecting.Wait()
}

// skipped tells whether a measurement was not made because something is not installed.
func skipped(err error) bool {
	return errors.As(err, new(*testserver.MissingError)) || errors.Is(err, peer.ErrMissing) || err != nil && strings.Contains(err.Error(), peer.ErrMissing.Error())
}
