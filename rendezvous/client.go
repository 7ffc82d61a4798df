package rendezvous

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
)

// Config says who joins what. URL (or InProcess), Key and Identity are required; Name only for Join.
type Config struct {
	URL       string    // NATS servers, separated by commas
	Creds     string    // NATS credentials file; else the URL's user, else the job key vouches
	InProcess InProcess // instead of the network
	Key       job.Key
	Name      string
	Exclusive bool // Join fails with ErrHeld while another instance holds the name, and others fail while this one does
	Identity  ident.Identity
	Logger    *slog.Logger // nil discards

	// Proxy finds the HTTP proxy for URLs of ws:// and wss://; nil is http.ProxyFromEnvironment.
	Proxy func(*http.Request) (*url.URL, error)

	// Callbacks run one at a time, must not block long and must not call the client. Any may be nil.
	OnEnvelope  func(Envelope)          // it arrived; not opened yet
	OnRelays    func([]RelayInfo)       // relays or tokens differ from those told last; not called for Join's own
	OnFenced    func(epoch uint64)      // a newer instance took the name (its epoch, or a lower bound); once
	OnWake      func(name, what string) // what became of the wake hook of a name that was called: see OfferResult; a hint only
	OnReconnect func()                  // joined again after the connection or the service was gone

	// Hints tells what this instance has seen of hard NATs; nil: nothing. It must not block.
	Hints func() Hints

	// Linked tells an instance that asks, by its peer ID, whether there is a link with it; nil: no answer. It must not block.
	Linked func(peer string) bool
}

// Joined is what Join returns.
type Joined struct {
	Epoch  uint64
	Lease  time.Duration
	Relays []RelayInfo
	Parked []Envelope // offers that waited for this name, oldest first

	tag string // of Relays
}

// OfferResult tells what became of an offer.
type OfferResult struct {
	// Delivered says that the holder's instance has it. Else it is parked until an instance joins, or no longer
	// waits for one: it is to be offered again before it is too old.
	Delivered bool
	Peer      string
	Epoch     uint64
	Wake      string // WakeCalled, or WakeFailed and why, if nobody holds the name and it has a wake hook
}

// Client speaks for one instance to the rendezvous, over one NATS connection, which it re-makes as
// often as needed. All methods are safe for concurrent use.
type Client struct {
	cfg    Config
	log    *slog.Logger
	jobID  job.ID
	jobKey ed25519.PrivateKey
	peerID string
	nc     *nats.Conn

	wake   chan wake     // from NATS callbacks to Run
	checks chan struct{} // from Check to Run, capacity 1
	closed chan struct{}
	once   sync.Once

	callbacks sync.Mutex // held while a callback of Config runs

	mu     sync.Mutex                            // guards what follows
	calls  map[*context.CancelCauseFunc]struct{} // end the requests under way
	since  time.Time                             // when the connection was made, the last time
	epoch  uint64
	lease  time.Duration
	newer  uint64 // epoch of a newer holder, as rumour has it
	fenced uint64 // epoch of the newer holder, once the service has confirmed it
	seen   uint64 // parked offers up to here have arrived
	told   []RelayInfo
	tag    string        // what the service knows them by
	spread time.Duration // over which those who heard of new relays renew
	hints  Hints
	rtt    time.Duration // of the last join, renewal or ping that was answered
}

type wake int

const (
	wakeRenew  wake = iota // something changed that a renewal tells
	wakeRelays             // relays changed
	wakeRejoin             // the connection was away
	wakeFenced
)

// Dial connects to NATS and listens on the instance's inbox. Errors match ErrUnreachable,
// ErrUnauthorized or ErrNotAllowed. One failed attempt is an error; later losses heal by themselves.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Key.IsZero() || cfg.Identity.Ed25519 == nil {
		return nil, fmt.Errorf("rendezvous: dial: %w: job key and identity are required", ErrBadRequest)
	}
	if cfg.URL == "" && cfg.InProcess == nil {
		return nil, fmt.Errorf("rendezvous: dial: %w: no URL", ErrUnreachable)
	}
	if cfg.Name != "" {
		if err := job.CheckName(cfg.Name); err != nil {
			return nil, fmt.Errorf("rendezvous: dial: %w: %w", ErrIllegalName, err)
		}
	}
	c := &Client{
		cfg: cfg, log: cfg.Logger, jobKey: cfg.Key.Signer(), peerID: cfg.Identity.Peer.String(),
		wake: make(chan wake, 16), checks: make(chan struct{}, 1), closed: make(chan struct{}),
		calls: make(map[*context.CancelCauseFunc]struct{}),
	}
	c.jobID = job.ID(c.jobKey.Public().(ed25519.PublicKey))
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	nc, err := connect(ctx, natsConfig{
		url: cfg.URL, creds: cfg.Creds, inProcess: cfg.InProcess, proxy: cfg.Proxy,
		name: "fnwire function", ping: clientPing, inbox: JobInbox(c.jobID) + "." + c.peerID, nkey: c.jobKey,
		options: []nats.Option{
			nats.ReconnectHandler(func(*nats.Conn) {
				c.made()
				c.poke(wakeRejoin)
			}),
			nats.DisconnectErrHandler(func(*nats.Conn, error) { c.lost() }),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				c.log.Warn("rendezvous: NATS", "err", err)
			}),
		},
	})
	if err != nil {
		return nil, err
	}
	c.nc = nc
	c.made()
	for _, subject := range []string{SubjectInbox(c.jobID, c.peerID), SubjectInboxAll(c.jobID)} {
		sub, err := nc.Subscribe(subject, c.onInbox)
		if err == nil {
			err = sub.SetPendingLimits(1024, 8<<20)
		}
		if err != nil {
			nc.Close()
			return nil, fmt.Errorf("rendezvous: subscribe: %w", err)
		}
	}
	return c, nil
}

