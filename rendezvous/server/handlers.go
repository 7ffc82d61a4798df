package server

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

// maxEpochAhead is how far in the future a returning instance's epoch (a time, see package rendezvous) may be.
const maxEpochAhead = uint64(time.Hour / time.Millisecond)

func (v *service) join(ctx context.Context, r *request) (any, error) {
	var req rendezvous.JoinRequest
	now := time.Now()
	if err := rendezvous.ParseRequest(r.verb, r.job, r.data, now, &req, &req.Head); err != nil {
		return nil, err
	}
	if req.Epoch > uint64(now.UnixMilli())+maxEpochAhead {
		return nil, rendezvous.Refuse(rendezvous.CodeBadRequest, "join: epoch %d lies in the future", req.Epoch)
	}
	if len(req.Offers) > rendezvous.MaxJoinOffers {
		return nil, rendezvous.Refuse(rendezvous.CodeBadRequest, "join: %d offers, at most %d", len(req.Offers), rendezvous.MaxJoinOffers)
	}
	for i := range req.Offers {
		if err := checkOffer(&req.Offers[i], r.job, &req.Head); err != nil {
			return nil, err
		}
	}
	k := key{r.job, req.Name}
	var after record
	var ousted string
	lease := v.lease()
	err := update(ctx, v.table, k, func(rec *record) error {
		rec.prune(now)
		if err := v.room(k, rec, now); err != nil {
			return err
		}
		if !rec.firstUse(req.Nonce, req.Issued) {
			return rendezvous.Refuse(rendezvous.CodeStale, "join was repeated")
		}
		var err error
		ousted, err = rec.take(&req, now)
		rec.Lease = now.Add(lease)
		after = *rec
		return err
	})
	if err != nil {
		return nil, err
	}
	if ousted != "" {
		v.metrics.fenced.Inc()
		v.publish(nats.NewMsg(rendezvous.SubjectInbox(r.job, ousted)), rendezvous.Inbox{V: 1, Type: rendezvous.InboxFenced, Epoch: after.Epoch})
	}
	v.publish(nats.NewMsg(rendezvous.SubjectJoined(r.job, req.Name)), rendezvous.Member{Name: req.Name, Peer: req.Peer, Epoch: after.Epoch})
	reply, err := v.held(r, &after, 0, "", now)
	if err != nil {
		return nil, err
	}
	v.answer(r, reply, nil)
	for i := range req.Offers {
		e := &req.Offers[i]
		e.FromEpoch = after.Epoch
		v.work.Go(func() { v.placeLater(key{r.job, e.ToName}, e) })
	}
	return nil, errLater
}

// placeLater places an offer that came with a join. Its sender offers again if nobody answers.
func (v *service) placeLater(k key, e *rendezvous.Envelope) {
	select {
	case v.slots <- struct{}{}:
	case <-v.ctx.Done():
		return
	}
	defer func() { <-v.slots }()
	ctx, cancel := context.WithTimeout(v.ctx, requestTimeout)
	defer cancel()
	if _, err := v.place(ctx, k, e); err != nil {
		v.log.Debug("rendezvous: offer of a join not placed", "err", err)
	}
}

// checkOffer refuses an envelope that is none, or not of the instance that sends it.
func checkOffer(e *rendezvous.Envelope, j job.ID, sender *rendezvous.Head) error {
	if err := e.Check(); err != nil {
		return rendezvous.Refuse(rendezvous.CodeBadRequest, "offer: %v", err)
	}
	if e.Kind != rendezvous.KindOffer && e.Kind != rendezvous.KindStored && e.Kind != rendezvous.KindEarly {
		return rendezvous.Refuse(rendezvous.CodeBadRequest, "offer: an envelope of kind %q goes from instance to instance", e.Kind)
	}
	if e.Job != j || e.FromPeer != sender.Peer || e.FromName != sender.Name {
		return rendezvous.Refuse(rendezvous.CodeUnauthorized, "offer: the envelope is not of the instance that sends it")
	}
	return nil
}

