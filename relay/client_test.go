package relay_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/relay"
)

func TestReadyAfterOneRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f := newFake(t, goodToken())
		defer f.stop()
		if err := f.client.Send(ident.Short{1}, 0, []byte("x"), 0); !errors.Is(err, relay.ErrNotReady) {
			t.Errorf("got %v", err)
		}
		<-f.client.Ready()
		if d := time.Since(begin); d != 2*oneWay {
			t.Errorf("ready after %v, want one round trip of %v", d, 2*oneWay)
		}
		if s, err := f.client.State(); s != relay.StateUsable || err != nil {
			t.Errorf("%v, %v", s, err)
		}
		time.Sleep(2*oneWay + 1)
		if s, err := f.client.State(); s != relay.StateBound || err != nil {
			t.Errorf("%v, %v", s, err)
		}
		if f.client.RTT() != 2*oneWay {
			t.Errorf("RTT %v", f.client.RTT())
		}
	})
}

// Lost frames are repeated after 100 ms, doubling to a second; a silent relay has a clear error.
func TestSilentRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		f.set(func() { f.deaf = true })
		time.Sleep(3600 * time.Millisecond)
		ms := time.Millisecond
		wantTimes(t, f.since(relay.TypeBind), 0, 100*ms, 300*ms, 700*ms, 1500*ms, 2500*ms, 3500*ms)
		if s, err := f.client.State(); s != relay.StateSilent || !errors.Is(err, relay.ErrNoAnswer) {
			t.Errorf("%v, %v", s, err)
		}
		f.set(func() { f.deaf = false })
		<-f.client.Ready()
		if s, err := f.client.State(); s != relay.StateUsable || err != nil {
			t.Errorf("%v, %v", s, err)
		}
	})
}

func TestLostProveIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		<-f.client.Ready()
		f.set(func() { f.loseNext = 2 })
		time.Sleep(time.Second)
		ms := time.Millisecond
		wantTimes(t, f.since(relay.TypeProve), 40*ms, 140*ms, 340*ms)
		if s, _ := f.client.State(); s != relay.StateBound {
			t.Errorf("%v", s)
		}
	})
}

func TestIdlePings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		time.Sleep(10 * time.Minute)
		pings := f.since(relay.TypePing)
		for i := 1; i < len(pings); i++ {
			if d := pings[i] - pings[i-1]; d < 13*time.Second || d > 17*time.Second {
				t.Errorf("%v between pings", d)
			}
		}
		if n := len(pings); n < 35 || n > 45 {
			t.Errorf("%d pings in 10 minutes", n)
		}
		if n := len(f.since(relay.TypeBind)); n != 1 {
			t.Errorf("%d binds", n)
		}
	})
}

// A relay that restarts is noticed within 150 ms and bound again one round trip later, if packets
// are sent and none come.
func TestRestartIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		time.Sleep(time.Second)
		begin := time.Now()
		f.set(func() { f.bound, f.instance = false, 2 })
		f.since(relay.TypeBind)
		f.sendFor(time.Second)
		binds := f.since(relay.TypeBind)
		wantTimes(t, binds, time.Second+100*time.Millisecond+2*oneWay)
		if s, _ := f.client.State(); s != relay.StateBound {
			t.Errorf("%v after %v", s, time.Since(begin))
		}
	})
}

// DESIGN, 6: a relay that is silent under load is doubted within 300 ms, and not longer than it is silent; one that is about to
// end is left, too. A relay with nothing to forward is not doubted.
func TestDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		time.Sleep(time.Second)
		f.sendFor(time.Second)
		if !f.client.Usable() {
			t.Error("doubted though it answers")
		}
		f.set(func() { f.deaf = true })
		f.sendFor(300 * time.Millisecond)
		if f.client.Usable() {
			t.Error("not doubted after 300 ms")
		}
		f.set(func() { f.deaf = false })
		f.sendFor(300 * time.Millisecond)
		if s, _ := f.client.State(); !f.client.Usable() || s != relay.StateBound {
			t.Errorf("doubted though it answers again, %v", s)
		}
		time.Sleep(time.Minute)
		if !f.client.Usable() {
			t.Error("doubted though nobody speaks")
		}
		f.client.HandlePacket(relay.AppendRefused(nil, relay.Refused{Reason: relay.ReasonDraining, Nonce: f.nonce}))
		if s, _ := f.client.State(); f.client.Usable() || s != relay.StateBound {
			t.Errorf("not left though it is about to end, %v", s)
		}
	})
}

