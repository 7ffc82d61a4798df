package punch

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/natsim"
)

// same compares two States but for the count of what was refused.
func same(a, b State) bool {
	a.Counters.Refused, b.Counters.Refused = 0, 0
	return a == b
}

// TestAttacks gives a Machine, in each of its phases, packets that must change nothing and be
// answered by nothing.
func TestAttacks(t *testing.T) {
	type capture struct {
		from, to netip.AddrPort // zero = relay
		data     []byte
	}
	for _, phase := range []string{"idle", "probing", "direct", "doubt"} {
		s := newSim(t, simConfig{seed: 4, a: withoutNAT, b: withoutNAT, rtt: 40 * ms})
		var wire []capture
		s.net.Tap = func(h *natsim.Host, to netip.AddrPort, data []byte) {
			if data[0] < 0x40 {
				wire = append(wire, capture{h.Addr(), to, bytes.Clone(data)})
			}
		}
		s.b.step(Start{Remote: s.a.cands, Told: []netip.AddrPort{}})
		s.a.step(Start{Remote: s.b.cands, Told: []netip.AddrPort{}})
		s.net.Run(30 * time.Second)
		s.net.Tap = nil // all that was captured has arrived
		switch phase {
		case "idle":
			s.cut(true, true)
			s.net.Run(time.Minute)
			s.a.wanted, s.b.wanted = false, false
			s.net.Run(2 * time.Minute)
		case "probing":
			s.cut(true, true)
			s.net.Run(time.Minute)
			s.a.step(Start{Remote: s.b.cands})
		case "doubt":
			s.cut(true, true)
			s.talk(s.a, 10*ms, 500*ms)
		}
		for _, x := range []*side{s.a, s.b} {
			if got := x.m.State().Phase.String(); x == s.a && got != phase {
				t.Fatalf("%s is %s, want %s", x.name, got, phase)
			}
			victim := netip.MustParseAddrPort("203.0.113.66:53")
			try := func(what string, p Packet) {
				t.Helper()
				now, before := s.net.Now(), x.m.State()
				out := x.m.Step(now, p)
				after := x.m.State()
				if !same(before, after) || len(out.Send) > 0 || after.Counters.Refused != before.Counters.Refused+1 {
					t.Fatalf("%s: %s of %d bytes, type %#x from %v: %d datagrams sent\n%+v\n%+v",
						phase, what, len(p.Data), p.Data[0], p.From, len(out.Send), before, after)
				}
			}
			x.tick() // whatever is due now is done
			for _, c := range wire {
				for _, from := range []netip.AddrPort{c.from, victim, {}} {
					if c.to == x.host.Addr() {
						try("replay", Packet{From: from, Data: c.data})
					} else {
						try("reflection", Packet{From: from, Data: c.data})
					}
					try("cut", Packet{From: from, Data: c.data[:len(c.data)-1]})
					try("extended", Packet{From: from, Data: append(bytes.Clone(c.data), 0)})
					forged := bytes.Clone(c.data)
					forged[15] ^= 0x80 // a fresh sequence number
					try("forgery", Packet{From: from, Data: forged})
				}
			}
			for _, n := range []int{1, 31, 32, 64, 320, 1200, 1420, 1421, 65507} {
				for _, kind := range []byte{TypeProbe, TypeReply, TypeCall, 0x1f} {
					b := make([]byte, n)
					b[0] = kind
					try("zeros", Packet{From: s.a.host.Addr(), Data: b})
					try("zeros", Packet{Data: b})
				}
			}
		}
		if len(wire) < 10 {
			t.Fatalf("only %d packets captured", len(wire))
		}
	}
}

// insider makes valid messages of one side without its Machine.
type insider struct {
	seal     *sealer
	role     byte
	sequence uint64
}

func (i *insider) probe(flags byte, generation uint16, size int) []byte {
	i.sequence++
	return i.seal.seal(message{
		kind: TypeProbe, flags: flags | i.role, generation: generation, sequence: i.sequence, size: size,
	})
}

