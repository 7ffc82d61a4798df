package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fnwire/fnwire/internal/job"
)

// memory is the table of a rendezvous that runs in one copy.
type memory struct {
	mu    sync.Mutex // guards what follows
	rows  map[key]row
	jobs  map[job.ID]usage
	total usage
	rev   uint64
}

type row struct {
	record record
	rev    uint64
	bytes  int
}

func newMemory() *memory {
	return &memory{rows: make(map[key]row), jobs: make(map[job.ID]usage)}
}

func (m *memory) get(_ context.Context, k key) (record, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rows[k]
	return r.record.clone(), r.rev, nil // the caller changes it
}

func (m *memory) put(_ context.Context, k key, r record, rev uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rows[k].rev != rev {
		return errConflict
	}
	m.drop(k)
	if r.empty(time.Now()) {
		return nil
	}
	m.rev++
	m.rows[k] = row{record: r, rev: m.rev, bytes: r.size()}
	m.account(k.job, 1, m.rows[k].bytes)
	return nil
}

// drop needs m.mu.
func (m *memory) drop(k key) {
	if old, ok := m.rows[k]; ok {
		delete(m.rows, k)
		m.account(k.job, -1, -old.bytes)
	}
}

func (m *memory) account(j job.ID, names, bytes int) {
	u := m.jobs[j]
	u.names, u.bytes = u.names+names, u.bytes+bytes
	m.total.names, m.total.bytes = m.total.names+names, m.total.bytes+bytes
	if u.names == 0 {
		delete(m.jobs, j)
		return
	}
	m.jobs[j] = u
}

func (m *memory) list(_ context.Context, j *job.ID) (map[key]record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[key]record)
	for k, r := range m.rows {
		if j == nil || k.job == *j {
			out[k] = r.record
		}
	}
	return out, nil
}

func (m *memory) used(j *job.ID) usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j == nil {
		return m.total
	}
	return m.jobs[*j]
}

func (m *memory) sweep(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, r := range m.rows {
		fresh := r.record.clone()
		if fresh.prune(now); !fresh.empty(now) && len(fresh.Parked) == len(r.record.Parked) && len(fresh.Joins) == len(r.record.Joins) {
			continue
		}
		m.drop(k)
		if !fresh.empty(now) { // with a revision of its own, so that nobody writes back what he read before
			m.rev++
			m.rows[k] = row{record: fresh, rev: m.rev, bytes: fresh.size()}
			m.account(k.job, 1, m.rows[k].bytes)
		}
	}
}

// clone shares nothing that changes.
func (r *record) clone() record {
	c := *r
	c.Parked, c.Joins = slices.Clone(r.Parked), slices.Clone(r.Joins)
	return c
}

// size is about what the record takes in memory.
func (r *record) size() int {
	n := 192 + len(r.Peer) + 48*len(r.Joins) + len(r.Wake.ID) + len(r.Wake.Error)
	for _, p := range r.Parked {
		e := &p.Envelope
		n += 256 + len(e.Body) + len(e.MAC) + len(e.FromName) + len(e.FromPeer) + len(e.ToName)
	}
	return n
}
