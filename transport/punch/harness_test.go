package punch

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/natsim"
)

var (
	epoch  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	stun   = netip.MustParseAddrPort("192.0.2.53:3478")
	stun2  = netip.MustParseAddrPort("192.0.2.53:3479")
	testKy = [32]byte{1, 2, 3}
)

// open is a host without NAT; it is not a natsim.Kind.
const openHost = "open"

// place is where an instance lives.
type place struct {
	kind natsim.Kind
	open bool
}

func (p place) String() string {
	if p.open {
		return openHost
	}
	return p.kind.String()
}

// side is one instance: a Machine, a socket on the simulated network, and something to say.
type side struct {
	name string
	m    *Machine
	host *natsim.Host
	nat  *natsim.NAT
	kind natsim.Kind
	sim  *sim
	peer *side

	extra  map[int]*natsim.Host // sockets that the Machine asked for
	most   int                  // of them at once
	cands  []netip.AddrPort
	behind NAT
	mute   bool
	serial int // of the wake-up that counts
	frozen bool
	wall   time.Duration // by which its wall clock was set forward since the beginning; see simConfig.clocks
	wanted bool
	talks  bool // Traffic.Talking

	sent, used, received, relayReceived time.Time
	dataIn                              int
	size                                int // of the packets that say sends; 0 = small. A new path begins with small ones
	sizeOf                              uint16
	died                                time.Duration // the last pause that was too long
	history                             []State
	firstDirect                         time.Time
	atOnce                              int // wake-ups in a row that were due when they were asked for
}

// sim is two instances, the network between them and a relay.
type sim struct {
	t         testing.TB
	net       *natsim.Network
	a, b      *side // a is controlling
	rtt       time.Duration
	relayLoss float64
	relayDown bool
	pause     time.Duration
}

type simConfig struct {
	seed   uint64
	a, b   place
	rtt    time.Duration // by the relay, too
	loss   float64
	lan    bool          // b shares a's NAT
	pause  time.Duration // that other peers have shown to fit, at both sides
	clocks bool          // times have a monotonic part, as real ones do
	mute   bool          // neither side tells what NAT it is behind, as older versions do
	tweak  func(*Config)
}

func newSim(t testing.TB, c simConfig) *sim {
	begin := epoch
	if c.clocks {
		begin = time.Now()
	}
	s := &sim{t: t, rtt: c.rtt, pause: c.pause, net: natsim.New(c.seed, begin, c.rtt/2)}
	s.net.Loss = func(_, _ netip.Addr) float64 { return c.loss }
	s.relayLoss = c.loss
	s.a = s.newSide("a", c.a, 1, true, c.tweak)
	if c.lan {
		s.b = s.newSide("b", place{open: true}, 2, false, c.tweak)
		s.b.nat = s.a.nat
		s.b.host.Move(netip.MustParseAddrPort("10.1.0.3:4002"), s.a.nat)
	} else {
		s.b = s.newSide("b", c.b, 2, false, c.tweak)
	}
	s.a.peer, s.b.peer = s.b, s.a
	for _, x := range []*side{s.a, s.b} {
		x.mute = c.mute
		x.gather()
	}
	return s
}

func (s *sim) newSide(name string, p place, n byte, controlling bool, tweak func(*Config)) *side {
	rng := rand.New(rand.NewPCG(uint64(n), s.net.Rand().Uint64()))
	cfg := Config{Key: testKy, Controlling: controlling, Begun: s.net.Now(), Rand: func(b []byte) {
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
	}}
	if tweak != nil {
		tweak(&cfg)
	}
	x := &side{name: name, m: New(cfg), sim: s, kind: p.kind, wanted: true, extra: make(map[int]*natsim.Host)}
	public := netip.AddrFrom4([4]byte{198, 51, 100, n})
	if p.open {
		x.host = s.net.AddHost(netip.AddrPortFrom(public, 4000+uint16(n)), nil)
	} else {
		x.nat = s.net.AddNAT(p.kind, public)
		inner := netip.AddrFrom4([4]byte{10, n, 0, 2})
		x.host = s.net.AddHost(netip.AddrPortFrom(inner, 4000+uint16(n)), x.nat)
	}
	x.host.Receive = func(_ time.Time, from netip.AddrPort, data []byte) { x.receive(0, from, data) }
	return x
}

// gather finds the instance's candidates as STUN would.
func (x *side) gather() {
	x.cands = []netip.AddrPort{x.host.Addr()}
	if a, ok := x.host.MappedFor(stun); ok && a != x.host.Addr() {
		x.cands = append(x.cands, a)
	}
	if !x.mute {
		x.behind = x.classify()
	}
	x.step(SetLocal{Candidates: x.cands, NAT: x.behind})
}

