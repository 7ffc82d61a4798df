package wan

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Profile is a network that is known by a name: the lines of its hosts, and where each figure is from.
type Profile struct {
	Name    string
	Meaning string // of which hosts it is made
	// Functions are the lines of hosts for functions: the first host has the first, and so on, and over again. None: cables.
	Functions []Line
	Public    Line // of the host with the servers; its own rate is the machine's
	Sources   []string
	// Slow is how many times slower than its name everything is, so that a machine with few cores is as fast to it as one with so many times
	// more; 0 and 1 are not at all. See [Profile.Slowed].
	Slow int
}

// Slowed is p n times slower, which is time dilation (Gupta and others, To Infinity and Beyond: Time-Warped Network Emulation, NSDI 2006): who
// divides the times that are measured in it by n gets those of p on a machine that is n times as fast, so that as many functions as n
// times its cores can each have one. What is not slowed too, such as timers of programs, appears to be n times faster.
func (p Profile) Slowed(n int) Profile {
	slow := func(l Line) Line { return Line{l.Up.slowed(n), l.Down.slowed(n)} }
	lines := make([]Line, 0, len(p.Functions))
	for _, l := range p.Functions {
		lines = append(lines, slow(l))
	}
	p.Name, p.Functions, p.Public, p.Slow = fmt.Sprintf("%s/%d", p.Name, n), lines, slow(p.Public), n
	p.Meaning += fmt.Sprintf(", %d times slower", n)
	return p
}

func (p Path) slowed(n int) Path {
	if p == (Path{}) {
		return p // a plain cable
	}
	if p.Rate > 0 {
		p.Queue = p.queue() // what waits is the same, and waits longer
	}
	p.Gather = p.gather()
	for _, d := range []*time.Duration{&p.Gather, &p.Delay, &p.Jitter, &p.Late, &p.OutageEvery, &p.OutageFor} {
		*d *= time.Duration(n)
	}
	p.Rate /= int64(n)
	return p
}

// Function is the line of the i-th host for functions.
func (p Profile) Function(i int) Line {
	if len(p.Functions) == 0 {
		return Line{}
	}
	return p.Functions[i%len(p.Functions)]
}

// Check tells what is wrong with p, if anything.
func (p Profile) Check() error {
	err := p.Public.Check()
	for _, l := range p.Functions {
		err = errors.Join(err, l.Check())
	}
	return err
}

// None is the profile of plain cables.
const None = "none"

const (
	us = time.Microsecond
	ms = time.Millisecond

	// function is what a function may send, and receive.
	functionRate  = 600_000_000
	functionDelay = 125 * us
	farQueue      = 5_250_000

	rateSource = "rate: 75 MB/s each way for a function, which is the size of what Wang et al. (Peeking Behind the Curtains of Serverless Platforms, " +
		"USENIX ATC 2018) and Müller, Marroquín, Alonso (Lambada, SIGMOD 2020) measured on AWS Lambda; the bursts above it, of which Lambada tells, are left out"
	queueSource = "queue: what the rate takes 10 ms for; an assumption"
	zoneSource  = "delay: 0.25 ms round trip between function and servers, as between machines in one zone of AWS: 0.25 ms, best of 50 pings " +
		"(xkyle.com/Measuring-AWS-Region-and-AZ-Latency), 0.26 ms on average (orensol.com, 2009-05-24); twice that between functions, an assumption: their packets pass two NATs"
)

