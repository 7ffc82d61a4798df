package rendezvous

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/internal/job"
)

func (c *Client) head(name string) Head {
	h := Head{V: 1, Job: c.jobID, Name: name, Peer: c.peerID, Issued: time.Now().UTC().Truncate(time.Millisecond)}
	_, _ = rand.Read(h.Nonce[:]) // never fails (crypto/rand)
	return h
}

type refusable interface{ Refusal() *RefusedError }

// request makes one round trip. Its errors carry no prefix yet.
func (c *Client) request(ctx context.Context, verb string, body any, reply refusable) error {
	needJob, needPeer := signers(verb)
	jobKey, peerKey := c.jobKey, c.cfg.Identity.Ed25519
	if !needJob {
		jobKey = nil
	}
	if !needPeer {
		peerKey = nil
	}
	req, err := SignRequest(verb, c.jobID, body, jobKey, peerKey)
	if err != nil {
		return err
	}
	data, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if len(data) > MaxRequest {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrBadRequest, len(data), MaxRequest)
	}
	m, err := c.exchange(ctx, SubjectFor(verb, c.jobID.String()), data)
	if err != nil {
		return c.natsError(err)
	}
	if err := json.Unmarshal(m.Data, reply); err != nil {
		return fmt.Errorf("%w: unreadable reply: %w", ErrUnavailable, err)
	}
	if r := reply.Refusal(); r != nil {
		return r
	}
	return nil
}

// errLost ends an exchange whose connection was lost. NATS itself would wait for the reply until ctx ends.
var errLost = errors.New("connection lost")

func (c *Client) exchange(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.mu.Lock()
	c.calls[&cancel] = struct{}{}
	c.mu.Unlock()
	m, err := c.nc.RequestWithContext(ctx, subject, data)
	c.mu.Lock()
	delete(c.calls, &cancel)
	c.mu.Unlock()
	if err != nil && errors.Is(context.Cause(ctx), errLost) {
		err = errLost
	}
	return m, err
}

func (c *Client) natsError(err error) error {
	select {
	case <-c.closed:
		return ErrClosed
	default:
	}
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return ErrNoService
	case errors.Is(err, context.Canceled):
		return err
	case !c.nc.IsConnected():
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
}

// passing reports whether trying again soon may help.
func passing(err error) bool {
	return errors.Is(err, ErrNoService) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnreachable)
}

// serviceGrace is how long requests put up with a NATS on which no service answers (yet): after a
// restart the server accepts connections before the service has subscribed.
const serviceGrace = 2 * time.Second

// attempt bounds one try; the service answers sooner, or not at all.
const attempt = 7 * time.Second

// patient repeats a request while the connection or the service is away: as long as ctx allows when it
// was there before, for serviceGrace when nobody answers on a connection that stands.
func (c *Client) patient(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	var alone time.Time
	for wait := 25 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		one, cancel := context.WithTimeout(ctx, limit)
		err := do(one)
		cancel()
		if err == nil || !passing(err) || ctx.Err() != nil {
			return err
		}
		if unanswered(err) {
			c.proven(ctx, c.proveWithinBusy())
		}
		if errors.Is(err, ErrNoService) {
			if alone.IsZero() {
				alone = time.Now()
			} else if time.Since(alone) > serviceGrace {
				return err
			}
		} else {
			alone = time.Time{}
		}
		select {
		case <-time.After(jitter(wait)):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		case <-c.closed:
			return ErrClosed
		}
	}
}