// A relay that dies without a word leads to binds, not to silence.
func TestDeathIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		time.Sleep(time.Second)
		f.set(func() { f.deaf, f.bound = true, false })
		f.since(relay.TypeBind)
		f.sendFor(5 * time.Second)
		binds := f.since(relay.TypeBind)
		if len(binds) == 0 || binds[0] > time.Second+1300*time.Millisecond {
			t.Fatalf("binds at %v", binds)
		}
		if s, err := f.client.State(); s != relay.StateSilent || !errors.Is(err, relay.ErrNoAnswer) {
			t.Errorf("%v, %v", s, err)
		}
		f.set(func() { f.deaf = false })
		time.Sleep(1100 * time.Millisecond)
		if s, err := f.client.State(); s != relay.StateBound || err != nil {
			t.Errorf("%v, %v", s, err)
		}
	})
}

// ANCHORS, relay: nobody off the path can end a session or forge any other answer.
func TestSpoofedFramesAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		spoof := func() {
			for _, s := range samples() {
				f.client.HandlePacket(s.frame)
			}
		}
		spoof()
		select {
		case <-f.client.Ready():
			t.Error("ready by a forged challenge")
		default:
		}
		time.Sleep(time.Second)
		f.since(relay.TypeBind)
		spoof()
		f.client.Check() // a PING is under way
		synctest.Wait()
		spoof()
		time.Sleep(time.Second)
		if n := len(f.since(relay.TypeBind)); n != 0 {
			t.Errorf("bound anew %d times", n)
		}
		if s, err := f.client.State(); s != relay.StateBound || err != nil {
			t.Errorf("%v, %v", s, err)
		}
	})
}

func TestRefusedBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		f.set(func() { f.refuse = relay.ReasonJobFull })
		time.Sleep(10 * time.Minute)
		if n := len(f.since(relay.TypeBind)); n < 20 || n > 30 {
			t.Errorf("%d binds in 10 minutes", n)
		}
		s, err := f.client.State()
		var r *relay.RefusedError
		if s != relay.StateRefused || !errors.As(err, &r) || r.Reason != relay.ReasonJobFull || r.Relay != "relay-1" {
			t.Errorf("%v, %v", s, err)
		}
		f.set(func() { f.refuse = 0 })
		fresh := goodToken()
		fresh[0] = 1
		f.client.SetToken(fresh)
		<-f.client.Ready()
	})
}

// The end of the session asks for another, and a new token is used at once while packets flow on.
func TestNewTokenRebinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, nil)
		defer f.stop()
		time.Sleep(time.Minute)
		if _, err := f.client.State(); !errors.Is(err, relay.ErrNoToken) {
			t.Errorf("got %v", err)
		}
		f.client.Check()
		f.set(func() { f.lifetime = 60 })
		f.client.SetToken(goodToken())
		f.client.SetToken([]byte("short"))
		<-f.client.Ready()
		time.Sleep(30 * time.Second)
		fresh := goodToken()
		fresh[0] = 1
		f.client.SetToken(fresh)
		f.client.SetToken(fresh)
		if err := f.client.Send(ident.Short{1}, 0, []byte("x"), 0); err != nil {
			t.Error(err)
		}
		time.Sleep(70 * time.Second)
		wantTimes(t, f.since(relay.TypeBind), time.Minute, 90*time.Second+2*oneWay, 150*time.Second+3*2*oneWay)
	})
}

// A process that was frozen for minutes asks at once when it is told.
func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		time.Sleep(time.Second)
		f.set(func() { f.bound = false })
		f.since(relay.TypeBind)
		f.client.Check()
		time.Sleep(100 * time.Millisecond)
		wantTimes(t, f.since(relay.TypeBind), time.Second+2*oneWay)
	})
}