// Profiles returns all profiles.
func Profiles() []Profile {
	zone := Path{Delay: functionDelay, Rate: functionRate}
	far := func(more, jitter time.Duration, queue int) Line {
		return Even(Path{Delay: functionDelay + more, Jitter: jitter, Rate: functionRate, Queue: queue})
	}
	return []Profile{
		{Name: None, Meaning: "plain cables: as fast as the machine"},
		{
			Name: "lan", Meaning: "a switched network of 1 Gbit/s",
			Functions: []Line{Even(Path{Delay: 50 * us, Rate: 1_000_000_000})},
			Sources: []string{
				"rate: 1000BASE-T, IEEE 802.3, clause 40", queueSource,
				"delay: 0.1 ms round trip to servers, twice that between functions: store and forward of 1,500 bytes takes 12 us a hop, the rest is for the hosts; an assumption",
			},
		}, {
			Name: "aws-region", Meaning: "functions and servers in one zone of a region",
			Functions: []Line{Even(zone)}, Sources: []string{rateSource, queueSource, zoneSource},
		}, {
			Name: "cross-az", Meaning: "every second function in another zone of the region",
			Functions: []Line{Even(zone), far(250*us, 0, 0)},
			Sources: []string{rateSource, queueSource, zoneSource,
				"between zones 0.5 ms of round trip more: 0.82 ms on average in eu-west-1 (L. Liesis, 2022-11-29), 0.5 to 1.5 ms (flashgrid.io, 2023-03-27)"},
		}, {
			Name: "cross-region", Meaning: "every second function in another region, away from the servers",
			Functions: []Line{far(0, 0, farQueue), far(35*ms, ms, farQueue)},
			Sources: []string{rateSource, "queue: 5.25 MB, what the rate takes a round trip between regions for; an assumption", zoneSource,
				"between regions 70 ms of round trip more, as between us-east-1 and eu-west-1 (cloudping.co), and up to 1 ms of jitter each way, an assumption"},
		}, {
			Name: "home", Meaning: "each function at home, with an access line of its own",
			Functions: []Line{{
				Up:   Path{Delay: 10 * ms, Jitter: 2 * ms, Rate: 20_000_000, Queue: 256 << 10, Loss: 0.001},
				Down: Path{Delay: 10 * ms, Jitter: 2 * ms, Rate: 100_000_000, Queue: 512 << 10, Loss: 0.001},
			}},
			Sources: []string{
				"rate: 100 Mbit/s down, 20 up, the FCC's benchmark of broadband (FCC 24-27, 2024)",
				"loss: 0.1 % each way, in the better of the three classes, below 0.4 %, of the FCC's Measuring Broadband America (9th report, chart 8)",
				"delay: 20 ms round trip to servers and up to 4 ms of jitter; queue: 256 KiB up, 512 KiB down; assumptions",
			},
		}, {
			Name: "lossy", Meaning: "functions on a bad network: losses in bursts, reordering, jitter, outages",
			Functions: []Line{Even(Path{Delay: 10 * ms, Jitter: 2 * ms, Rate: 100_000_000, Loss: 0.01, Burst: 3, Reorder: 0.005, Late: 2 * ms,
				OutageEvery: time.Minute, OutageFor: 300 * ms})},
			Sources: []string{
				"loss: 1 % each way, where the FCC's Measuring Broadband America (9th report, chart 8) draws the line to the worst class, 3 in a row on average (model: E. N. Gilbert, Bell System Technical Journal 39, 1960)",
				"all else is an assumption: 20 ms round trip to servers, up to 4 ms of jitter, 0.5 % held back for 2 ms, 100 Mbit/s, an outage of 0.3 s a minute", queueSource,
			},
		},
	}
}

// ProfileNames are the names of all profiles.
func ProfileNames() []string {
	all := Profiles()
	names := make([]string, 0, len(all))
	for _, p := range all {
		names = append(names, p.Name)
	}
	return names
}

// MostSlow is how many times slower a profile may be.
const MostSlow = 256

// FindProfile returns the profile of a name, which may end with how many times slower it is to be: "aws-region/8".
func FindProfile(name string) (Profile, error) {
	all := Profiles()
	if of, times, ok := strings.Cut(name, "/"); ok {
		n, err := strconv.Atoi(times)
		if err != nil || n < 2 || n > MostSlow {
			return Profile{}, fmt.Errorf("wan: profile %q: want NAME/2 to NAME/%d", name, MostSlow)
		}
		p, err := FindProfile(of)
		if err != nil || len(p.Functions) == 0 {
			return Profile{}, errors.Join(err, fmt.Errorf("wan: profile %q: %s cannot be slower", name, of))
		}
		return p.Slowed(n), nil
	}
	if i := slices.IndexFunc(all, func(p Profile) bool { return p.Name == name }); i >= 0 {
		return all[i], nil
	}
	return Profile{}, fmt.Errorf("wan: no profile %q: there are %s", name, strings.Join(ProfileNames(), ", "))
}