// Join takes the name. Errors match ErrHeld, ErrFenced, ErrIllegalName, ErrNotAllowed, ErrUnauthorized,
// ErrStale, ErrFull, ErrNoService, ErrUnavailable or ErrUnreachable. Joining again keeps the epoch.
//
// The offers, at most MaxJoinOffers and made before there is an epoch, are delivered or parked at once. What
// becomes of them is not told: without an answer they are to be offered again.
func (c *Client) Join(ctx context.Context, offers ...Envelope) (*Joined, error) {
	var j *Joined
	err := c.patient(ctx, attempt, func(ctx context.Context) (err error) {
		j, err = c.join(ctx, offers)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rendezvous: join %q: %w", c.cfg.Name, err)
	}
	c.tell(j.Relays, j.tag, true)
	return j, nil
}

func (c *Client) join(ctx context.Context, offers []Envelope) (*Joined, error) {
	if err := job.CheckName(c.cfg.Name); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIllegalName, err)
	}
	if c.isFenced() {
		return nil, ErrFenced
	}
	req := JoinRequest{Head: c.head(c.cfg.Name), Exclusive: c.cfg.Exclusive, Epoch: c.Epoch(), Offers: offers}
	var r JoinReply
	began := time.Now()
	if err := c.request(ctx, VerbJoin, &req, &r); err != nil {
		return nil, err
	}
	if r.Epoch == 0 || r.LeaseMS < minLease.Milliseconds() {
		return nil, fmt.Errorf("%w: reply without epoch or lease", ErrUnavailable)
	}
	c.answered(began)
	c.mu.Lock()
	c.epoch = max(c.epoch, r.Epoch)
	c.setLease(r.LeaseMS)
	lease := c.lease
	c.seen, c.hints = max(c.seen, r.ParkedTo), r.Hard
	c.mu.Unlock()
	return &Joined{Epoch: r.Epoch, Lease: lease, Relays: r.Relays, Parked: r.Parked, tag: r.RelaysTag}, nil
}

// minLease keeps a client from renewing without pause at the word of a service.
const (
	minLease = 100 * time.Millisecond
	maxLease = 24 * time.Hour
)

// setLease notes how long the name is held, in milliseconds. c.mu is held.
func (c *Client) setLease(ms int64) {
	if ms >= minLease.Milliseconds() {
		c.lease = time.Duration(min(ms, maxLease.Milliseconds())) * time.Millisecond
	}
}

// Leave gives the name up at once rather than at the end of the lease. Parked offers stay.
func (c *Client) Leave(ctx context.Context) error {
	var r Reply
	if err := c.request(ctx, VerbLeave, c.renewal(), &r); err != nil && !errors.Is(err, ErrUnknown) {
		return fmt.Errorf("rendezvous: leave %q: %w", c.cfg.Name, err)
	}
	return nil
}

// Offer has an offer delivered to the instance that holds toName, or parked until one joins. If as many
// are parked as may be it waits for that instance itself, as long as ctx and the age of the envelope
// allow. Envelopes of KindStored and KindEarly are delivered if there is a holder, and never parked. It needs a Join before. Errors match ErrFenced, ErrUnknown, ErrFull, ErrEnvelope and those of a
// connection.
func (c *Client) Offer(ctx context.Context, toName string, e Envelope) (OfferResult, error) {
	if e.ToName != toName {
		return OfferResult{}, fmt.Errorf("rendezvous: offer to %q: %w: it is addressed to %q", toName, ErrEnvelope, e.ToName)
	}
	if err := e.Check(); err != nil {
		return OfferResult{}, fmt.Errorf("rendezvous: offer to %q: %w", toName, err)
	}
	r, err := c.offer(ctx, e)
	if parkedFull(err) {
		r, err = c.offerLater(ctx, toName, e, err)
	}
	if errors.Is(err, ErrFenced) {
		c.fence()
	}
	if err != nil {
		return OfferResult{}, fmt.Errorf("rendezvous: offer to %q: %w", toName, err)
	}
	return OfferResult{Delivered: r.Delivered, Peer: r.Peer, Epoch: r.Epoch, Wake: printable(r.Wake)}, nil
}

// offerLater offers again whenever the name has a holder, until that takes the offer. full is the
// refusal to park it.
func (c *Client) offerLater(ctx context.Context, toName string, e Envelope, full error) (OfferReply, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, MaxPark/2)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		_, err := c.Wait(ctx, toName)
		if err == nil {
			var r OfferReply
			if r, err = c.offer(ctx, e); err == nil {
				return r, nil
			}
		}
		switch {
		case outer.Err() != nil:
			return OfferReply{}, fmt.Errorf("%w: %w", full, outer.Err())
		case ctx.Err() != nil:
			return OfferReply{}, nil // the caller makes a fresh envelope before this one is too old
		}
		if !parkedFull(err) {
			return OfferReply{}, err
		}
		// A holder that is silent, or gone again.
		if err := c.pause(outer, jitter(wait)); err != nil {
			return OfferReply{}, fmt.Errorf("%w: %w", full, err)
		}
	}
}

