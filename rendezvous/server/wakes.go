package server

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

// wakeAgain is how long a name whose hook has failed is left alone. It is shorter than a caller's pause between two offers.
const wakeAgain = 20 * time.Second

// waking says that a copy of the service wakes the name, or what became of that. As it is part of the record, there is one
// for a name, however many copies there are.
type waking struct {
	ID    string    `json:"id,omitempty"`
	Until time.Time `json:"until,omitzero"` // no other event before that; a copy that works on it moves it on
	Error string    `json:"error,omitempty"`
}

func (w *waking) String() string {
	if w.Error != "" {
		return rendezvous.WakeFailed + w.Error
	}
	return rendezvous.WakeCalled
}

// claim is an event that this copy has to bring to its hook.
type claim struct {
	hook  *wake.Hook
	id    string
	event wake.Event
}

// claim takes it upon this copy to wake the name, unless it has a holder, no hook, or is being woken already. It returns
// what to tell the caller.
func (v *service) claim(k key, rec *record, e *rendezvous.Envelope, now time.Time) (*claim, string) {
	h := v.hooks.Load().Find(k.job, k.name)
	if h == nil || rec.live(now) {
		return nil, ""
	}
	if rec.Wake.ID != "" {
		return nil, rec.Wake.String()
	}
	rec.Wake = waking{ID: wake.NewID(), Until: now.Add(v.waker.Hold(h))}
	reason := wake.Called
	if e.Kind == rendezvous.KindStored {
		reason = wake.Stored
	}
	return &claim{hook: h, id: rec.Wake.ID, event: wake.Event{
		Type: wake.EventType, Time: now.UTC().Truncate(time.Millisecond),
		Data: wake.Data{Job: k.job, Name: k.name, Reason: reason, Caller: e.FromName, Parked: len(rec.Parked)},
	}}, rec.Wake.String()
}

// wake calls the hook until it succeeds, fails for good, or somebody has joined.
func (v *service) wake(k key, c *claim) {
	err := v.waker.Send(v.ctx, c.hook, c.id, c.event, func(ctx context.Context) bool {
		wanted, err := v.move(ctx, k, c, waking{ID: c.id, Until: time.Now().Add(v.waker.Hold(c.hook))})
		return wanted && err == nil
	})
	var failed *wake.FailedError
	next, what := waking{}, "dropped" // the next offer begins anew
	switch {
	case err == nil:
		next, what = waking{ID: c.id, Until: time.Now().Add(c.hook.Start())}, "called"
	case errors.As(err, &failed):
		next, what = waking{ID: c.id, Until: time.Now().Add(wakeAgain), Error: failed.Reason}, "failed"
	case errors.Is(err, wake.ErrUnwanted):
		v.metrics.wakes.WithLabelValues("unneeded").Inc()
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.ctx), time.Second) // even if the service is stopping
	defer cancel()
	asleep, moveErr := v.move(ctx, k, c, next)
	if err != nil && !asleep && moveErr == nil {
		what = "unneeded" // joined in the meantime
	}
	v.metrics.wakes.WithLabelValues(what).Inc()
	if what == "failed" {
		v.log.Warn("rendezvous: wake hook failed", "job", k.job, "name", k.name, "hook", c.hook.Host(), "err", err)
		v.tellAsleep(ctx, k, &next)
	}
}

// move replaces the claim if it still is this copy's and nobody has joined.
func (v *service) move(ctx context.Context, k key, c *claim, to waking) (mine bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = update(ctx, v.table, k, func(rec *record) error {
		now := time.Now()
		rec.prune(now)
		if mine = rec.Wake.ID == c.id && !rec.live(now); !mine {
			return errUnchanged
		}
		rec.Wake = to
		return nil
	})
	if err != nil {
		v.log.Warn("rendezvous: who is woken cannot be noted", "err", err)
	}
	return mine, err
}

// tellAsleep tells those whose offers are parked that nobody comes.
func (v *service) tellAsleep(ctx context.Context, k key, w *waking) {
	rec, _, err := v.table.get(ctx, k)
	if err != nil {
		return // they are told when they offer again
	}
	for _, p := range rec.Parked {
		v.publish(nats.NewMsg(rendezvous.SubjectInbox(k.job, p.Envelope.FromPeer)),
			rendezvous.Inbox{V: 1, Type: rendezvous.InboxWake, Name: k.name, Wake: w.String()})
	}
}
