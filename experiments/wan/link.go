package wan

import (
	"math"
	"math/rand/v2"
	"time"
)

// Fate is what becomes of a packet.
type Fate int

// The fates.
const (
	InOrder  Fate = iota // it arrives after all that arrived InOrder before
	Late                 // it arrives, and later ones may overtake it
	Lost                 // at random
	Overflow             // the queue was full
	Out                  // in an outage

	Fates // how many there are
)

// Link is one direction of a line as a state machine: it is asked about each packet in turn, and has no clock and no
// packets. The same seed and the same packets at the same times have the same fates. It is for one goroutine.
//
// A packet goes through an outage or not, then through the queue and out at the rate, then may be lost, and then takes the
// delay and the jitter.
type Link struct {
	path    Path
	queue   time.Duration // that a full queue takes to drain
	rand    *rand.Rand
	outages *rand.Rand

	free    time.Duration // when the last byte in the queue will have left it
	last    time.Duration // when the last packet InOrder arrives
	bad     bool          // in a run of losses
	jitter  time.Duration // of now
	redrawn time.Duration // when jitter was drawn; negative if never
	outage  [2]time.Duration
}

// NewLink returns a link on which nothing has happened, at the time 0. Links of one line share the seed of outages, so that
// both directions are out at the same times.
func NewLink(p Path, seed, outageSeed uint64) *Link {
	l := &Link{path: p, queue: transmission(p.queue(), p.Rate), redrawn: -1,
		rand: rand.New(rand.NewPCG(seed, 0)), outages: rand.New(rand.NewPCG(outageSeed, 1))}
	if p.OutageEvery > 0 {
		l.nextOutage(0)
	}
	return l
}

// transmission is how long bytes take at a rate in bits per second; 0 if that is unlimited.
func transmission(bytes int, rate int64) time.Duration {
	if rate <= 0 {
		return 0
	}
	return time.Duration(float64(bytes) * 8e9 / float64(rate))
}

// Send is told of a packet of so many bytes, with its IP header, that comes at a time, and says when it is at the other end, if it
// gets there. Times do not decrease.
func (l *Link) Send(now time.Duration, bytes int) (at time.Duration, fate Fate) {
	if l.out(now) {
		return 0, Out
	}
	at = now
	if l.path.Rate > 0 {
		l.free = max(l.free, now)
		took := transmission(bytes, l.path.Rate)
		if l.free-now+took > l.queue {
			return 0, Overflow
		}
		l.free += took
		at = l.free
	}
	if l.lose() {
		return 0, Lost
	}
	at += l.path.Delay + l.extra(now)
	if l.path.Reorder > 0 && l.rand.Float64() < l.path.Reorder {
		return at + l.path.Late, Late
	}
	at = max(at, l.last)
	l.last = at
	return at, InOrder
}

// lose is the model of Gilbert with loss in the bad state: runs of losses have Burst packets on average, and Loss is the share of all.
func (l *Link) lose() bool {
	switch p := l.path; {
	case p.Loss <= 0:
		return false
	case p.Burst <= 1:
		return l.rand.Float64() < p.Loss
	case l.bad:
		l.bad = l.rand.Float64() >= 1/p.Burst
	default:
		l.bad = l.rand.Float64() < p.Loss/(p.Burst*(1-p.Loss))
	}
	return l.bad
}

// extra is the jitter: drawn anew when what was drawn last has been there for as long as the most that can be drawn.
func (l *Link) extra(now time.Duration) time.Duration {
	if l.path.Jitter <= 0 {
		return 0
	}
	if l.redrawn < 0 || now-l.redrawn >= l.path.Jitter {
		l.jitter, l.redrawn = time.Duration(l.rand.Int64N(int64(l.path.Jitter)+1)), now
	}
	return l.jitter
}

func (l *Link) out(now time.Duration) bool {
	if l.path.OutageEvery <= 0 {
		return false
	}
	for now >= l.outage[1] {
		l.nextOutage(l.outage[1])
	}
	return now >= l.outage[0]
}

// nextOutage draws the next one: the time between them is exponentially distributed.
func (l *Link) nextOutage(from time.Duration) {
	begin := from + time.Duration(-math.Log(1-l.outages.Float64())*float64(l.path.OutageEvery))
	l.outage = [2]time.Duration{begin, begin + l.path.OutageFor}
}