func readyClient(t testing.TB, send func(netip.AddrPort, []byte, int) error) *relay.Client {
	t.Helper()
	id, err := ident.FromEd25519(testKey())
	if err != nil {
		t.Fatal(err)
	}
	var c *relay.Client
	c = relay.NewClient(relay.Config{ID: "relay-1", Token: goodToken(), Identity: id, Job: job.ID{}, Send: func(to netip.AddrPort, b []byte, seg int) error {
		if m, ok := relay.ParseBind(b); ok {
			n := m.Nonce
			go c.HandlePacket(relay.AppendChallenge(nil, relay.Challenge{Nonce: n}))
			return nil
		}
		if b[0] != relay.TypeData {
			return nil
		}
		return send(to, b, seg)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	<-c.Ready()
	return c
}

func TestSendFrames(t *testing.T) {
	var got []byte
	c := readyClient(t, func(_ netip.AddrPort, b []byte, seg int) error {
		for len(b) > 0 {
			_, tag, p, ok := relay.ParseData(b[:min(seg, len(b))])
			if !ok || tag != 0xffffff {
				return errors.New("no DATA")
			}
			got = append(got, p...)
			b = b[min(seg, len(b)):]
		}
		return nil
	})
	for _, tt := range []struct{ n, seg int }{{1, 1}, {5, 0}, {100, 30}, {200000, 1400}, {130, 1}, {relay.MaxPacket, 0}} {
		data := make([]byte, tt.n)
		counting(data, 1)
		got = nil
		if err := c.Send(ident.Short{1}, 0xffffffff, data, tt.seg); err != nil {
			t.Fatalf("%+v: %v", tt, err)
		}
		if !bytes.Equal(got, data) {
			t.Errorf("%+v: bytes differ", tt)
		}
	}
	if err := c.Send(ident.Short{1}, 0, nil, 0); err != nil {
		t.Error(err)
	}
	if err := c.Send(ident.Short{1}, 0, make([]byte, relay.MaxPacket+1), 0); !errors.Is(err, relay.ErrTooBig) {
		t.Errorf("got %v", err)
	}
}

func TestSendAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("not measured: under the race detector sync.Pool drops buffers on purpose; the run without it measures")
		return
	}
	c := readyClient(t, func(netip.AddrPort, []byte, int) error { return nil })
	data := make([]byte, 40*1400)
	if n := testing.AllocsPerRun(1000, func() { _ = c.Send(ident.Short{1}, 0, data, 1400) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	frame := make([]byte, 1400)
	relay.PutHeader(frame, 0, ident.Short{1})
	if n := testing.AllocsPerRun(1000, func() { c.HandlePacket(frame) }); n != 0 {
		t.Errorf("%v allocations on receipt", n)
	}
}

func BenchmarkSend(b *testing.B) {
	c := readyClient(b, func(netip.AddrPort, []byte, int) error { return nil })
	data := make([]byte, 40*1400)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		_ = c.Send(ident.Short{1}, 0, data, 1400)
	}
}

// FuzzHandlePacket feeds a client whatever a forged source address can bring.
func FuzzHandlePacket(f *testing.F) {
	for _, s := range samples() {
		for _, b := range hostile.Of(s.frame) {
			f.Add(b)
		}
	}
	id, err := ident.FromEd25519(testKey())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := relay.NewClient(relay.Config{ID: "relay-1", Token: goodToken(), Identity: id, Send: func(netip.AddrPort, []byte, int) error { return nil }})
		if _, _, p, ok := c.HandlePacket(b); ok != (len(b) > relay.HeaderBytes && len(b) <= relay.MaxFrame && b[0] == relay.TypeData) || ok && len(p) == 0 {
			t.Errorf("%x: %v", b, ok)
		}
		if s, _ := c.State(); s != relay.StateBinding {
			t.Errorf("%x led to %v", b, s)
		}
	})
}

// An instance puts a header of 12 bytes before each packet, and the relay changes only the address in it.
func Example() {
	pub := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	to := ident.ShortOf(job.ID{}, pub)
	frame := make([]byte, relay.HeaderBytes, relay.MaxFrame)
	relay.PutHeader(frame, 7, to)
	frame = append(frame, "a QUIC packet"...)

	peer, tag, packet, ok := relay.ParseData(frame)
	fmt.Println(peer == to, tag, string(packet), ok)
	// Output: true 7 a QUIC packet true
}