// classify says what two STUN servers on one address show.
func (x *side) classify() NAT {
	a, ok := x.host.MappedFor(stun)
	b, _ := x.host.MappedFor(stun2)
	step := int(b.Port()) - int(a.Port())
	switch {
	case ok && a != b && x.behind.Mapping == MappingSequential && x.behind.Public.Addr() == a.Addr():
		return NAT{Mapping: MappingSequential, Step: x.behind.Step, Public: a} // as transport does
	case !ok:
		return NAT{Mapping: MappingBlocked}
	case a == b:
		return NAT{Mapping: MappingStable, Public: a}
	case step >= -5 && step <= 5:
		return NAT{Mapping: MappingSequential, Step: int8(step), Public: a}
	}
	return NAT{Mapping: MappingRandom, Public: a}
}

// open makes extra sockets as Open asks for.
func (x *side) open(o *Open) {
	opened := Opened{Number: o.First, Count: o.Count}
	answered := time.Duration(0)
	for i := range o.Count {
		id := o.First + i
		if x.extra[id] != nil {
			x.sim.t.Fatalf("%s at %v: socket %d twice", x.name, x.at(), id)
		}
		h := x.sim.net.AddHost(netip.AddrPortFrom(x.host.Addr().Addr(), uint16(20000+id)), x.nat)
		h.Receive = func(_ time.Time, from netip.AddrPort, data []byte) { x.receive(id, from, data) }
		x.extra[id] = h
		switch {
		case o.Sample && i == 0:
			opened.First, _ = h.MappedFor(stun)
		case o.Sample && i == o.Count-1:
		case o.To.IsValid():
			h.Send(o.To, o.Data)
		}
	}
	if o.Sample {
		answered = x.sim.rtt
		last := x.extra[o.First+o.Count-1]
		opened.Last, _ = last.MappedFor(stun2)
	}
	x.most = max(x.most, len(x.extra))
	x.sim.net.After(answered, func() { x.step(opened) })
}

func (x *side) closeExtra(keep int) {
	for id, h := range x.extra {
		if id != keep {
			h.Close()
			delete(x.extra, id)
		}
	}
}

// socket returns the host for a number.
func (x *side) socket(id int) *natsim.Host {
	if id == 0 {
		return x.host
	}
	h := x.extra[id]
	if h == nil {
		x.sim.t.Fatalf("%s at %v: socket %d is not open", x.name, x.at(), id)
	}
	return h
}

func (x *side) step(ev Event) {
	if x.frozen {
		return
	}
	before := x.m.State()
	now := x.sim.net.Now()
	out := x.m.Step(setWall(now, x.wall), ev)
	x.check(before, out)
	if out.Died > 0 {
		x.died = out.Died
	}
	for _, d := range out.Send {
		if d.To.IsValid() {
			x.socket(d.Socket).Send(d.To, d.Data)
			continue
		}
		x.relay(func() { x.peer.step(Packet{Data: d.Data}) })
	}
	if out.Close {
		x.closeExtra(out.Keep)
	}
	if out.Open != nil {
		x.open(out.Open)
	}
	x.serial++
	if serial := x.serial; !out.Wake.IsZero() {
		if x.atOnce++; out.Wake.After(now) {
			x.atOnce = 0
		} else if x.atOnce > 4 {
			x.sim.t.Fatalf("%s at %v: wake-ups do not move on: %+v", x.name, x.at(), x.m.State())
		}
		x.sim.net.After(out.Wake.Sub(now), func() {
			if serial == x.serial {
				x.tick()
			}
		})
	}
}

// check holds what must be true after any Step.
func (x *side) check(before State, out Output) {
	s := x.m.State()
	bad := func(what string) { x.sim.t.Fatalf("%s at %v: %s: %+v", x.name, x.at(), what, s) }
	selected := s.Phase == Direct || s.Phase == Doubt
	if (s.Route == RouteDirect || s.Route == RouteBoth) != selected || s.Path.IsValid() != selected {
		bad("route, path and phase disagree")
	}
	if selected && s.Generation < 2 || s.Generation < before.Generation {
		bad("generation")
	}
	if s.Path != before.Path && s.Path.IsValid() && s.Generation == before.Generation {
		bad("path changed inside a generation")
	}
	if (s.Reason == "") != (s.Phase == Direct) {
		bad("reason")
	}
	if changed := s.Phase != before.Phase || s.Route != before.Route || s.Path != before.Path; changed {
		if !out.Changed || !s.Since.Equal(x.sim.net.Now()) {
			bad("change not told")
		}
		x.history = append(x.history, s)
	}
	if s.Phase == Direct && x.firstDirect.IsZero() {
		x.firstDirect = x.sim.net.Now()
	}
	if max := maxProbes*ProbeSize + maxNominations*(PaddedSize+ProbeSize); s.Counters.Target > max {
		bad("too much for one address")
	}
	for _, d := range out.Send {
		if len(d.Data) > MaxSize || d.Data[0] < 0x10 || d.Data[0] > 0x1f {
			bad("datagram")
		}
	}
}

