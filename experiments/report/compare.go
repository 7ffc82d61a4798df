package report

import (
	"cmp"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode"

	"github.com/fnwire/fnwire/experiments/bill"
	"github.com/fnwire/fnwire/experiments/results"
)

const (
	reference = "fnwire" // is the way that all others are compared with
	relayed   = "relay"
	slowWay   = "wukong3" // what punching was thought to cost
)

// isOwn tells whether a way is fnwire's too, by other means or otherwise arranged: it is shown, but is no rival.
func isOwn(way string) bool {
	return way == reference || slices.Contains([]string{relayed, "last", "lazy", "auto"}, way) || strings.HasPrefix(way, reference+"-")
}

// comparison is a value by which an experiment compares ways.
type comparison struct {
	experiment    string // "" for all
	value         string // of Record.Measured; costValue for the bill
	more          bool   // more is better
	better, worse string
	what          string
	claims        int // works that README tells of
}

const costValue = "dollars"

// comparisons are all that the answer tells of, in its order.
func comparisons() []comparison {
	speed := func(experiment, value, what string, claims int) comparison {
		return comparison{experiment: experiment, value: value, better: "faster", worse: "slower", what: what, claims: claims}
	}
	goodput := speed("throughput", "goodput_mbps", "goodput of one stream", 2)
	perCore := speed("throughput", "relay_mbps_per_core", "what a relay carries for each core", 0)
	goodput.more, perCore.more, perCore.better, perCore.worse = true, true, "more", "less"
	cpu := func(value, what string) comparison {
		return comparison{experiment: "throughput", value: value, better: "less", worse: "more", what: what}
	}
	return []comparison{
		speed("dag", "done_ms", "until the whole job is done", 4),
		speed("fan", "done_ms", "until all states are where they belong", 2),
		speed("fan", "cold_ms", "the same from functions that have not joined or connected", 0),
		speed("transfer", "warm_ms", "a hand-over between two that are connected", 2),
		speed("transfer", "cold_ms", "the first hand-over, from two that have not joined or connected", 0),
		goodput, perCore,
		cpu("cpu_s_per_gb_sender", "CPU of the sender for a byte"), cpu("cpu_s_per_gb_receiver", "CPU of the receiver for a byte"),
		{value: costValue, better: "cheaper", worse: "dearer", what: "cost"},
	}
}

// of returns the value in a record, if it can be compared.
func (c comparison) of(r results.Record) (float64, bool) {
	v, there := r.Measured[c.value]
	if c.value == costValue {
		v, there = bill.Total(r.Bill), len(r.Bill) > 0
	}
	return v, there && r.OK && v > 0 && !math.IsInf(v, 0)
}

// isStore tells whether a way is a store: by the first word of its name, so that "s3, modelled" is one.
func isStore(way string) bool {
	words := strings.FieldsFunc(strings.ToLower(way), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	return len(words) > 0 && slices.Contains([]string{"redis", "s3", "nats", "file"}, words[0])
}

// measure is what there is of one way at one work: the values of its repetitions.
type measure struct {
	way      string
	values   []float64
	tried    int // repetitions, with those that failed
	marked   int // of those that count
	modelled bool
}

func (m measure) median() float64 { return results.Median(m.values) }

// measures returns what the records have of a work, by way.
func (c comparison) measures(rs []results.Record, work string) (out []measure) {
	at := make(map[string]int)
	for _, r := range rs {
		if r.Work != work || r.Way == "" || r.Skipped {
			continue
		}
		i, there := at[r.Way]
		if !there {
			i = len(out)
			at[r.Way] = i
			out = append(out, measure{way: r.Way})
		}
		m := &out[i]
		v, ok := c.of(r)
		if _, told := r.Measured[c.value]; ok || told || !r.OK {
			m.tried++
		}
		if ok {
			m.values = append(m.values, v)
			m.modelled = m.modelled || len(r.Modelled) > 0
			if len(r.Marks) > 0 {
				m.marked++
			}
		}
	}
	return out
}

// ratio says how many times better fnwire's median is than another's: above 1 it is better, below it is worse.
type ratio struct {
	of, to    measure // fnwire, the other
	ratio     float64
	low, high float64 // 95 % confidence interval; NaN if there are too few repetitions for one
}

const (
	resamples    = 4000
	fewestForCI  = 3 // repetitions
	fewForCI     = 6 // below this even the widest interval that n values give of their median has less than 95 %: 1 - 2^(1-n)
	confidence   = 0.95
	bootstrapKey = "fnwire report"
)

// compare returns the ratio of medians with its bootstrap percentile interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
// chapter 13), which depends on nothing but the values.
func (c comparison) compare(of, to measure, key string) ratio {
	r := ratio{of: of, to: to, low: math.NaN(), high: math.NaN()}
	better := func(of, to float64) float64 {
		if c.more {
			return of / to
		}
		return to / of
	}
	r.ratio = better(of.median(), to.median())
	if len(of.values) < fewestForCI || len(to.values) < fewestForCI {
		return r
	}
	h := fnv.New64a()
	h.Write([]byte(bootstrapKey + "\x00" + key + "\x00" + of.way + "\x00" + to.way))
	rng := rand.New(rand.NewPCG(h.Sum64(), resamples))
	a, b := slices.Sorted(slices.Values(of.values)), slices.Sorted(slices.Values(to.values))
	ratios := make([]float64, resamples)
	countA, countB := make([]int, len(a)), make([]int, len(b))
	for i := range ratios {
		ratios[i] = better(resampled(rng, a, countA), resampled(rng, b, countB))
	}
	slices.Sort(ratios)
	r.low, r.high = results.Quantile(ratios, (1-confidence)/2), results.Quantile(ratios, (1+confidence)/2)
	return r
}

// resampled is the median of as many values as there are, drawn with replacement. The values are sorted; count is for its use.
func resampled(rng *rand.Rand, values []float64, count []int) float64 {
	clear(count)
	for range values {
		count[rng.IntN(len(values))]++
	}
	lower, upper := (len(values)-1)/2, len(values)/2 // ranks of the one or two in the middle
	sum, seen := 0.0, 0
	for i, n := range count {
		for _, rank := range []int{lower, upper} {
			if rank >= seen && rank < seen+n {
				sum += values[i] / 2
			}
		}
		seen += n
	}
	return sum
}

// verdict is what a ratio says.
type verdict int

const (
	unknown verdict = iota // there are too few repetitions for an interval
	faster                 // the whole interval is above 1
	slower
	even // 1 is in the interval
)

func (r ratio) verdict() verdict {
	switch {
	case math.IsNaN(r.low):
		return unknown
	case r.low > 1:
		return faster
	case r.high < 1:
		return slower
	}
	return even
}

// few tells whether the interval, if there is one, is narrower than it should be.
func (r ratio) few() bool {
	return !math.IsNaN(r.low) && min(len(r.of.values), len(r.to.values)) < fewForCI
}

// bestOf is the way with the best median of those that are among them, or nil.
func (c comparison) bestOf(all []measure, among func(way string) bool) *measure {
	var best *measure
	for i, m := range all {
		if !among(m.way) || len(m.values) == 0 {
			continue
		}
		if best == nil || c.more && m.median() > best.median() || !c.more && m.median() < best.median() {
			best = &all[i]
		}
	}
	return best
}

// wayOrder sorts fnwire first, then what is its own, stores, and all others by name.
func wayOrder(a, b string) int {
	rank := func(way string) int {
		switch {
		case way == reference:
			return 0
		case way == relayed:
			return 1
		case isOwn(way):
			return 2
		case isStore(way):
			return 3
		}
		return 4
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}
