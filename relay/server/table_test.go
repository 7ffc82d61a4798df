package server

import (
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"testing"
	"testing/quick"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/relay"
)

func at(n byte, port uint16) origin {
	return origin{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, n, 1}), port)}
}

// pipe is a connection to nowhere.
func pipe() *link {
	c, _ := net.Pipe()
	return &link{raw: c, done: make(chan struct{})}
}

// consistent checks the counts and indices against one another.
func (t *table) consistent(tb testing.TB) {
	tb.Helper()
	sessions, perJob, perPrefix := 0, map[job.ID]int{}, map[netip.Prefix]int{}
	all := map[*session]bool{}
	for short, h := range t.byShort {
		if h.active == nil && h.pending != nil {
			tb.Error("pending without active")
		}
		for _, s := range []*session{h.active, h.pending} {
			if s == nil {
				continue
			}
			if s.short != short || s.proven.Load() && s == h.pending {
				tb.Errorf("%v: wrong session", short)
			}
			all[s] = true
			sessions++
			perJob[s.job]++
			perPrefix[s.prefix]++
		}
	}
	for a, s := range t.byOrigin {
		if s.at != a || !all[s] {
			tb.Errorf("%v: stale session", a)
		}
	}
	if sessions != t.sessions || len(perJob) != len(t.perJob) || len(perPrefix) != len(t.perPrefix) {
		tb.Errorf("counted %d sessions, %d jobs, %d prefixes; have %d, %d, %d", sessions, len(perJob), len(perPrefix), t.sessions, len(t.perJob), len(t.perPrefix))
	}
	for p, n := range perPrefix {
		if t.perPrefix[p] != n || n > t.limits.PerPrefix {
			tb.Errorf("%v: %d sessions, have %d, limit %d", p, n, t.perPrefix[p], t.limits.PerPrefix)
		}
	}
	holders := map[job.ID]int{}
	for _, h := range t.byShort {
		holders[h.job]++
	}
	if !maps.Equal(holders, t.holders) {
		tb.Errorf("%v instances remembered, counted %v", holders, t.holders)
	}
	for j, n := range holders {
		if j != (job.ID{}) && n > remembered*t.limits.PerJob { // revocations are the operator's
			tb.Errorf("%d instances of a job are remembered", n)
		}
	}
	if len(t.byShort) > remembered*t.limits.Sessions || sessions > 2*t.limits.Sessions {
		tb.Errorf("table grew to %d and %d", len(t.byShort), sessions)
	}
}

