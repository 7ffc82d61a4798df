package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

const (
	requestTimeout = 5 * time.Second         // table work for one request
	ackTimeout     = 1500 * time.Millisecond // an instance that does not acknowledge is frozen or gone
	newsDelay      = 50 * time.Millisecond   // several relays that come at once make one piece of news
	spareMost      = 16                      // goroutines that wait for the next request
	newsPace       = 250 * time.Microsecond  // from one instance that has heard of them and renews to the next, on average
)

// service answers requests. It does not know which table it has.
type service struct {
	cfg     *config
	log     *slog.Logger
	nc      *nats.Conn
	table   table
	relays  *registry
	tokens  *minter
	hooks   *atomic.Pointer[wake.Hooks]
	waker   *wake.Sender
	metrics *metrics
	waits   *waits
	acks    *acks
	hints   hints
	micro   micro.Service
	subs    []*nats.Subscription

	ctx    context.Context // of all work; ends when stop gives up waiting
	cancel context.CancelFunc

	slots      chan struct{} // requests worked on
	deliveries chan struct{} // waiting for their acknowledgement
	news       chan struct{} // relays have changed

	idle  chan func() // to a goroutine that waits for a request
	spare atomic.Int64

	mu       sync.Mutex // guards stopping, and that no work begins once it is set, and idle is closed
	stopping bool
	work     sync.WaitGroup
}

func newService(c *config, nc *nats.Conn, t table, relays *registry, hooks *atomic.Pointer[wake.Hooks], m *metrics) *service {
	ctx, cancel := context.WithCancel(context.Background())
	return &service{
		cfg: c, log: c.Logger, nc: nc, table: t, relays: relays, hooks: hooks, metrics: m,
		waker:  wake.NewSender(wake.Config{InFlight: c.Limits.Wakes, Transport: c.HookTransport}),
		tokens: &minter{key: c.TokenKey, ttl: c.TokenTTL},
		waits:  newWaits(c.Limits.Waits, c.Limits.AllWaits),
		acks:   newAcks(nc),
		ctx:    ctx, cancel: cancel,
		slots: make(chan struct{}, c.Limits.Concurrent), deliveries: make(chan struct{}, 16*c.Limits.Concurrent),
		news: make(chan struct{}, 1), idle: make(chan func()),
	}
}

// start subscribes; requests are answered when it returns.
func (v *service) start() (err error) {
	defer func() {
		if err != nil {
			v.stop()
		}
	}()
	v.micro, err = micro.AddService(v.nc, micro.Config{
		Name: "fnwire", Version: "1.0.0", Description: "fnwire rendezvous", QueueGroup: "fnwire",
	})
	if err != nil {
		return err
	}
	handlers := map[string]handler{
		rendezvous.VerbJoin: v.join, rendezvous.VerbRenew: v.renew, rendezvous.VerbLeave: v.leave,
		rendezvous.VerbOffer: v.offer, rendezvous.VerbLookup: v.lookup, rendezvous.VerbList: v.list, rendezvous.VerbWait: v.wait,
	}
	for _, verb := range rendezvous.Verbs() {
		err := v.micro.AddEndpoint(verb, v.dispatch(verb, handlers[verb]),
			micro.WithEndpointSubject(rendezvous.SubjectFor(verb, "*")), micro.WithEndpointPendingLimits(1<<14, 64<<20))
		if err != nil {
			return err
		}
	}
	for subject, f := range map[string]nats.MsgHandler{
		rendezvous.SubjectJoinedAll: v.onJoined,
		rendezvous.SubjectAnnounce:  v.onAnnounce,
		v.acks.subject():            v.acks.heard,
	} {
		sub, err := v.nc.Subscribe(subject, f)
		if err != nil {
			return err
		}
		v.subs = append(v.subs, sub)
	}
	return flush(v.nc, requestTimeout)
}

// run does what has no request, until ctx ends.
func (v *service) run(ctx context.Context) {
	sweep := time.NewTicker(v.cfg.Lease)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			v.table.sweep(time.Now())
		case <-v.news:
			select {
			case <-time.After(newsDelay):
			case <-ctx.Done():
				return
			}
			v.tellRelays(ctx)
		}
	}
}

// stop takes no more requests, finishes those in hand within a bound, and waits.
func (v *service) stop() {
	for _, sub := range v.subs {
		_ = sub.Unsubscribe() // fails only if the connection is gone, and the subscription with it
	}
	if v.micro != nil && v.cfg.NATS != "" {
		// Other copies go on. An embedded NATS ends with us, and closing the connection stops the service;
		// besides, draining would poison nats.go's pool of timers in a bubble of testing/synctest.
		_ = v.micro.Stop() // likewise
	}
	_ = flush(v.nc, time.Second) // NATS has sent what it had for us, or is gone
	v.mu.Lock()
	v.stopping = true
	close(v.idle)
	v.mu.Unlock()
	v.waits.close()
	timer := time.AfterFunc(2*time.Second, v.cancel)
	v.work.Wait()
	timer.Stop()
	v.cancel()
	v.waker.Close()
}

// request is what a handler gets; reply goes to where the request came from.
type request struct {
	verb  string
	job   job.ID
	data  []byte
	to    string
	start time.Time
}

// handler returns the reply, or an error. later means that the handler has answered or will.
type handler func(ctx context.Context, r *request) (reply any, err error)

var errLater = errors.New("answered elsewhere")