// Job returns the identity of the client's job.
func (c *Client) Job() job.ID { return c.jobID }

// Epoch returns the epoch under which the name is held, 0 before Join.
func (c *Client) Epoch() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// Hints are what other instances of the job have reported, as far as the last join or renewal told.
func (c *Client) Hints() Hints {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hints
}

// renewal is the body of a renew or leave.
func (c *Client) renewal() *RenewRequest {
	r := &RenewRequest{Head: c.head(c.cfg.Name), Epoch: c.Epoch()}
	if c.cfg.Hints != nil {
		r.Hard = c.cfg.Hints()
	}
	return r
}

// Close ends the connection. It does not leave: see Leave. It is safe to call twice.
func (c *Client) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.nc.Close()
	})
	return nil
}

func (c *Client) made() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = time.Now()
}

// Check has Run make sure of the connection, and renew the name at once, for use after a freeze or a change of network. A NAT may have
// forgotten the connection meanwhile, which shows by itself only when the next renewal or request is not answered.
func (c *Client) Check() {
	select {
	case c.checks <- struct{}{}:
	default: // one that has not begun will do
	}
}

// lost ends the requests under way, whose replies will not come.
func (c *Client) lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cancel := range c.calls {
		(*cancel)(errLost)
	}
}

func (c *Client) poke(w wake) {
	select {
	case c.wake <- w:
	default: // Run has more than enough to wake up for, and rejoins whenever a renewal fails
	}
}

// onInbox runs on the subscription's goroutine.
func (c *Client) onInbox(m *nats.Msg) {
	if len(m.Data) > MaxRequest {
		return
	}
	var in Inbox
	if err := json.Unmarshal(m.Data, &in); err != nil || in.V != 1 {
		c.log.Debug("rendezvous: inbox: unreadable message", "bytes", len(m.Data))
		return
	}
	switch {
	case in.Type == InboxEnvelope && in.Envelope != nil:
		if m.Reply != "" {
			_ = m.Respond(nil) // the sender treats silence as not delivered
		}
		in.Envelope.Early = in.Early
		c.deliver(*in.Envelope)
	case in.Type == InboxFenced:
		// A hint only: on a NATS without users anybody could have sent it. Run asks the service.
		c.mu.Lock()
		news := in.Epoch > c.epoch && c.epoch != 0 && c.fenced == 0
		if news {
			c.newer = in.Epoch
		}
		c.mu.Unlock()
		if news {
			c.poke(wakeRenew)
		}
	case in.Type == InboxRelays:
		c.mu.Lock()
		c.spread = time.Duration(min(max(in.SpreadMS, 0), time.Hour.Milliseconds())) * time.Millisecond
		c.mu.Unlock()
		c.poke(wakeRelays)
	case in.Type == InboxWake && c.cfg.OnWake != nil:
		c.callbacks.Lock()
		defer c.callbacks.Unlock()
		c.cfg.OnWake(in.Name, printable(in.Wake))
	case in.Type == InboxAsk && m.Reply != "" && c.cfg.Linked != nil:
		if b, err := json.Marshal(linkedReply{V: 1, Linked: c.cfg.Linked(in.From)}); err == nil {
			_ = m.Respond(b) // the asker treats silence as knowing nothing
		}
	}
}

// printable is s as an error can hold it, whoever sent it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 160)], "?"))
}

func (c *Client) deliver(es ...Envelope) {
	if c.cfg.OnEnvelope == nil {
		return
	}
	c.callbacks.Lock()
	defer c.callbacks.Unlock()
	for _, e := range es {
		c.cfg.OnEnvelope(e)
	}
}

// fence notes that the service told us of a newer holder of the name.
func (c *Client) fence() {
	c.mu.Lock()
	if c.fenced != 0 || c.epoch == 0 {
		c.mu.Unlock()
		return
	}
	c.fenced = max(c.newer, c.epoch+1)
	epoch := c.fenced
	c.mu.Unlock()
	c.poke(wakeFenced)
	if c.cfg.OnFenced != nil {
		c.callbacks.Lock()
		defer c.callbacks.Unlock()
		c.cfg.OnFenced(epoch)
	}
}

func (c *Client) isFenced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fenced != 0
}

// tell calls OnRelays if relays are not those told before. Join itself only notes them.
func (c *Client) tell(relays []RelayInfo, tag string, quiet bool) {
	c.mu.Lock()
	same := slices.EqualFunc(c.told, relays, func(a, b RelayInfo) bool {
		return a.Same(&b) && slices.Equal(a.Token, b.Token)
	})
	c.told, c.tag = slices.Clone(relays), tag
	c.mu.Unlock()
	if same || quiet || c.cfg.OnRelays == nil {
		return
	}
	c.callbacks.Lock()
	defer c.callbacks.Unlock()
	c.cfg.OnRelays(relays)
}

// jitter returns d less up to a quarter, so that many clients do not act as one.
func jitter(d time.Duration) time.Duration {
	if d < 4 {
		return d
	}
	return d - rand.N(d/4)
}
