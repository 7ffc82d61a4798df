// Package wan is what lies between the hosts of a lab (package lab) and its internet: for each host a line with a delay, jitter,
// loss, reordering, a rate with a queue, and outages, each way. It takes the place of the cable between the host, or its
// router, and the lab's bridge.
//
//	host a --- NAT --- line of a ---.
//	host b --- NAT --- line of b ---+--- bridge ("internet")
//	public --- line of public ------'
//
// So what lies between two hosts is the sum of both lines: a packet from a to b goes up a's line and down b's. A
// [Profile] has lines for several hosts in turn, and for the public host. What the sum cannot say is that two hosts which are
// far from a third are near each other.
//
// [Link] is one direction as a state machine in virtual time. [Cables] carry real frames by it, between pairs of TAP
// devices, on as many threads as there are cores, which have real-time priority if they may (else the times are those of a busy machine). Batches
// (UDP_SEGMENT, TSO) cross it as such: each packet in them has a fate of its own, and those that arrive within Path.Gather are
// handed over in one batch, at the time of the last, as network cards that moderate interrupts do. ARP and neighbour discovery,
// which stand for routers that know each other, pass at once.
//
// Rates and queues count bytes of IP packets.
//
// The profiles, with round trips as the hosts see them; where each figure is from is in Profile.Sources, and reports tell it:
//
//	none          plain cables
//	lan           1 Gbit/s; 0.1 ms to the servers, 0.2 ms between functions
//	aws-region    75 MB/s for a function, each way; 0.25 ms to the servers, 0.5 ms between functions
//	cross-az      the same, every second function 0.5 ms farther away, in another zone
//	cross-region  the same, every second function 70 ms farther away, up to 1 ms of jitter each way
//	home          100 Mbit/s down, 20 up; 20 ms and up to 4 ms of jitter to the servers; 0.1 % lost each way
//	lossy         100 Mbit/s; 20 ms and up to 4 ms of jitter; 1 % lost each way, 3 in a row on average; reordering; outages
//
// Kernels that have netem could do the same; cables are here in user space, so that it is the same on every machine, seeded, and
// known to its own counts ([Counts]): what was lost to what, how late frames were, and what a thread was too slow for.
// What a cable carries, go test -bench Line ./experiments/lab measures.
package wan

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Path is one direction of a line. The zero Path does nothing.
type Path struct {
	Delay  time.Duration `json:"delay,omitzero"`  // of every packet
	Jitter time.Duration `json:"jitter,omitzero"` // a delay besides, evenly distributed from 0 to this; packets stay in order
	Loss   float64       `json:"loss,omitzero"`   // share of the packets, below 1
	Burst  float64       `json:"burst,omitzero"`  // how many are lost in a row, on average; to 1: each loss is for itself
	// Reorder is the share of packets that are held back for Late, in which others overtake them.
	Reorder float64       `json:"reorder,omitzero"`
	Late    time.Duration `json:"late,omitzero"`
	Rate    int64         `json:"rate,omitzero"`  // bits per second; 0 is no limit
	Queue   int           `json:"queue,omitzero"` // bytes that wait for the rate, else they are dropped; 0 is what Rate takes 10 ms for, at least 64 KiB
	// Outages, in which all packets are lost, last OutageFor; between them are OutageEvery on average, exponentially distributed.
	OutageEvery time.Duration `json:"outage_every,omitzero"`
	OutageFor   time.Duration `json:"outage_for,omitzero"`
	// Gather is how long a packet of a batch waits for the next ones at most; 0 is the constant.
	Gather time.Duration `json:"gather,omitzero"`
}

const (
	queueFor   = 10 * time.Millisecond
	queueLeast = 64 << 10 // a batch of the kernel's
	longest    = 2 * time.Minute
	fastest    = 100_000_000_000
	slowest    = 8_000
)

func (p Path) queue() int {
	if p.Queue > 0 {
		return p.Queue
	}
	return max(queueLeast, int(float64(p.Rate)/8*queueFor.Seconds()))
}