func (x *side) at() time.Duration { return x.sim.net.Now().Sub(epoch) }

func (x *side) tick() {
	x.step(Traffic{Sent: x.sent, Used: x.used, Size: x.size, Received: x.received, RelayReceived: x.relayReceived, Wanted: x.wanted, Talking: x.talks, KeepAlive: x.sim.pause})
}

// relay carries something over the relay.
func (x *side) relay(f func()) {
	s := x.sim
	if s.relayDown || s.net.Rand().Float64() < s.relayLoss {
		return
	}
	s.net.After(s.rtt/2, f)
}

const (
	dataAsk    = 0x40
	dataAnswer = 0x41
)

// say sends one packet of data by the present route, with the generation as tag, as the hub does.
func (x *side) say(kind byte) {
	s := x.m.State()
	tag := byte(0)
	x.used = x.sim.net.Now()
	if s.Route != RouteRelay {
		tag = byte(s.Generation)
		x.sent = x.sim.net.Now()
		if x.sizeOf != s.Generation {
			x.size, x.sizeOf = 0, s.Generation
		}
		x.socket(s.Socket).Send(s.Path, append([]byte{kind, tag}, make([]byte, max(x.size-2, 0))...))
	}
	if s.Route != RouteDirect {
		x.relay(func() { x.peer.hearData(0, netip.AddrPort{}, kind, tag) })
	}
}

func (x *side) hearData(socket int, from netip.AddrPort, kind, tag byte) {
	if x.frozen {
		return
	}
	x.dataIn++
	x.used = x.sim.net.Now()
	s := x.m.State()
	switch {
	case from.IsValid() && from == s.Path && socket == s.Socket:
		x.received = x.sim.net.Now()
	case !from.IsValid() && tag != 0 && tag == byte(s.Generation):
		x.relayReceived = x.sim.net.Now()
	}
	if kind == dataAsk {
		x.say(dataAnswer)
	}
}

func (x *side) receive(socket int, from netip.AddrPort, data []byte) {
	if data[0] >= 0x40 {
		x.hearData(socket, from, data[0], data[1])
		return
	}
	x.step(Packet{From: from, Socket: socket, Data: data})
}

// talk makes x ask every gap, and both sides tick every 50 ms, for d.
func (s *sim) talk(x *side, gap, d time.Duration) {
	end := s.net.Now().Add(d)
	var ask, tick func()
	ask = func() {
		if s.net.Now().Before(end) {
			x.say(dataAsk)
			s.net.After(gap, ask)
		}
	}
	tick = func() {
		if s.net.Now().Before(end) {
			s.a.tick()
			s.b.tick()
			s.net.After(50*time.Millisecond, tick)
		}
	}
	ask()
	tick()
	s.net.Run(d)
}

// connect is the ordinary course: b has a's offer and answers now; a gets the answer after signal.
func (s *sim) connect(answering *side, signal time.Duration) {
	other := answering.peer
	answering.step(Start{Remote: other.cands, NAT: other.behind})
	s.net.After(signal, func() { other.step(Start{Remote: answering.cands, NAT: answering.behind}) })
}

func (s *sim) bothDirect() bool {
	return s.a.m.State().Phase == Direct && s.b.m.State().Phase == Direct &&
		s.a.m.State().Generation == s.b.m.State().Generation
}

// waitDirect runs until both are direct and agree, and fails if that takes longer than d.
func (s *sim) waitDirect(d time.Duration) {
	s.t.Helper()
	if s.bothDirect() {
		return
	}
	if !s.net.RunUntil(s.net.Now().Add(d), s.bothDirect) {
		s.t.Fatalf("not direct after %v:\na %+v\nb %+v", d, s.a.m.State(), s.b.m.State())
	}
}

func (x *side) story() string {
	out := x.name + ":"
	for _, h := range x.history {
		out += fmt.Sprintf(" %v=%v/%v#%d(%s)", h.Since.Sub(epoch), h.Phase, h.Path, h.Generation, h.Reason)
	}
	return out
}