func (i *insider) call(generation uint16, c ...netip.AddrPort) []byte {
	i.sequence++
	return i.seal.seal(message{
		kind: TypeCall, flags: i.role, generation: generation, sequence: i.sequence, candidates: c,
		size: headerSize + len(c)*addressSize,
	})
}

func newInsider(controlling bool) *insider {
	i := &insider{seal: newSealer(testKy), sequence: 1 << 50}
	if controlling {
		i.role = flagControlling
	}
	return i
}

func victims(network byte, n int) []netip.AddrPort {
	var out []netip.AddrPort
	for i := range n {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, network, byte(i + 1)}), 53))
	}
	return out
}

// TestVictims has a dishonest peer name strangers in every way there is, for ten minutes, and measures
// what they receive.
func TestVictims(t *testing.T) {
	for _, controlling := range []bool{false, true} {
		m := New(Config{Key: testKy, Controlling: controlling})
		in := newInsider(!controlling)
		perTarget, total, asked := map[netip.AddrPort]int{}, 0, 0
		now, end := epoch, epoch.Add(10*time.Minute)
		step := func(ev Event) {
			for _, d := range m.Step(now, ev).Send {
				if d.To.IsValid() && d.Data[0] == TypeProbe {
					perTarget[d.To] += len(d.Data)
					total += len(d.Data)
				}
			}
		}
		step(SetLocal{Candidates: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:4001")}})
		step(Start{Remote: victims(0, 16)})
		for n := byte(0); now.Before(end); n++ {
			call := in.call(0, victims(n, 16)...)
			asked += len(call)
			step(Packet{Data: call})
			// Spoofed sources, too.
			for _, v := range victims(n, 40) {
				p := in.probe(0, 0, ProbeSize)
				asked += len(p)
				step(Packet{From: v, Data: p})
			}
			step(Traffic{Wanted: true})
			now = now.Add(500 * ms)
		}
		rounds := m.State().Counters.Rounds
		worst := 0
		for _, n := range perTarget {
			worst = max(worst, n)
		}
		t.Logf("controlling %v: 10 minutes, %d rounds, %d targets: %d bytes in all (%d asked for them), %d at most to one",
			controlling, rounds, len(perTarget), total, asked, worst)
		if limit := int(10*time.Minute/(5*time.Second)) + roundBurst + 1; rounds > limit {
			t.Errorf("%d rounds, want at most %d", rounds, limit)
		}
		perRound := 20*maxProbes*ProbeSize + PaddedSize
		if total > rounds*perRound {
			t.Errorf("%d bytes in %d rounds", total, rounds)
		}
	}
}

func TestPerTargetCap(t *testing.T) {
	m := New(Config{Key: testKy, Controlling: true})
	in := newInsider(false)
	v := victims(0, 1)[0]
	bytesTo, now := 0, epoch
	step := func(ev Event) {
		for _, d := range m.Step(now, ev).Send {
			if d.To == v && d.Data[0] == TypeProbe {
				bytesTo += len(d.Data)
			}
		}
	}
	step(Start{Remote: []netip.AddrPort{v}})
	for now.Before(epoch.Add(4 * time.Second)) {
		step(Packet{From: v, Data: in.probe(0, 0, ProbeSize)})
		now = now.Add(5 * ms)
	}
	if limit := maxProbes*ProbeSize + PaddedSize; bytesTo > limit {
		t.Errorf("%d bytes to an address that never answered, want at most %d", bytesTo, limit)
	}
	if got := m.State().Counters.Target; got != bytesTo {
		t.Errorf("counted %d, sent %d", got, bytesTo)
	}
}

func TestSpecialAddresses(t *testing.T) {
	special := []string{
		"0.0.0.0:1", "0.1.2.3:1", "127.0.0.1:1", "169.254.169.254:80", "224.0.0.1:1", "255.255.255.255:1",
		"240.0.0.1:1", "198.51.100.7:0", "[::]:1", "[::1]:1", "[ff02::1]:1", "[fe80::1]:1", "[fe80::1%eth0]:1",
		"[::ffff:127.0.0.1]:1", "[::ffff:224.0.0.1]:1", "198.51.100.1:4001",
	}
	var remote []netip.AddrPort
	for _, s := range special {
		remote = append(remote, netip.MustParseAddrPort(s))
	}
	m := New(Config{Key: testKy})
	m.Step(epoch, SetLocal{Candidates: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:4001")}})
	out := m.Step(epoch, Start{Remote: remote})
	for _, d := range out.Send {
		t.Errorf("probes %v", d.To)
	}
	in := newInsider(true)
	for _, a := range remote {
		if out := m.Step(epoch, Packet{From: a, Data: in.probe(0, 0, ProbeSize)}); len(out.Send) > 0 {
			t.Errorf("answers %v", a)
		}
	}
	m.Step(epoch.Add(4*time.Second), Traffic{})
	if r := m.State().Reason; r != "peer has no usable candidate" {
		t.Errorf("reason %q", r)
	}
	// On one machine, loopback is where the peer is.
	m = New(Config{Key: testKy})
	m.Step(epoch, SetLocal{Candidates: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1000")}})
	if out := m.Step(epoch, Start{Remote: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:2000")}}); len(out.Send) != 1 {
		t.Errorf("%d probes on loopback", len(out.Send))
	}
}

func TestTooManyCandidates(t *testing.T) {
	m := New(Config{Key: testKy})
	if out := m.Step(epoch, Start{Remote: victims(0, 200)}); len(out.Send) != MaxCandidates {
		t.Errorf("%d probes", len(out.Send))
	}
	m.Step(epoch, SetLocal{Candidates: victims(1, 200)})
	if n := m.State().Counters.Calls; n != 1 {
		t.Fatalf("%d calls", n)
	}
}

// TestNominationNeedsProof: a captured nomination that is sent on from elsewhere moves nothing.
func TestNominationNeedsProof(t *testing.T) {
	m := New(Config{Key: testKy})
	in := newInsider(true)
	m.Step(epoch, Start{})
	v := victims(0, 1)[0]
	out := m.Step(epoch, Packet{From: v, Data: in.probe(flagNominate, 2, PaddedSize)})
	if st := m.State(); st.Route != RouteRelay || len(out.Send) != 1 || len(out.Send[0].Data) != ProbeSize {
		t.Fatalf("%+v, %d datagrams", st, len(out.Send))
	}
	// Its answer proves that the peer is there, and the nomination counts.
	reply, _ := m.seal.open(out.Send[0].Data)
	reply.kind, reply.flags = TypeReply, flagControlling
	out = m.Step(epoch.Add(ms), Packet{From: v, Data: m.seal.seal(reply)})
	if st := m.State(); st.Phase != Direct || st.Path != v || len(out.Send) != 1 || len(out.Send[0].Data) != PaddedSize {
		t.Fatalf("%+v", st)
	}
	// A lower generation, or one from the controlled role, does nothing.
	m.Step(epoch.Add(2*ms), Packet{From: victims(3, 1)[0], Data: in.probe(flagNominate, 1, PaddedSize)})
	in.role = 0
	m.Step(epoch.Add(3*ms), Packet{From: victims(3, 1)[0], Data: in.probe(flagNominate, 3, PaddedSize)})
	if st := m.State(); st.Path != v || st.Generation != 2 || st.Counters.Refused != 2 {
		t.Errorf("%+v", st)
	}
}

func TestReplayedCall(t *testing.T) {
	m := New(Config{Key: testKy})
	in := newInsider(true)
	older, newer := in.call(0, victims(1, 1)...), in.call(0, victims(2, 1)...)
	for i, tt := range []struct {
		data []byte
		from netip.AddrPort
		sent int
	}{
		{newer, victims(9, 1)[0], 0}, // a CALL comes through the relay only
		{newer, netip.AddrPort{}, 2}, // a probe, and a CALL back
		{newer, netip.AddrPort{}, 0},
		{older, netip.AddrPort{}, 0},
	} {
		if out := m.Step(epoch, Packet{From: tt.from, Data: tt.data}); len(out.Send) != tt.sent {
			t.Errorf("%d: %d datagrams", i, len(out.Send))
		}
	}
}