// Whatever happens in whatever order, the table stays consistent and bounded.
func TestTableStaysConsistent(t *testing.T) {
	type op struct {
		Kind, Short, Job, Net, Port byte
		Stamp                       uint8
		Seconds                     uint8
	}
	run := func(ops []op) bool {
		tab := newTable(Limits{Sessions: 6, PerJob: 4, PerPrefix: 5})
		now := time.Duration(0)
		var last *session
		var origins [2][5]origin // the last two of each are connections
		for n := range origins {
			for port := range origins[n] {
				origins[n][port] = at(byte(n), uint16(port))
				if port > 2 {
					origins[n][port].link = pipe()
				}
			}
		}
		for _, o := range ops {
			now += time.Duration(o.Seconds) * time.Second / 16
			short := ident.Short{o.Short % 12}
			switch o.Kind % 6 {
			case 0, 1:
				s, _ := tab.bind(request{
					short: short, job: job.ID{o.Short % 3}, from: origins[o.Net%2][o.Port%5],
					nonce: relay.Nonce{o.Stamp}, stamp: int64(now/time.Millisecond) + int64(o.Stamp%4), fresh: now + freshFor, expires: now + time.Minute, bytes: relay.BindBytes,
				}, now)
				if s != nil {
					last = s
				}
			case 2:
				if last != nil {
					tab.prove(last)
				}
			case 3:
				tab.sweep(now)
			case 5:
				tab.leave(origins[o.Net%2][o.Port%5])
			case 4:
				if o.Stamp < 20 {
					tab.revoke(short, now)
				}
			}
			tab.consistent(t)
			if t.Failed() {
				return false
			}
		}
		tab.sweep(now + 2*revokedFor)
		return len(tab.byShort) == 0 && len(tab.byOrigin) == 0 && tab.sessions == 0
	}
	if err := quick.Check(run, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

// TestIdleEnds: functions live for seconds and do not say goodbye; what they leave must not count for as
// long as a token holds.
func TestIdleEnds(t *testing.T) {
	tab := newTable(Limits{}.withDefaults())
	r := request{short: ident.Short{1}, from: at(2, 1), stamp: 1, expires: time.Hour, bytes: relay.BindBytes}
	s, _ := tab.bind(r, 0)
	if s == nil {
		t.Fatal("refused")
	}
	tab.prove(s)
	if tab.source(r.from, idleFor-1) == nil {
		t.Error("ended too early")
	}
	heard := idleFor - 1
	if tab.dest(r.short, heard+idleFor-1) == nil || tab.dest(r.short, heard+idleFor) != nil || tab.source(r.from, heard+idleFor) != nil {
		t.Error("ends at the wrong time")
	}
	if n := tab.sweep(heard + idleFor); n != 1 || tab.sessions != 0 {
		t.Errorf("%d ended, %d left", n, tab.sessions)
	}
}

// TestJobCannotUseUpMemory: a member of a job has tokens for as many identities as it likes.
func TestJobCannotUseUpMemory(t *testing.T) {
	tab := newTable(Limits{Sessions: 8, PerJob: 4, PerPrefix: 100})
	now := time.Duration(0)
	one := request{job: job.ID{1}, stamp: 1, expires: time.Hour, bytes: relay.BindBytes}
	var last relay.Reason
	for i := range uint64(100) {
		binary.BigEndian.PutUint64(one.short[:], i+1)
		one.from, one.fresh = at(2, uint16(i+1)), now+freshFor
		_, last = tab.bind(one, now)
		if i%4 == 3 {
			now += unprovenFor
			tab.sweep(now)
		}
		if now > freshFor/2 {
			break
		}
	}
	if last != relay.ReasonJobFull {
		t.Errorf("refused for reason %d", last)
	}
	other := request{short: ident.Short{9}, job: job.ID{2}, from: at(3, 1), stamp: 1, expires: time.Hour, bytes: relay.BindBytes}
	if s, reason := tab.bind(other, now); s == nil {
		t.Errorf("another job is refused: %v", reason)
	}
	tab.consistent(t)
}

// What was not proven in time ends, and its bind stays worthless.
func TestUnprovenEnds(t *testing.T) {
	tab := newTable(Limits{}.withDefaults())
	r := request{short: ident.Short{1}, from: at(2, 1), stamp: 1, fresh: freshFor, expires: time.Hour, bytes: relay.BindBytes}
	if s, _ := tab.bind(r, 0); s == nil {
		t.Fatal("refused")
	}
	if tab.source(r.from, unprovenFor-1) == nil || tab.source(r.from, unprovenFor) != nil || tab.dest(r.short, unprovenFor) != nil {
		t.Error("ends at the wrong time")
	}
	if n := tab.sweep(unprovenFor); n != 1 {
		t.Errorf("%d ended", n)
	}
	thief := r
	thief.from = at(3, 1)
	if s, reason := tab.bind(thief, unprovenFor); s != nil || reason != 0 {
		t.Error("a replayed bind was taken")
	}
	// Once forgotten here, the bind is older than freshFor allows.
	tab.sweep(freshFor)
	if len(tab.byShort) != 0 {
		t.Error("remembered for longer than needed")
	}
}

func TestBucket(t *testing.T) {
	b := bucket{rate: 100}
	if !b.take(25, 0) || b.take(1, 0) {
		t.Error("holds more or less than a quarter of a second's worth")
	}
	if !b.take(1000, 10*time.Millisecond) {
		t.Error("one batch of debt is allowed")
	}
	if b.take(1, 9*time.Second) || !b.take(1, 10100*time.Millisecond) {
		t.Error("the debt is not paid off at the rate")
	}
	unlimited := bucket{}
	if !unlimited.take(1<<30, 0) {
		t.Error("zero is a limit")
	}
}

func TestGateIsPerNetwork(t *testing.T) {
	g := newGate(gateRate)
	passed := 0
	for range 2 * gateRate {
		if g.admits(netip.MustParseAddr("192.0.2.7"), 0) {
			passed++
		}
	}
	if passed != gateRate/4 {
		t.Errorf("%d of a flood passed, want %d", passed, gateRate/4)
	}
	if g.admits(netip.MustParseAddr("192.0.2.99"), 0) {
		t.Error("a neighbour in the /24 is another network")
	}
}

func FuzzSTUN(f *testing.F) {
	for _, b := range hostile.Of(
		[]byte("\x00\x01\x00\x10\x21\x12\xa4\x42abcdefghijkl\x80\x22\x00\x0cfnwire fnwir"),
		[]byte("\x00\x01\x00\x18\x21\x12\xa4\x42abcdefghijkl\x00\x03\x00\x04\x00\x00\x00\x02\x80\x22\x00\x0cfnwire fnwir"),
	) {
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		from := at(2, 4660).addr
		if v6 {
			from = netip.MustParseAddrPort("[2001:db8::1]:4660")
		}
		out, change := appendSTUN(nil, b, from)
		if change && len(out) == 0 {
			t.Error("no answer, from another port")
		}
		if len(out) > len(b) {
			t.Errorf("%d bytes for %d", len(out), len(b))
		}
		if len(out) > 0 && string(out[4:20]) != string(b[4:20]) {
			t.Error("another transaction")
		}
	})
}

// The layout of RFC 8489, section 14.2; pion/stun is the outside truth for the rest.
func TestSTUNGolden(t *testing.T) {
	request := []byte("\x00\x01\x00\x10\x21\x12\xa4\x42\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x80\x22\x00\x0cfnwire fnwir")
	want := "\x01\x01\x00\x0c\x21\x12\xa4\x42\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x00\x20\x00\x08\x00\x01\x33\x26\xe1\x12\xa6\x43"
	if got, change := appendSTUN(nil, request, at(2, 4660).addr); string(got) != want || change {
		t.Errorf("got  %x, %v\nwant %x", got, change, want)
	}
	ask := func(attribute string) []byte {
		b := append([]byte(nil), request...)
		b[3] += 8
		return append(b, attribute...)
	}
	if got, change := appendSTUN(nil, ask("\x00\x03\x00\x04\x00\x00\x00\x02"), at(2, 4660).addr); string(got) != want || !change {
		t.Errorf("other port: got  %x, %v\nwant %x", got, change, want)
	}
	if got, change := appendSTUN(nil, ask("\x00\x03\x00\x04\x00\x00\x00\x00"), at(2, 4660).addr); string(got) != want || change {
		t.Errorf("no change: got  %x, %v\nwant %x", got, change, want)
	}
	for name, attribute := range map[string]string{
		"other address":          "\x00\x03\x00\x04\x00\x00\x00\x04",
		"other address and port": "\x00\x03\x00\x04\x00\x00\x00\x06",
		"too long":               "\x00\x03\x00\x05\x00\x00\x00\x02",
	} {
		if got, _ := appendSTUN(nil, ask(attribute), at(2, 4660).addr); len(got) > 0 {
			t.Errorf("%s: answered", name)
		}
	}
}

// ANCHORS, relay: 10^5 fresh keys from one /24 cannot starve an admitted job, though all show tokens and though they
// are of eight jobs: what they get is bounded by their network.
func TestHundredThousandKeysFromOneNetwork(t *testing.T) {
	tab := newTable(Limits{}.withDefaults())
	bind := func(n uint32, j byte, from origin, stamp int64) relay.Reason {
		r := request{job: job.ID{j}, from: from, nonce: relay.Nonce{byte(stamp)}, stamp: stamp, fresh: freshFor, expires: time.Hour, bytes: relay.BindBytes}
		binary.BigEndian.PutUint32(r.short[:], n)
		r.short[4] = j
		s, reason := tab.bind(r, 0)
		if s != nil {
			if _, ok := tab.prove(s); !ok {
				t.Fatalf("key %d of job %d: not proven", n, j)
			}
		}
		return reason
	}
	inside, outside := at(1, 1), at(2, 1)
	for _, from := range []origin{inside, outside} { // two instances of the job, one of them a neighbour of the flood
		if reason := bind(uint32(from.addr.Addr().As4()[2]), 100, from, 1); reason != 0 {
			t.Fatal(reason)
		}
	}
	got := 0
	for n := range uint32(100_000) {
		from := origin{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 1, byte(n)}), uint16(2+n>>8))}
		if bind(1000+n, byte(n%8), from, 1) == 0 {
			got++
		}
	}
	if got >= tab.limits.PerPrefix {
		t.Errorf("the flood has %d sessions", got)
	}
	for _, from := range []origin{inside, outside} { // who is there stays, and renews
		if reason := bind(uint32(from.addr.Addr().As4()[2]), 100, from, 2); reason != 0 {
			t.Errorf("renewal from %v: %v", from.addr, reason)
		}
	}
	for n := range uint32(1000) { // others of the job get in, from other networks
		if reason := bind(500+n, 100, origin{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}), uint16(1+n))}, 1); reason != 0 {
			t.Fatalf("instance %d of the job: %v", n, reason)
		}
	}
}
