package server

import (
	"sync"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

// maxHints is the most jobs whose hints are kept: 33 bytes each, and the map's own.
const maxHints = 1 << 14

// hints are what the jobs' instances have reported of hard NATs. They are not worth a place in the table: each copy of the service
// has its own, which a restart loses. Only who holds a name of the job can report.
type hints struct {
	mu   sync.Mutex // guards jobs
	jobs map[job.ID]rendezvous.Hints
}

// note adds a report and returns what is known of the job.
func (h *hints) note(j job.ID, report rendezvous.Hints) rendezvous.Hints {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.jobs[j]
	now := old.With(report)
	if now == old {
		return now
	}
	if h.jobs == nil {
		h.jobs = make(map[job.ID]rendezvous.Hints)
	}
	if len(h.jobs) >= maxHints && old == 0 {
		for other := range h.jobs { // any
			delete(h.jobs, other)
			break
		}
	}
	h.jobs[j] = now
	return now
}