func (p Path) gather() time.Duration { return cmp.Or(p.Gather, Gather) }

// Check tells what is wrong with p, if anything.
func (p Path) Check() error {
	for name, d := range map[string]time.Duration{"delay": p.Delay, "jitter": p.Jitter, "late": p.Late, "time of outages": p.OutageFor, "gather": p.Gather} {
		if d < 0 || d > longest {
			return fmt.Errorf("wan: %s %v: want 0 to %v", name, d, longest)
		}
	}
	switch {
	case !(p.Loss >= 0 && p.Loss < 1):
		return fmt.Errorf("wan: loss %v: want a share from 0 to below 1", p.Loss)
	case !(p.Reorder >= 0 && p.Reorder <= 1):
		return fmt.Errorf("wan: reorder %v: want a share from 0 to 1", p.Reorder)
	case !(p.Burst >= 0 && p.Burst <= 1e6), p.Loss > 0 && p.Burst > 1 && p.Loss/(p.Burst*(1-p.Loss)) > 1:
		return fmt.Errorf("wan: %v lost in a row, of a share of %v: want up to 1e6, and a share that such runs can make", p.Burst, p.Loss)
	case p.Rate != 0 && (p.Rate < slowest || p.Rate > fastest):
		return fmt.Errorf("wan: rate %d bit/s: want %d to %d, or 0 for no limit", p.Rate, slowest, fastest)
	case p.Queue < 0 || p.Queue > holdBytes:
		return fmt.Errorf("wan: queue of %d bytes: want 0 to %d", p.Queue, holdBytes)
	case p.OutageEvery < 0 || p.OutageEvery > 0 && p.OutageFor == 0:
		return errors.New("wan: outages: want a time between them and how long they last")
	}
	return nil
}

// Line is what joins a host, or its NAT, to the internet of the lab. The zero Line is a plain cable.
type Line struct {
	Up   Path `json:"up,omitzero"`   // from the host
	Down Path `json:"down,omitzero"` // to it
}

// Check tells what is wrong with l, if anything.
func (l Line) Check() error { return errors.Join(l.Up.Check(), l.Down.Check()) }

// Even is a line that is the same both ways.
func Even(p Path) Line { return Line{p, p} }

const (
	// Gather is how long a packet of a batch waits for the next ones at most, unless the path has a time of its own.
	Gather = 50 * time.Microsecond

	holdBytes = 64 << 20 // under way in one direction, at most: further packets are dropped, and counted as overrun
)

// Counts are those of one direction since it was made. The ones of a moment may be subtracted from those of a later one.
type Counts struct {
	Packets, Bytes int64 // that came; with their IP headers
	Fates          [Fates]int64
	Overrun        int64 // dropped because the emulator was too slow for them, or had to hold too many
	// Lateness is how much later than they should have packets were handed over: element i counts those below 2^i us.
	Lateness [lateBuckets]int64
}

const lateBuckets = 24

// Sub returns the counts from before to c.
func (c Counts) Sub(before Counts) Counts {
	c.Packets, c.Bytes, c.Overrun = c.Packets-before.Packets, c.Bytes-before.Bytes, c.Overrun-before.Overrun
	for i := range c.Fates {
		c.Fates[i] -= before.Fates[i]
	}
	for i := range c.Lateness {
		c.Lateness[i] -= before.Lateness[i]
	}
	return c
}

// LateBy is the lateness that a share q of the frames does not exceed, to a factor of 2; 0 if there were none.
func (c Counts) LateBy(q float64) time.Duration {
	var all, some int64
	for _, n := range c.Lateness {
		all += n
	}
	for i, n := range c.Lateness {
		if some += n; n > 0 && float64(some) >= q*float64(all) {
			return time.Microsecond << i
		}
	}
	return 0
}

// Usage is what a cable has done.
type Usage struct {
	At       time.Time
	Thread   int           // a number
	CPU      time.Duration // of its thread, which others may share
	Up, Down Counts
}
