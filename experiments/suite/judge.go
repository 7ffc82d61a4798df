package suite

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fnwire/fnwire/experiments/worker"
)

// What a sender was told of a state.
type outcome string

const (
	accepted outcome = "accepted" // a receipt: the receiver's application has it
	stored   outcome = "stored"   // a receipt: a store has it
	refused  outcome = "failed"   // an error
	died     outcome = "died"     // nothing: the sender was killed
)

// handedOver is a state, and what its sender was told of it.
type handedOver struct {
	key, from, to string
	bytes         int64
	digest        string // of what was sent

	outcome outcome
	receipt string // the digest in it
	said    string // the error
	began   int64
	told    int64         // when the sender was
	frozen  time.Duration // of which so much passed while the sender could not be told
	within  time.Duration
}

// work is what an instance has told of a state.
type work struct {
	name, instance string
	worker.Taken
}

// verdict is what all receipts and all work together show.
type verdict struct {
	outcomes map[outcome]int
	delivered,
	again, // worked on by two instances, as may be: the first died, or could not tell, before the sender had its receipt
	silent int // worked on though the sender got an error, or died: as may be
	latest time.Duration // after its deadline, that a sender was told
	wrong  []string      // receipts that are not true, states that are lost, doubled or changed, deadlines missed
}

// lateness is how much later than its deadline a sender may be told, on a machine that is busy.
const lateness = 2 * time.Second

// judge compares what senders were told with what receivers have done.
func judge(states []handedOver, done []work) verdict {
	v := verdict{outcomes: make(map[outcome]int)}
	known := make(map[string]handedOver, len(states))
	for _, s := range states {
		known[s.key] = s
		v.outcomes[s.outcome]++
		if late := time.Duration(s.told-s.began) - s.frozen - s.within; s.outcome != died && late > 0 {
			v.latest = max(v.latest, late)
			if late > lateness {
				v.blame("%s: %s was told %v after the deadline", s.key, s.from, late.Round(time.Millisecond))
			}
		}
	}
	byKey := make(map[string][]work)
	for _, w := range done {
		if s, ok := known[w.Key]; !ok || w.name != s.to || w.From != s.from || w.Bytes != s.bytes || w.Digest != s.digest {
			v.blame("%s: %s got %d bytes with digest %.12s from %s, want %d with %.12s from %s for %s",
				w.Key, w.instance, w.Bytes, w.Digest, w.From, s.bytes, s.digest, s.from, s.to)
			continue
		}
		byKey[w.Key] = append(byKey[w.Key], w)
	}
	for _, key := range slices.Sorted(maps.Keys(known)) {
		v.one(known[key], byKey[key])
	}
	return v
}

func (v *verdict) blame(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// one judges a state by all work on it.
func (v *verdict) one(s handedOver, done []work) {
	slices.SortStableFunc(done, func(a, b work) int { return int(a.At - b.At) })
	var instances []string
	settled := "" // the instance after whose word the state must not come again
	for _, w := range done {
		switch {
		case w.Accepted:
			if w.Path == viaStore && w.Error == "" {
				settled = w.instance
			}
		case slices.Contains(instances, w.instance):
			v.blame("%s: %s got it twice", s.key, w.instance)
		case settled != "":
			v.blame("%s: %s got it after %s had accepted it from the store", s.key, w.instance, settled)
		case len(instances) > 0 && s.outcome == accepted && w.At > s.told:
			v.blame("%s: %s got it after its sender had the receipt of %s", s.key, w.instance, instances[0])
		default:
			instances = append(instances, w.instance)
		}
	}
	if len(instances) > 0 {
		v.delivered++
	}
	if len(instances) > 1 {
		v.again++
	}
	receipt := s.outcome == accepted || s.outcome == stored
	switch {
	case receipt && s.receipt != s.digest:
		v.blame("%s: the receipt has digest %.12s, want %.12s", s.key, s.receipt, s.digest)
	case s.outcome == accepted && !slices.ContainsFunc(done, func(w work) bool { return w.At <= s.told }):
		v.blame("%s: accepted by %s, says the receipt, which has not got it by then", s.key, s.to)
	case s.outcome == stored && len(instances) == 0:
		v.blame("%s: stored for %s, says the receipt, and lost", s.key, s.to)
	case !receipt && len(instances) > 0:
		v.silent++
	}
}

// viaStore is the path of a state that came from a store.
const viaStore = "store"