// take makes the sender of req the holder, or says why not. It returns whom it ousted, if anybody.
func (r *record) take(req *rendezvous.JoinRequest, now time.Time) (ousted string, err error) {
	live := r.live(now)
	switch {
	case r.Peer == req.Peer: // still, or again
		r.Epoch = max(r.Epoch, req.Epoch)
	case req.Epoch > 0 && (req.Epoch < r.Epoch || live && req.Epoch == r.Epoch):
		return "", rendezvous.Refuse(rendezvous.CodeFenced, "a newer instance took %q (epoch %d, yours %d)", req.Name, r.Epoch, req.Epoch)
	case req.Epoch > 0: // a return, after it left, or the table has forgotten it, or an older instance was quicker
		r.Epoch = req.Epoch
	case live && (req.Exclusive || r.Exclusive):
		return "", rendezvous.Refuse(rendezvous.CodeHeld, "%q is held by another instance until it leaves or its lease of at most %v ends",
			req.Name, r.Lease.Sub(now).Round(time.Second))
	default:
		r.Epoch = max(r.Epoch+1, uint64(max(now.UnixMilli(), 1)))
	}
	if live && r.Peer != req.Peer {
		ousted = r.Peer
	}
	r.Peer, r.Exclusive, r.Wake = req.Peer, req.Exclusive, waking{}
	return ousted, nil
}

// lease is how long a name is held from now on. There may be more names a moment later: the next renewal tells.
func (v *service) lease() time.Duration {
	return leaseAmong(v.table.used(nil).names, v.cfg.Lease)
}

// room refuses a record that is new if there are too many already.
func (v *service) room(k key, r *record, now time.Time) error {
	if !r.empty(now) {
		return nil
	}
	one, all, l := v.table.used(&k.job), v.table.used(nil), &v.cfg.Limits
	if one.names >= l.Names || one.bytes >= l.JobBytes {
		return rendezvous.Refuse(rendezvous.CodeFull, "the job has %d names, %d KiB: no more fit", one.names, one.bytes>>10)
	}
	if all.names >= l.AllNames || all.bytes >= l.AllBytes {
		return rendezvous.Refuse(rendezvous.CodeFull, "the rendezvous is full")
	}
	return nil
}

// held is the reply to a join or a renewal, of an instance that reports hints and has the relays of a tag.
func (v *service) held(r *request, rec *record, report rendezvous.Hints, tag string, now time.Time) (any, error) {
	reply := rendezvous.JoinReply{
		Epoch: rec.Epoch, LeaseMS: rec.Lease.Sub(now).Milliseconds(), Hard: v.hints.note(r.job, report),
	}
	relays := v.relays.list(now)
	var err error
	if reply.RelaysTag, err = v.tokens.tag(relays, now); err != nil {
		return nil, err
	}
	if reply.RelaysTag != tag {
		id, err := peer.Decode(rec.Peer)
		if err != nil {
			return nil, err
		}
		pub, err := ident.PublicKey(id)
		if err != nil {
			return nil, err
		}
		reply.Relays = v.tokens.mint(relays, r.job, pub, now)
	}
	reply.Parked, reply.ParkedTo = rec.offers()
	return reply, nil
}

// owner refuses unless the sender holds the name, or held it last and nobody has taken it since.
func (r *record) owner(name, peer string, epoch uint64) error {
	switch {
	case r.Peer == peer && r.Epoch == epoch && epoch != 0:
		return nil
	case epoch != 0 && r.Epoch > epoch:
		return rendezvous.Refuse(rendezvous.CodeFenced, "a newer instance took %q (epoch %d, yours %d)", name, r.Epoch, epoch)
	}
	return rendezvous.Refuse(rendezvous.CodeUnknown, "this instance does not hold %q; join first", name)
}