func parkedFull(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && refused.Code == CodeParkedFull
}

func (c *Client) offer(ctx context.Context, e Envelope) (r OfferReply, err error) {
	err = c.patient(ctx, attempt, func(ctx context.Context) error {
		r = OfferReply{}
		req := OfferRequest{Head: c.head(c.cfg.Name), Epoch: c.Epoch(), Envelope: e, Early: e.Early}
		err := c.request(ctx, VerbOffer, &req, &r)
		if errors.Is(err, ErrUnknown) && req.Epoch != 0 { // the service has forgotten us, or our lease ran out while frozen
			if err := c.rejoin(ctx); err != nil {
				return err
			}
			r = OfferReply{}
			req := OfferRequest{Head: c.head(c.cfg.Name), Epoch: c.Epoch(), Envelope: e, Early: e.Early}
			return c.request(ctx, VerbOffer, &req, &r)
		}
		return err
	})
	return r, err
}

// Answer sends an envelope straight to an instance's inbox and waits for its acknowledgement. Errors
// match ErrGone if that instance is not connected.
func (c *Client) Answer(ctx context.Context, toPeer string, e Envelope) error {
	err := e.Check()
	if err == nil {
		err = CheckPeer(toPeer)
	}
	if err != nil {
		return fmt.Errorf("rendezvous: answer: %w", err)
	}
	data, err := json.Marshal(Inbox{V: 1, Type: InboxEnvelope, Envelope: &e})
	if err != nil {
		return fmt.Errorf("rendezvous: answer: %w", err)
	}
	if _, err = c.exchange(ctx, SubjectInbox(c.jobID, toPeer), data); err != nil {
		if err = c.natsError(err); errors.Is(err, ErrNoService) {
			err = ErrGone
		}
		return fmt.Errorf("rendezvous: answer to %s: %w", toPeer, err)
	}
	return nil
}

// Lookup returns the holder of a name. Errors match ErrNotFound if there is none now.
func (c *Client) Lookup(ctx context.Context, name string) (Member, error) {
	var r LookupReply
	err := c.patient(ctx, attempt, func(ctx context.Context) error {
		r = LookupReply{}
		return c.request(ctx, VerbLookup, &NameRequest{Head: c.head(name)}, &r)
	})
	if err == nil && r.Member == nil {
		err = ErrNotFound
	}
	if err != nil {
		return Member{}, fmt.Errorf("rendezvous: look up %q: %w", name, err)
	}
	return *r.Member, nil
}

// List returns the holders of the job's names, sorted by name, at most MaxList.
func (c *Client) List(ctx context.Context) ([]Member, error) {
	var r ListReply
	err := c.patient(ctx, attempt, func(ctx context.Context) error {
		r = ListReply{}
		return c.request(ctx, VerbList, &NameRequest{Head: c.head("")}, &r)
	})
	if err != nil {
		return nil, fmt.Errorf("rendezvous: list: %w", err)
	}
	return r.Members, nil
}

// Wait returns the holder of a name as soon as there is one. It does not poll: the service holds the
// request, which is repeated once a minute.
func (c *Client) Wait(ctx context.Context, name string) (Member, error) {
	for {
		var r LookupReply
		hold := waitHold
		if t, ok := ctx.Deadline(); ok {
			hold = min(hold, time.Until(t))
		}
		// Past the hold the service must have answered; if it has not, it is gone.
		err := c.patient(ctx, hold+attempt, func(ctx context.Context) error {
			r = LookupReply{}
			return c.request(ctx, VerbWait, &NameRequest{Head: c.head(name), TimeoutMS: max(hold.Milliseconds(), 1)}, &r)
		})
		switch {
		case err == nil && r.Member != nil:
			return *r.Member, nil
		case ctx.Err() != nil:
			return Member{}, fmt.Errorf("rendezvous: wait for %q: %w: %w", name, ErrNotFound, ctx.Err())
		case err != nil && !errors.Is(err, ErrNotFound):
			return Member{}, fmt.Errorf("rendezvous: wait for %q: %w", name, err)
		}
	}
}

const waitHold = 50 * time.Second