// dispatch leaves the subscription's goroutine as soon as a slot is free, so that one slow request does
// not hold up the others; if none is, requests queue in the subscription, which is bounded.
func (v *service) dispatch(verb string, h handler) micro.Handler {
	return micro.HandlerFunc(func(m micro.Request) {
		id, err := job.ParseID(m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:])
		if err != nil || !rendezvous.ReplyAllowed(id, m.Reply()) {
			v.metrics.requests.WithLabelValues(verb, string(rendezvous.CodeBadRequest)).Inc()
			return
		}
		r := &request{verb: verb, job: id, data: m.Data(), to: m.Reply(), start: time.Now()}
		select {
		case v.slots <- struct{}{}:
		case <-v.ctx.Done():
			return
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.stopping {
			<-v.slots
			return
		}
		serve := func() {
			defer func() { <-v.slots }()
			v.serve(r, h)
		}
		select {
		case v.idle <- serve:
		default:
			v.work.Go(func() { v.workOn(serve) })
		}
	})
}

// workOn serves a request and then those that come, unless enough goroutines wait for one: the stack of a new one has to grow each time.
func (v *service) workOn(serve func()) {
	for serve != nil {
		serve()
		if v.spare.Add(1) > spareMost {
			v.spare.Add(-1)
			return
		}
		serve = <-v.idle // nil when it is closed
		v.spare.Add(-1)
	}
}

func (v *service) serve(r *request, h handler) {
	if !v.cfg.admits(r.job) {
		v.answer(r, nil, rendezvous.Refuse(rendezvous.CodeNotAllowed,
			"job %s is not admitted here (wrong job key, or start the rendezvous with --allow)", r.job))
		return
	}
	ctx, cancel := context.WithTimeout(v.ctx, requestTimeout)
	defer cancel()
	reply, err := h(ctx, r)
	if !errors.Is(err, errLater) {
		v.answer(r, reply, err)
	}
}

// answer sends the reply or the refusal, the latter also in the headers that NATS' tools show.
func (v *service) answer(r *request, reply any, err error) {
	msg := nats.NewMsg(r.to)
	code := "ok"
	if err != nil {
		var refusal *rendezvous.RefusedError
		if !errors.As(err, &refusal) {
			v.log.Warn("rendezvous: request failed", "verb", r.verb, "err", err)
			refusal = rendezvous.Refuse(rendezvous.CodeUnavailable, "the rendezvous cannot reach its table now; try again")
		}
		code = string(refusal.Code)
		msg.Header.Set(micro.ErrorHeader, strings.ToValidUTF8(strings.NewReplacer("\r", " ", "\n", " ").Replace(refusal.Message), "?"))
		msg.Header.Set(micro.ErrorCodeHeader, code)
		reply = rendezvous.Reply{Error: refusal}
	}
	v.metrics.requests.WithLabelValues(r.verb, code).Inc()
	if r.verb != rendezvous.VerbWait {
		v.metrics.seconds.WithLabelValues(r.verb).Observe(time.Since(r.start).Seconds())
	}
	v.publish(msg, reply)
}

func (v *service) publish(msg *nats.Msg, body any) {
	data, err := json.Marshal(body)
	if err == nil {
		msg.Data = data
		err = v.nc.PublishMsg(msg)
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		v.log.Warn("rendezvous: not sent", "err", err)
	}
}

// relaysChanged has all instances told soon.
func (v *service) relaysChanged() {
	select {
	case v.news <- struct{}{}:
	default:
	}
}

func (v *service) tellRelays(ctx context.Context) {
	records, err := v.table.list(ctx, nil)
	if err != nil {
		v.log.Warn("rendezvous: instances not told of relays; they learn at their next renewal", "err", err)
		return
	}
	jobs := make(map[job.ID]bool)
	now := time.Now()
	spread := time.Duration(0)
	for k, r := range records {
		if r.live(now) {
			jobs[k.job] = true
			spread += newsPace
		}
	}
	for j := range jobs {
		v.publish(nats.NewMsg(rendezvous.SubjectInboxAll(j)), rendezvous.Inbox{V: 1, Type: rendezvous.InboxRelays, SpreadMS: spread.Milliseconds()})
	}
}

// onJoined hears of joins at every copy, this one included.
func (v *service) onJoined(m *nats.Msg) {
	j, name, ok := rendezvous.ParseJoined(m.Subject)
	var member rendezvous.Member
	if ok && json.Unmarshal(m.Data, &member) == nil {
		v.waits.joined(key{j, name}, &member)
	}
}

// onAnnounce answers relays. Every copy does, and each knows all relays.
func (v *service) onAnnounce(m *nats.Msg) {
	if !strings.HasPrefix(m.Reply, rendezvous.RelayInbox+".") || v.cfg.relaySecret == nil {
		return
	}
	now := time.Now()
	a, request, err := v.cfg.relaySecret.OpenAnnouncement(m.Data, now)
	reply := rendezvous.AnnounceReply{
		TokenKey: v.cfg.TokenKey[32:], TTLMS: rendezvous.AnnounceTTL.Milliseconds(),
	}
	var refusal *rendezvous.RefusedError
	news := false
	if err == nil {
		news, refusal = v.relays.announce(a, now)
	} else if !errors.As(err, &refusal) {
		return
	}
	if refusal != nil {
		v.log.Warn("rendezvous: relay refused", "code", refusal.Code, "why", refusal.Message)
		reply = rendezvous.AnnounceReply{Reply: rendezvous.Reply{Error: refusal}}
	}
	sealed, err := v.cfg.relaySecret.SealReply(reply, request)
	if err != nil {
		v.log.Warn("rendezvous: relay not answered", "err", err)
		return
	}
	v.publish(nats.NewMsg(m.Reply), sealed)
	if news {
		v.log.Info("rendezvous: relay announced", "relay", a.Relay.ID)
		v.relaysChanged()
	}
}
