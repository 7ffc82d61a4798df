package transport

import (
	"sync"

	"github.com/fnwire/fnwire/transport/punch"
)

// outlooks remembers how the hard methods did with the instance's peers so far, by the kinds of the two
// NATs: functions of a job tend to sit behind a few kinds. It lives as long as the endpoint.
type outlooks struct {
	mu    sync.Mutex // guards what follows
	runs  map[punch.Outlooks]int
	own   punch.Outlooks
	heard punch.Outlooks // from other instances
}

// poorAfter is how many attempts in a row must have failed.
const poorAfter = 2

// note counts what worked, or failed, in a row: the count is above zero for successes, below for failures.
func (o *outlooks) note(here, there punch.NAT, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.runs == nil {
		o.runs = make(map[punch.Outlooks]int)
	}
	pair := punch.Outlooks(0).With(here, there, punch.OutlookGood) // names the kinds, whichever is here
	n := 1
	if !ok {
		n = min(o.runs[pair], 0) - 1
	}
	o.runs[pair] = n
	switch {
	case ok:
		o.own = o.own.With(here, there, punch.OutlookGood)
	case n <= -poorAfter:
		o.own = o.own.With(here, there, punch.OutlookPoor)
	default:
		o.own = o.own.With(here, there, punch.OutlookOpen)
	}
}

// all is what is known; what this instance has seen counts more than what it has heard.
func (o *outlooks) all() punch.Outlooks {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.own.Over(o.heard)
}

// Outlooks is what this endpoint has seen of the hard methods, for the other instances of its job, and all that it goes by.
func (e *Endpoint) Outlooks() (own, all punch.Outlooks) {
	o := &e.hub.outlooks
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.own, o.own.Over(o.heard)
}

// SetOutlooks tells what other instances of the job have seen. It changes when and how often a hard method is tried, and
// nothing else, and counts only where this endpoint has seen nothing itself.
func (e *Endpoint) SetOutlooks(heard punch.Outlooks) {
	o := &e.hub.outlooks
	o.mu.Lock()
	defer o.mu.Unlock()
	o.heard = heard
}

// noteOutlook learns from a change of state.
func (p *remote) noteOutlook(old, s punch.State) {
	switch hard := s.Method == punch.MethodPredict || s.Method == punch.MethodBirthday; {
	case hard && s.Path.IsValid() && s.Generation != old.Generation:
		p.hub.outlooks.note(s.Here, s.There, true)
		p.hub.guesses.forgive(s.Path.Addr())
	case s.Counters.Failed > old.Counters.Failed:
		p.hub.outlooks.note(old.Here, old.There, false)
	}
}
