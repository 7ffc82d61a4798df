package server

import (
	"sync"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

// waits holds the requests that wait for a name, each with a timer.
type waits struct {
	perJob, all int

	mu     sync.Mutex // guards what follows
	byKey  map[key]map[*waiter]struct{}
	jobs   map[job.ID]int
	total  int
	closed bool
}

// waiter is one request. answer is called once, with nil when time is up.
type waiter struct {
	key    key
	timer  *time.Timer
	answer func(*rendezvous.Member)
}

func newWaits(perJob, all int) *waits {
	return &waits{perJob: perJob, all: all, byKey: make(map[key]map[*waiter]struct{}), jobs: make(map[job.ID]int)}
}

// refusal tells why add returned nil.
func (w *waits) refusal() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return rendezvous.Refuse(rendezvous.CodeUnavailable, "the rendezvous is stopping")
	}
	return rendezvous.Refuse(rendezvous.CodeFull, "too many requests wait")
}

// add returns nil if no more fit.
func (w *waits) add(k key, hold time.Duration, answer func(*rendezvous.Member)) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.jobs[k.job] >= w.perJob || w.total >= w.all {
		return nil
	}
	one := &waiter{key: k, answer: answer}
	one.timer = time.AfterFunc(hold, func() { w.end(one, nil) })
	if w.byKey[k] == nil {
		w.byKey[k] = make(map[*waiter]struct{})
	}
	w.byKey[k][one] = struct{}{}
	w.jobs[k.job]++
	w.total++
	return one
}

// take removes one and reports whether it was still there. It needs w.mu.
func (w *waits) take(one *waiter) bool {
	set := w.byKey[one.key]
	if _, ok := set[one]; !ok {
		return false
	}
	one.timer.Stop()
	if delete(set, one); len(set) == 0 {
		delete(w.byKey, one.key)
	}
	if w.jobs[one.key.job]--; w.jobs[one.key.job] == 0 {
		delete(w.jobs, one.key.job)
	}
	w.total--
	return true
}

// end answers one unless it was answered before.
func (w *waits) end(one *waiter, m *rendezvous.Member) {
	w.mu.Lock()
	ok := w.take(one)
	w.mu.Unlock()
	if ok {
		one.answer(m)
	}
}

// joined answers all who wait for k.
func (w *waits) joined(k key, m *rendezvous.Member) {
	w.mu.Lock()
	var all []*waiter
	for one := range w.byKey[k] {
		if w.take(one) {
			all = append(all, one)
		}
	}
	w.mu.Unlock()
	for _, one := range all {
		one.answer(m)
	}
}

// close answers everybody that his time is up, so that he asks another copy.
func (w *waits) close() {
	w.mu.Lock()
	w.closed = true
	var all []*waiter
	for _, set := range w.byKey {
		for one := range set {
			all = append(all, one)
		}
	}
	w.mu.Unlock()
	for _, one := range all {
		w.end(one, nil)
	}
}

func (w *waits) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}
