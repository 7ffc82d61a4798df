package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

// key is where a record lives.
type key struct {
	job  job.ID
	name string
}

// record is all that the service knows of a name. In JSON it is a value of the KV bucket.
type record struct {
	V         int       `json:"v"`
	Peer      string    `json:"peer,omitempty"` // the holder; empty if only offers wait here
	Epoch     uint64    `json:"epoch,omitempty"`
	Lease     time.Time `json:"lease,omitzero"` // end of it
	Exclusive bool      `json:"exclusive,omitempty"`
	ParkedTo  uint64    `json:"parked_to,omitempty"` // highest parked.ID ever given out
	Parked    []parked  `json:"parked,omitempty"`
	Joins     []used    `json:"joins,omitempty"` // joins that might be repeated
	Wake      waking    `json:"wake,omitzero"`
}

// used is the nonce of a join that was accepted.
type used struct {
	Nonce rendezvous.Nonce `json:"nonce"`
	Until time.Time        `json:"until"`
}

// maxJoins bounds the nonces kept for one name. Only who holds the job key can push one out.
const maxJoins = 32

type parked struct {
	ID       uint64              `json:"id"`
	Until    time.Time           `json:"until"`
	Envelope rendezvous.Envelope `json:"envelope"`
}

// live reports whether somebody holds the name.
func (r *record) live(now time.Time) bool { return r.Peer != "" && now.Before(r.Lease) }

// prune drops what has expired. A holder's epoch stays as long as the record does.
func (r *record) prune(now time.Time) {
	r.Parked = slices.DeleteFunc(r.Parked, func(p parked) bool { return !now.Before(p.Until) })
	r.Joins = slices.DeleteFunc(r.Joins, func(u used) bool { return now.After(u.Until) })
	if !now.Before(r.Wake.Until) {
		r.Wake = waking{}
	}
}

// firstUse notes the nonce of a join and reports whether it is new.
func (r *record) firstUse(n rendezvous.Nonce, issued time.Time) bool {
	for _, u := range r.Joins {
		if u.Nonce == n {
			return false
		}
	}
	if len(r.Joins) >= maxJoins {
		r.Joins = r.Joins[1:]
	}
	r.Joins = append(slices.Clip(r.Joins), used{n, issued.Add(rendezvous.MaxClockSkew)})
	return true
}

// empty reports whether the record may be forgotten. Epochs begin with the time, so nothing is lost.
func (r *record) empty(now time.Time) bool {
	return !r.live(now) && len(r.Parked) == 0 && len(r.Joins) == 0 && !now.Before(r.Wake.Until)
}

// park keeps an offer until somebody joins. An earlier offer of the same instance is replaced.
func (r *record) park(e rendezvous.Envelope, now time.Time, hold time.Duration) error {
	r.prune(now)
	r.Parked = slices.DeleteFunc(r.Parked, func(p parked) bool { return p.Envelope.FromPeer == e.FromPeer })
	if len(r.Parked) >= rendezvous.MaxParked {
		return rendezvous.Refuse(rendezvous.CodeParkedFull, "%d offers wait for %q already", len(r.Parked), e.ToName)
	}
	r.ParkedTo = max(r.ParkedTo+1, uint64(max(now.UnixMilli(), 0)))
	r.Parked = append(r.Parked, parked{ID: r.ParkedTo, Until: now.Add(hold), Envelope: e})
	return nil
}

// offers returns the parked envelopes, oldest first, and the ID of the last.
func (r *record) offers() (es []rendezvous.Envelope, to uint64) {
	for _, p := range r.Parked {
		es, to = append(es, p.Envelope), p.ID
	}
	return es, to
}

// usage is what a job takes of the table.
type usage struct{ names, bytes int }

// table holds records and changes them one at a time by compare-and-swap.
type table interface {
	// get returns the record and its revision, or a zero record and revision 0.
	get(ctx context.Context, k key) (record, uint64, error)
	// put replaces the record of revision rev (0: there must be none). An empty record may be dropped.
	// It returns errConflict if the revision is another.
	put(ctx context.Context, k key, r record, rev uint64) error
	// list returns the records of a job, or of all jobs if j is nil, in no order. Records may be a moment old.
	list(ctx context.Context, j *job.ID) (map[key]record, error)
	// used tells what a job, or everything, takes. It may be a moment old.
	used(j *job.ID) usage
	// sweep forgets what has expired.
	sweep(now time.Time)
}

var errConflict = errors.New("record was changed by another")

// errUnchanged lets a change end without writing.
var errUnchanged = errors.New("nothing to change")

const casAttempts = 32

// update applies change to the record of k until it fits. change may run several times; its error ends
// the update, errUnchanged without being an error.
func update(ctx context.Context, t table, k key, change func(*record) error) error {
	for attempt := range casAttempts {
		r, rev, err := t.get(ctx, k)
		if err != nil {
			return err
		}
		r.V = 1
		if err := change(&r); errors.Is(err, errUnchanged) {
			return nil
		} else if err != nil {
			return err
		}
		if err = t.put(ctx, k, r, rev); !errors.Is(err, errConflict) {
			return err
		}
		if attempt == 0 {
			continue
		}
		select { // others make progress; make room for them
		case <-time.After(rand.N(time.Millisecond << min(attempt, 5))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return rendezvous.Refuse(rendezvous.CodeUnavailable, "too many changes of %q at once; try again", k.name)
}