func (v *service) renew(ctx context.Context, r *request) (any, error) {
	var req rendezvous.RenewRequest
	now := time.Now()
	if err := rendezvous.ParseRequest(r.verb, r.job, r.data, now, &req, &req.Head); err != nil {
		return nil, err
	}
	var after record
	lease := v.lease()
	err := update(ctx, v.table, key{r.job, req.Name}, func(rec *record) error {
		rec.prune(now)
		if err := rec.owner(req.Name, req.Peer, req.Epoch); err != nil {
			return err
		}
		rec.Parked = slices.DeleteFunc(rec.Parked, func(p parked) bool { return p.ID <= req.Seen })
		rec.Lease = now.Add(lease)
		after = *rec
		return nil
	})
	if err != nil {
		return nil, err
	}
	return v.held(r, &after, req.Hard, req.RelaysTag, now)
}

func (v *service) leave(ctx context.Context, r *request) (any, error) {
	var req rendezvous.RenewRequest
	now := time.Now()
	if err := rendezvous.ParseRequest(r.verb, r.job, r.data, now, &req, &req.Head); err != nil {
		return nil, err
	}
	err := update(ctx, v.table, key{r.job, req.Name}, func(rec *record) error {
		rec.prune(now)
		if err := rec.owner(req.Name, req.Peer, req.Epoch); err != nil {
			return err
		}
		rec.Peer, rec.Lease, rec.Exclusive = "", time.Time{}, false // the epoch stays as long as the record
		return nil
	})
	if err == nil {
		v.hints.note(r.job, req.Hard)
	}
	return rendezvous.Reply{}, err
}

