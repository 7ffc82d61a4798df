// Package calibration measures the lines of a lab from its hosts: what package wan was told, against what arrives. Delays
// are from the clock before sending to the kernel's time stamp of the arrival, on one machine and so by one clock: how soon a program
// is woken up for a packet is no part of them.
package calibration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/wan"
)

const (
	pings       = 200
	pingEvery   = time.Millisecond
	countMost   = 20_000                // packets for one measurement of loss
	countPace   = 20_000                // a second
	blastFor    = 10                    // windows
	blastOver   = 1.3                   // of the rate
	window      = 50 * time.Millisecond // or so many packets, or times the jitter
	windowLeast = 20
	jitterLeast = 10
	sigmas      = 3
	retries     = 5
	udpHeaders  = 28 // with that of IPv4
)

// Lab measures one host for each different line in the lab against the host public, which takes about 3 seconds each, and more where lines are slow. Hosts whose network lets
// no UDP out are left out. A lab without lines has nothing to measure.
func Lab(ctx context.Context, l *lab.Lab, public string) ([]results.Check, error) {
	var checks []results.Check
	hosts := l.Hosts()
	i := slices.IndexFunc(hosts, func(h lab.HostInfo) bool { return h.Name == public })
	if i < 0 {
		return nil, fmt.Errorf("calibration: no host %q", public)
	}
	seen := map[wan.Line]bool{{}: true}
	for _, h := range hosts {
		t, err := h.NAT.Traits()
		if err != nil {
			return nil, fmt.Errorf("calibration: %w", err)
		}
		if h.Name == public || seen[h.Line] || t.UDP.Blocked {
			continue
		}
		seen[h.Line] = true
		some, err := one(ctx, l, h, hosts[i])
		if err != nil {
			return nil, fmt.Errorf("calibration: line of %s: %w", h.Name, err)
		}
		checks = append(checks, some...)
	}
	return checks, nil
}

// one measures a host's line, both ways.
func one(ctx context.Context, l *lab.Lab, h, public lab.HostInfo) ([]results.Check, error) {
	up, down, err := meet(ctx, l, h.Name, public)
	if err != nil {
		return nil, err
	}
	defer up.close()
	var checks []results.Check
	for _, w := range []struct {
		name      string
		way       way
		near, far wan.Path
	}{{"up", up, h.Line.Up, public.Line.Down}, {"down", down, h.Line.Down, public.Line.Up}} {
		some, err := measure(ctx, l, w.way, w.near, w.far)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.name, err)
		}
		for _, c := range some {
			c.What = fmt.Sprintf("line of %s, %s: %s", h.Name, w.name, c.What)
			checks = append(checks, c)
		}
	}
	return checks, nil
}

// measure measures one way, which is the path of the host's line and that of the public host's.
func measure(ctx context.Context, l *lab.Lab, w way, near, far wan.Path) ([]results.Check, error) {
	rate := least(near.Rate, far.Rate)
	w.longest = near.Delay + far.Delay + near.Jitter + far.Jitter + near.Late + far.Late
	var delay time.Duration
	if err := calm(l, func() (err error) { delay, err = w.delay(ctx, rate); return err }); err != nil {
		return nil, err
	}
	set := near.Delay + far.Delay + (near.Jitter+far.Jitter)/2 + sending(pingBytes, near.Rate) + sending(pingBytes, far.Rate)
	checks := []results.Check{{What: "delay, median", Unit: "ms", Set: ms(set), Measured: ms(delay)}}
	if near.Loss > 0 || far.Loss > 0 {
		var c results.Check
		if err := calm(l, func() (err error) { c, err = loss(ctx, w, near, far); return err }); err != nil {
			return nil, err
		}
		checks = append(checks, c)
	}
	if rate > 0 {
		var got float64
		if err := calm(l, func() (err error) { got, err = w.rate(ctx, rate, near.Jitter+far.Jitter); return err }); err != nil {
			return nil, err
		}
		// What is lost takes its share of the rate with it.
		kept := (1 - near.Loss) * (1 - far.Loss)
		checks = append(checks, results.Check{What: "rate", Unit: "Mbit/s", Set: float64(rate) / 1e6 * kept, Measured: got / 1e6})
	}
	return checks, nil
}

// loss counts what is lost of packets that are too few for a queue.
func loss(ctx context.Context, w way, near, far wan.Path) (results.Check, error) {
	pace := countPace
	if rate := least(near.Rate, far.Rate); rate > 0 {
		pace = min(pace, int(rate/8/countBytes/3))
	}
	share := 1 - (1-near.Loss)*(1-far.Loss)
	sent, got, err := w.count(ctx, min(countMost, pace), pace)
	if err != nil {
		return results.Check{}, err
	}
	// Runs make the number of losses spread more: by the square root of twice their length less one, about.
	runs := 2*max(near.Burst, far.Burst, 1) - 1
	return results.Check{What: "loss", Unit: "%", Set: 100 * share, Measured: 100 * float64(sent-got) / float64(sent),
		Chance: sigmas * math.Sqrt(runs*(1-share)/(share*float64(sent)))}, nil
}

// calm makes a measurement again if there was an outage in it, which is not what it measures.
func calm(l *lab.Lab, measure func() error) error {
	for range retries {
		before, err := outages(l)
		if err != nil {
			return err
		}
		failed := measure()
		after, err := outages(l)
		if err != nil {
			return err
		}
		if before == after {
			return failed
		}
	}
	return errors.New("an outage each time")
}

// outages is how many packets have been lost in outages.
func outages(l *lab.Lab) (n int64, err error) {
	lines, _, err := l.Lines()
	for _, u := range lines {
		n += u.Up.Fates[wan.Out] + u.Down.Fates[wan.Out]
	}
	return n, err
}

// sending is how long a rate takes for a packet with so many bytes in it.
func sending(bytes int, rate int64) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(bytes+udpHeaders) * 8e9 / float64(rate))
}

// least is the lower of two rates, of which 0 is none.
func least(a, b int64) int64 {
	if a == 0 || b == 0 {
		return cmp.Or(a, b)
	}
	return min(a, b)
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
