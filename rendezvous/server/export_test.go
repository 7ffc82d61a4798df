package server

import (
	"time"

	"github.com/fnwire/fnwire/internal/job"
)

// CollectStores looks at the stores now, as if it were then.
func (s *Server) CollectStores(then time.Time) { s.embedded.stores.collect(then) }

// StoresOf returns whose store is in which account.
func (s *Server) StoresOf() (jobs []job.ID) {
	st := &s.embedded.stores
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, a := range st.accounts {
		jobs = append(jobs, a.job)
	}
	return jobs
}