func (v *service) offer(ctx context.Context, r *request) (any, error) {
	var req rendezvous.OfferRequest
	now := time.Now()
	if err := rendezvous.ParseRequest(r.verb, r.job, r.data, now, &req, &req.Head); err != nil {
		return nil, err
	}
	e := &req.Envelope
	e.Early = req.Early
	if err := checkOffer(e, r.job, &req.Head); err != nil {
		return nil, err
	}
	sender, _, err := v.table.get(ctx, key{r.job, req.Name})
	if err != nil {
		return nil, err
	}
	if err := sender.owner(req.Name, req.Peer, req.Epoch); err != nil {
		return nil, err
	}
	reply, err := v.place(ctx, key{r.job, e.ToName}, e)
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// place delivers e to whoever holds the name, or parks it. A holder that does not acknowledge gets it
// at its next renewal, and so does whoever takes the name from it. If nobody holds the name, its hook is called. Only offers are
// parked: of a stored state whoever joins learns by looking into the store, and of an early one by its sender's offer.
func (v *service) place(ctx context.Context, k key, e *rendezvous.Envelope) (rendezvous.OfferReply, error) {
	reply, err := v.deliverOrPark(ctx, k, e)
	what := "parked"
	switch {
	case err != nil:
		what = "refused"
	case reply.Delivered:
		what = "delivered"
	case e.Kind == rendezvous.KindStored:
		what = "stored"
	case e.Kind == rendezvous.KindEarly:
		what = "undelivered"
	}
	v.metrics.offers.WithLabelValues(what).Inc()
	return reply, err
}

func (v *service) deliverOrPark(ctx context.Context, k key, e *rendezvous.Envelope) (rendezvous.OfferReply, error) {
	tried := ""
	for {
		rec, _, err := v.table.get(ctx, k)
		if err != nil {
			return rendezvous.OfferReply{}, err
		}
		if rec.live(time.Now()) && rec.Peer != tried {
			if tried = rec.Peer; v.deliver(ctx, k, rec.Peer, e) {
				return rendezvous.OfferReply{Delivered: true, Peer: rec.Peer, Epoch: rec.Epoch}, nil
			}
		}
		reply := rendezvous.OfferReply{}
		if e.Kind == rendezvous.KindEarly {
			return reply, nil
		}
		var c *claim
		err = update(ctx, v.table, k, func(rec *record) error {
			now := time.Now()
			rec.prune(now)
			if rec.live(now) && rec.Peer != tried {
				return errMoved
			}
			if rec.live(now) {
				reply.Peer, reply.Epoch = rec.Peer, rec.Epoch
			}
			if err := v.room(k, rec, now); err != nil {
				return err
			}
			if e.Kind == rendezvous.KindOffer {
				if err := rec.park(*e, now, rendezvous.MaxPark); err != nil {
					return err
				}
			}
			if c, reply.Wake = v.claim(k, rec, e, now); c == nil && e.Kind != rendezvous.KindOffer {
				return errUnchanged
			}
			return nil
		})
		if err == nil && c != nil {
			v.work.Go(func() { v.wake(k, c) })
		}
		if !errors.Is(err, errMoved) {
			return reply, err
		}
	}
}

var errMoved = errors.New("name has a new holder")

// deliver reports whether the instance acknowledged the envelope.
func (v *service) deliver(ctx context.Context, k key, peerID string, e *rendezvous.Envelope) bool {
	data, err := json.Marshal(rendezvous.Inbox{V: 1, Type: rendezvous.InboxEnvelope, Envelope: e, Early: e.Early})
	if err != nil {
		return false
	}
	select {
	case v.deliveries <- struct{}{}:
		defer func() { <-v.deliveries }()
	default:
		return false // so many are silent already; park it
	}
	<-v.slots // silence of one instance must not keep others from being served
	defer func() { v.slots <- struct{}{} }()
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	return v.acks.deliver(ctx, k, peerID, data)
}

func (v *service) lookup(ctx context.Context, r *request) (any, error) {
	var req rendezvous.NameRequest
	now := time.Now()
	if err := rendezvous.ParseRequest(r.verb, r.job, r.data, now, &req, &req.Head); err != nil {
		return nil, err
	}
	rec, _, err := v.table.get(ctx, key{r.job, req.Name})
	if err != nil {
		return nil, err
	}
	if !rec.live(now) {
		return nil, rendezvous.Refuse(rendezvous.CodeNotFound, "no instance holds %q", req.Name)
	}
	return rendezvous.LookupReply{Member: &rendezvous.Member{Name: req.Name, Peer: rec.Peer, Epoch: rec.Epoch}}, nil
}

func (v *service) list(ctx context.Context, r *request) (any, error) {
	var req rendezvous.NameRequest
	now := time.Now()
	if err := rendezvous.ParseRequest(r.verb, r.job, r.data, now, &req, &req.Head); err != nil {
		return nil, err
	}
	records, err := v.table.list(ctx, &r.job)
	if err != nil {
		return nil, err
	}
	var reply rendezvous.ListReply
	for k, rec := range records {
		if rec.live(now) {
			reply.Members = append(reply.Members, rendezvous.Member{Name: k.name, Peer: rec.Peer, Epoch: rec.Epoch})
		}
	}
	slices.SortFunc(reply.Members, func(a, b rendezvous.Member) int { return strings.Compare(a.Name, b.Name) })
	if reply.More = len(reply.Members) > rendezvous.MaxList; reply.More {
		reply.Members = reply.Members[:rendezvous.MaxList]
	}
	return reply, nil
}

// wait answers when the name has a holder. The waiter is registered before the table is read, so that
// a join in between is not missed.
func (v *service) wait(ctx context.Context, r *request) (any, error) {
	var req rendezvous.NameRequest
	now := time.Now()
	if err := rendezvous.ParseRequest(r.verb, r.job, r.data, now, &req, &req.Head); err != nil {
		return nil, err
	}
	hold := min(max(time.Duration(min(req.TimeoutMS, rendezvous.MaxWait.Milliseconds()))*time.Millisecond, 0), rendezvous.MaxWait)
	k := key{r.job, req.Name}
	one := v.waits.add(k, hold, func(m *rendezvous.Member) {
		if m == nil {
			v.answer(r, nil, rendezvous.Refuse(rendezvous.CodeNotFound, "no instance took %q in time", req.Name))
			return
		}
		v.answer(r, rendezvous.LookupReply{Member: m}, nil)
	})
	if one == nil {
		return nil, v.waits.refusal()
	}
	if rec, _, err := v.table.get(ctx, k); err == nil && rec.live(time.Now()) {
		v.waits.end(one, &rendezvous.Member{Name: req.Name, Peer: rec.Peer, Epoch: rec.Epoch})
	}
	return nil, errLater
}
