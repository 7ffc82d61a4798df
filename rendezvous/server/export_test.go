package server

import (
	"context"
	"fmt"
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

// Hold has the table hold so many names of a job for an hour.
func (s *Server) Hold(ctx context.Context, j job.ID, names int) error {
	for i := range names {
		err := update(ctx, s.serving.Load().table, key{j, fmt.Sprint("one-", i)}, func(r *record) error {
			r.Peer, r.Lease = "somebody", time.Now().Add(time.Hour)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
