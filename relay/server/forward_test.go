//go:build unix

package server

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
)

// pair is a forwarder with two proven sessions, driven by hand.
type pair struct {
	f                 forwarder
	src, dst          *udpx.Conn
	srcShort, dstName ident.Short
}

func newPair(t testing.TB) *pair {
	t.Helper()
	s, err := New(Config{ID: "r", TokenKey: func() ed25519.PublicKey { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	open := func() *udpx.Conn {
		c, err := udpx.Listen("udp4", netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	p := &pair{src: open(), dst: open(), srcShort: ident.Short{1}, dstName: ident.Short{2}}
	p.f = forwarder{Server: s, conn: open(), batch: udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}}
	for short, c := range map[ident.Short]*udpx.Conn{p.srcShort: p.src, p.dstName: p.dst} {
		sess, reason := s.table.bind(request{short: short, from: origin{addr: c.LocalAddr()}, expires: time.Hour, stamp: 1}, 0)
		if reason != 0 {
			t.Fatal(reason)
		}
		if _, ok := s.table.prove(sess); !ok {
			t.Fatal("not proven")
		}
	}
	return p
}

func (p *pair) frames(packets, seg int) []byte {
	b := make([]byte, packets*seg)
	for i := range packets {
		relay.PutHeader(b[i*seg:], 0, p.dstName)
	}
	return b
}

// ANCHORS, relay: bounded queues; forwarding allocates nothing.
func TestForwardAllocatesNothing(t *testing.T) {
	p := newPair(t)
	b := p.frames(40, 1400)
	out := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	n := testing.AllocsPerRun(100, func() {
		if err := p.src.Write(b, 1400, 0, p.f.conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		for in := 0; in < len(b); in += p.f.batch.N {
			if err := p.f.conn.Read(&p.f.batch); err != nil {
				t.Fatal(err)
			}
			p.f.handle()
		}
		for got := 0; got < len(b); got += out.N {
			if err := p.dst.Read(&out); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for 40 packets", n)
	}
	if s := ident.Short(out.Buf[4:12]); s != p.srcShort {
		t.Errorf("source %v", s)
	}
}

// A BIND from the address of a session is checked before those of strangers, a few times a second; so sessions are
// prolonged however many strangers ask.
func TestRenewalGoesFirst(t *testing.T) {
	p := newPair(t)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	submit := func(from netip.AddrPort, n byte) {
		b := relay.AppendBind(nil, "r", key, relay.Bind{Nonce: relay.Nonce{n}, Time: time.Now()})
		p.f.batch.N, p.f.batch.Seg, p.f.batch.From = copy(p.f.batch.Buf, b), len(b), from
		p.f.handle()
	}
	for n := range byte(3) {
		submit(netip.MustParseAddrPort("192.0.2.1:1"), n)
	}
	for n := range byte(6) {
		submit(p.src.LocalAddr(), 100+n)
	}
	var order []byte
	for range 9 {
		var m controlFrame
		if !p.f.control.next(t.Context(), &m) {
			t.Fatal("the queue ended")
		}
		order = append(order, m.b[4])
	}
	if first := []byte{100, 101, 102, 103}; !bytes.Equal(order[:4], first) || order[8] != 105 {
		t.Errorf("got %v: want %v first and 105 last", order, first)
	}
}

// The first binds of a connection over TLS are checked before those of strangers: while these flood the relay, newcomers come in there.
func TestTLSGoesFirst(t *testing.T) {
	p := newPair(t)
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	f := forwarder{Server: p.f.Server, conn: p.f.conn, from: origin{addr: netip.MustParseAddrPort("192.0.2.1:1"), link: pipe()}}
	for n := range byte(linkBinds + 2) {
		b := relay.AppendBind(nil, "r", key, relay.Bind{Nonce: relay.Nonce{n}, Time: time.Now()})
		f.frames(b, len(b))
	}
	if first, last := len(f.control.known), len(f.control.stranger); first != linkBinds || last != 2 {
		t.Errorf("%d come first and %d do not, want %d and 2", first, last, linkBinds)
	}
}

// Answers to strangers are bounded for each network: what an attacker with forged addresses can have sent to a victim.
func TestAnswersToStrangersAreLimited(t *testing.T) {
	binding := append([]byte{0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 24)...)
	copy(binding[20:], []byte{0x80, 0x22, 0, 8}) // SOFTWARE
	for name, frame := range map[string][]byte{"UNBOUND": relay.AppendPing(nil, relay.Ping{}), "STUN": binding} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.f.replies = newGate(4) // so one at once
			answered := func(from *udpx.Conn) bool {
				limited := p.f.dropped[dropLimit].Load()
				p.f.batch.N, p.f.batch.Seg, p.f.batch.From = copy(p.f.batch.Buf, frame), len(frame), from.LocalAddr()
				p.f.handle()
				if p.f.dropped[dropLimit].Load() > limited {
					return false
				}
				_ = from.SetReadDeadline(time.Now().Add(5 * time.Second))
				b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
				if err := from.Read(&b); err != nil {
					t.Fatal(err)
				}
				return true
			}
			answers := 0
			for range 20 {
				if answered(p.src) {
					answers++
				}
			}
			if answers < 1 || answers > 10 {
				t.Errorf("%d of 20 answered", answers)
			}
			other, err := udpx.Listen("udp4", netip.MustParseAddrPort("127.0.1.1:0")) // another /24
			if err != nil {
				t.Skipf("no second network on the loopback interface: %v", err)
			}
			defer other.Close()
			if !answered(other) {
				t.Error("another network gets no answer")
			}
		})
	}
}

// The forwarder's own work per batch, with the socket calls of the sender and receiver left out of
// the time and those of the relay left in.
func BenchmarkForward(b *testing.B) {
	for _, packets := range []int{1, 10, 44} {
		b.Run(fmt.Sprintf("packets=%d", packets), func(b *testing.B) {
			p := newPair(b)
			const seg = 1472
			frames := p.frames(packets, seg)
			out := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
			var busy time.Duration
			b.ReportAllocs()
			for b.Loop() {
				if err := p.src.Write(frames, seg, 0, p.f.conn.LocalAddr()); err != nil {
					b.Fatal(err)
				}
				begin := time.Now()
				for in := 0; in < len(frames); in += p.f.batch.N {
					if err := p.f.conn.Read(&p.f.batch); err != nil {
						b.Fatal(err)
					}
					p.f.handle()
				}
				busy += time.Since(begin)
				for got := 0; got < len(frames); got += out.N {
					if err := p.dst.Read(&out); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N*packets)/busy.Seconds(), "packets/s")
			b.ReportMetric(float64(b.N*len(frames))/busy.Seconds()/1e6, "MB/s")
		})
	}
}

// A whole relay between a sender that never waits and a receiver, all on one machine: goodput as
// received, and the CPU time of all three.
func BenchmarkRelayLoopback(b *testing.B) {
	p := newPair(b)
	done := make(chan error, 1)
	go func() { done <- p.f.forward(p.f.conn, nil) }()
	const packets, seg = 44, 1472
	frames := p.frames(packets, seg)
	received := make(chan int, 1)
	go func() {
		out, n := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}, 0
		for p.dst.Read(&out) == nil {
			n += out.N
		}
		received <- n
	}()
	cpu := cpuTime()
	b.ResetTimer()
	for range b.N {
		if err := p.src.Write(frames, seg, 0, p.f.conn.LocalAddr()); err != nil {
			b.Fatal(err)
		}
	}
	_ = p.dst.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	n := <-received
	b.StopTimer()
	used := cpuTime() - cpu
	_ = p.f.conn.Close()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/seg/b.Elapsed().Seconds(), "packets/s")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "MB/s")
	b.ReportMetric(100*float64(n)/float64(b.N*len(frames)), "%delivered")
	b.ReportMetric(used.Seconds()/(float64(n)/1e9), "cpu-s/GB")
}

func cpuTime() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// FuzzForward feeds the forwarder batches as GRO makes them; a reply or forward must not panic, and
// nothing must leave for anybody but the two sessions and the source.
func FuzzForward(f *testing.F) {
	p := newPair(f)
	hello := p.frames(3, 100)
	for _, b := range hostile.Of([]byte("\x20abcdefghijkpacket"), hello, make([]byte, 1280)) {
		f.Add(b, 18)
		f.Add(b, 100)
	}
	f.Fuzz(func(t *testing.T, b []byte, seg int) {
		if len(b) == 0 || len(b) > len(p.f.batch.Buf) || seg <= 0 {
			return
		}
		p.f.batch.N = copy(p.f.batch.Buf, b)
		p.f.batch.Seg = min(seg, len(b))
		p.f.batch.From = p.src.LocalAddr()
		p.f.handle()
		for len(p.f.control.known)+len(p.f.control.stranger) > 0 {
			var c controlFrame
			p.f.control.next(t.Context(), &c)
			if out := p.f.answer(c.b[:c.n], c.from, time.Now()); len(out) > c.n {
				t.Errorf("%d bytes for %d", len(out), c.n)
			}
		}
		p.f.table.consistent(t)
	})
}
