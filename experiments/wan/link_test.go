package wan_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/wan"
)

const (
	us     = time.Microsecond
	ms     = time.Millisecond
	packet = 1500
)

// A megabit a second takes 12 ms for a packet of 1,500 bytes: the third of three that come at once leaves after 36 ms, and
// has the delay before it.
func Example() {
	l := wan.NewLink(wan.Path{Delay: 5 * time.Millisecond, Rate: 1_000_000, Queue: 4000}, 1, 1)
	for range 3 {
		fmt.Println(l.Send(0, 1500))
	}
	// Output:
	// 17ms 0
	// 29ms 0
	// 0s 3
}

// The rate is kept exactly, the queue holds what it should, and an idle link has no memory.
func TestRate(t *testing.T) {
	l := wan.NewLink(wan.Path{Delay: ms, Rate: 600_000_000, Queue: 100 * packet}, 1, 1)
	var last time.Duration
	arrived := 0
	for now := time.Duration(0); now < time.Second; now += 10 * us { // twice the rate
		if at, fate := l.Send(now, packet); fate == wan.InOrder {
			if arrived > 0 && at-last < 20*us {
				t.Fatalf("packets %v apart", at-last)
			}
			last = at
			arrived++
		} else if fate != wan.Overflow {
			t.Fatalf("fate %v", fate)
		}
	}
	if want := 50_100; arrived < want-2 || arrived > want+2 {
		t.Errorf("%d packets in a second, want %d: the rate, and a full queue", arrived, want)
	}
	if at, _ := l.Send(time.Minute, packet); at != time.Minute+20*us+ms {
		t.Errorf("after a pause a packet arrives at %v", at)
	}
}

// Jitter delays, but nothing is overtaken; the mean is half of the most.
func TestJitter(t *testing.T) {
	l := wan.NewLink(wan.Path{Delay: 10 * ms, Jitter: 4 * ms}, 3, 3)
	var last, sum time.Duration
	const n = 20_000
	for i := range n {
		now := time.Duration(i) * 20 * ms
		at, _ := l.Send(now, packet)
		took := at - now
		if at < last || took < 10*ms || took > 14*ms {
			t.Fatalf("packet %d took %v, after one that arrived at %v", i, took, last)
		}
		last, sum = at, sum+took
	}
	if mean := sum / n; (mean - 12*ms).Abs() > 50*us {
		t.Errorf("mean delay %v, want 12ms", mean)
	}
	for i := range n { // close together
		at, _ := l.Send(time.Duration(n)*20*ms+time.Duration(i)*us, packet)
		if at < last {
			t.Fatalf("packet %d arrives at %v, before %v", i, at, last)
		}
		last = at
	}
}

// Losses have the share and the runs that were asked for.
func TestLoss(t *testing.T) {
	for _, p := range []wan.Path{{Loss: 0.01}, {Loss: 0.01, Burst: 3}, {Loss: 0.2, Burst: 10}, {Loss: 0.5, Burst: 1}} {
		l := wan.NewLink(p, 5, 5)
		lost, runs, before := 0, 0, wan.InOrder
		const n = 1_000_000
		for range n {
			_, fate := l.Send(0, packet)
			if fate == wan.Lost {
				lost++
				if before != wan.Lost {
					runs++
				}
			}
			before = fate
		}
		share, burst := float64(lost)/n, float64(lost)/float64(runs)
		want := max(p.Burst, 1)
		if p.Burst <= 1 {
			want = 1 / (1 - p.Loss)
		}
		if math.Abs(share/p.Loss-1) > 0.05 || math.Abs(burst/want-1) > 0.05 {
			t.Errorf("%+v: lost %.4f, %.2f in a row, want %.2f", p, share, burst, want)
		}
	}
}

// A share of the packets is late, by what was asked for, and overtaken; the others stay in order.
func TestReorder(t *testing.T) {
	l := wan.NewLink(wan.Path{Delay: ms, Reorder: 0.1, Late: 3 * ms}, 7, 7)
	late := 0
	const n = 100_000
	for i := range n {
		now := time.Duration(i) * us
		at, fate := l.Send(now, packet)
		want := ms
		if fate == wan.Late {
			late++
			want += 3 * ms
		}
		if at-now != want {
			t.Fatalf("packet %d, %v, took %v", i, fate, at-now)
		}
	}
	if share := float64(late) / n; math.Abs(share-0.1) > 0.005 {
		t.Errorf("%.3f were late", share)
	}
}

// Both directions of a line are out at the same times, for as long and as often as was asked for.
func TestOutages(t *testing.T) {
	p := wan.Path{OutageEvery: 10 * time.Second, OutageFor: 200 * ms}
	up, down := wan.NewLink(p, 8, 4), wan.NewLink(p, 9, 4)
	out, outages, before := 0, 0, wan.InOrder
	const n = 10_000_000
	for i := range n {
		now := time.Duration(i) * ms
		_, a := up.Send(now, packet)
		_, b := down.Send(now, packet)
		if a != b {
			t.Fatalf("at %v one way is %v, the other %v", now, a, b)
		}
		if a == wan.Out {
			out++
			if before != wan.Out {
				outages++
			}
		}
		before = a
	}
	if math.Abs(float64(out)/float64(outages)-200) > 3 {
		t.Errorf("outages of %d ms on average", out/outages)
	}
	if every := float64(n) / float64(outages); math.Abs(every-10_200) > 1_000 {
		t.Errorf("an outage every %.0f ms", every)
	}
}

func TestSeed(t *testing.T) {
	p := wan.Path{Delay: ms, Jitter: ms, Loss: 0.3, Burst: 2, Reorder: 0.1, Late: ms, OutageEvery: 50 * ms, OutageFor: 5 * ms}
	run := func(seed uint64) (s string) {
		l := wan.NewLink(p, seed, seed)
		for i := range 200 {
			at, fate := l.Send(time.Duration(i)*ms, packet)
			s += fmt.Sprint(at, fate, " ")
		}
		return s
	}
	if first := run(1); first != run(1) || first == run(2) {
		t.Error("equal seeds differ, or different ones do not")
	}
}

func TestCheck(t *testing.T) {
	for _, p := range []wan.Path{
		{Delay: -1}, {Delay: time.Hour}, {Jitter: -1}, {Loss: 1}, {Loss: -0.1}, {Loss: math.NaN()}, {Reorder: 2}, {Burst: -1}, {Loss: 0.9, Burst: 2},
		{Rate: 100}, {Rate: 1 << 60}, {Queue: -1}, {Queue: 1 << 40}, {OutageEvery: -1}, {OutageEvery: 1}, {Late: -1},
	} {
		if wan.Even(p).Check() == nil {
			t.Errorf("%+v is taken", p)
		}
	}
}

// Each profile is right, and says where its figures are from.
func TestProfiles(t *testing.T) {
	for _, want := range []string{"none", "lan", "aws-region", "cross-az", "cross-region", "home", "lossy"} {
		p, err := wan.FindProfile(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(); err != nil || p.Meaning == "" || (len(p.Sources) == 0) != (want == wan.None) {
			t.Errorf("%s: %v: %+v", want, err, p)
		}
	}
	if len(wan.Profiles()) != 7 {
		t.Error("a profile that this test does not know")
	}
	if _, err := wan.FindProfile("moon"); err == nil {
		t.Error("a profile that is not there is found")
	}
	p, _ := wan.FindProfile("cross-region")
	if p.Function(0) == p.Function(1) || p.Function(0) != p.Function(2) {
		t.Error("lines do not alternate")
	}
}
