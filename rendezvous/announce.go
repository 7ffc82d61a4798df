package rendezvous

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// MinRelaySecret is the fewest bytes that a relay secret may have.
const MinRelaySecret = 16

// RelaySecret is what relays and the rendezvous share. It never crosses the network: from it derive an
// nkey, with which a relay proves itself to NATS, and the MACs of announcements.
type RelaySecret struct{ s string }

// NewRelaySecret checks that s is long enough. Surrounding space is dropped.
func NewRelaySecret(s string) (RelaySecret, error) {
	s = strings.TrimSpace(s)
	if len(s) < MinRelaySecret {
		return RelaySecret{}, fmt.Errorf("relay secret: want at least %d characters, such as `openssl rand -base64 24` prints", MinRelaySecret)
	}
	return RelaySecret{s}, nil
}

// String hides the secret.
func (s RelaySecret) String() string { return "relay secret (hidden)" }

// GoString hides the secret from %#v.
func (s RelaySecret) GoString() string { return s.String() }

func (s RelaySecret) derive(purpose string) []byte {
	b, err := hkdf.Key(sha256.New, []byte(s.s), nil, "fnwire v1 "+purpose, 32)
	if err != nil {
		panic("rendezvous: hkdf: " + err.Error()) // only for an absurd length
	}
	return b
}

// NATSKey is the key with which a relay signs the nonce of a NATS server.
func (s RelaySecret) NATSKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(s.derive("relay nkey"))
}

func (s RelaySecret) mac(purpose string, parts ...string) []byte {
	h := hmac.New(sha256.New, s.derive(purpose))
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return h.Sum(nil)
}

// Announcement is the body of a relay's announcement.
type Announcement struct {
	V      int       `json:"v"`
	Relay  RelayInfo `json:"relay"`
	Issued time.Time `json:"issued"` // must grow from one announcement to the next
	Nonce  Nonce     `json:"nonce"`
}

// AnnounceReply is the body of the answer.
type AnnounceReply struct {
	Reply
	TokenKey []byte `json:"token_key,omitempty"` // Ed25519 public key that verifies relay tokens
	TTLMS    int64  `json:"ttl_ms,omitempty"`    // how long the announcement holds
}

// Sealed is a body with its MAC under the relay secret.
type Sealed struct {
	Body string `json:"body"`
	MAC  []byte `json:"mac"`
}

// SealAnnouncement makes the request of a relay.
func (s RelaySecret) SealAnnouncement(a Announcement) (Sealed, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{string(b), s.mac("relay announcement", string(b))}, nil
}

// OpenAnnouncement is what the service does with it. Errors are of type *RefusedError. That Issued
// grows is for the service to check.
func (s RelaySecret) OpenAnnouncement(data []byte, now time.Time) (Announcement, Sealed, error) {
	var m Sealed
	var a Announcement
	if len(data) > MaxEnvelope || json.Unmarshal(data, &m) != nil {
		return a, m, Refuse(CodeBadRequest, "announcement: malformed")
	}
	if s.s == "" || !hmac.Equal(m.MAC, s.mac("relay announcement", m.Body)) {
		return a, m, Refuse(CodeUnauthorized, "announcement: not made with the relay secret of this rendezvous")
	}
	if err := json.Unmarshal([]byte(m.Body), &a); err != nil || a.V != 1 {
		return a, m, Refuse(CodeBadRequest, "announcement: body is malformed or of another version")
	}
	if now.Sub(a.Issued).Abs() > MaxClockSkew {
		return a, m, Refuse(CodeStale, "announcement was issued %v away from the rendezvous' time; set the clock", now.Sub(a.Issued).Round(time.Second))
	}
	if err := a.Relay.Check(); err != nil {
		return a, m, Refuse(CodeBadRequest, "announcement: %v", err)
	}
	return a, m, nil
}

// SealReply answers request.
func (s RelaySecret) SealReply(r AnnounceReply, request Sealed) (Sealed, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{string(b), s.mac("relay announcement reply", request.Body, string(b))}, nil
}

// openReply is what the relay does with it.
func (s RelaySecret) openReply(data []byte, request Sealed) (AnnounceReply, error) {
	var m Sealed
	var r AnnounceReply
	if err := json.Unmarshal(data, &m); err != nil {
		return r, fmt.Errorf("%w: unreadable reply", ErrUnavailable)
	}
	if !hmac.Equal(m.MAC, s.mac("relay announcement reply", request.Body, m.Body)) {
		// Also the answer to a wrong secret of ours: either way the two do not share one.
		return r, errSecret
	}
	if err := json.Unmarshal([]byte(m.Body), &r); err != nil {
		return r, fmt.Errorf("%w: unreadable reply", ErrUnavailable)
	}
	if r.Error != nil {
		return r, r.Error
	}
	if len(r.TokenKey) != ed25519.PublicKeySize {
		return r, fmt.Errorf("%w: reply without token key", ErrUnavailable)
	}
	return r, nil
}

// AnnounceConfig says which relay announces itself where. URL (or InProcess), Secret and Relay are required.
type AnnounceConfig struct {
	URL        string
	Creds      string
	InProcess  InProcess
	Secret     string
	Relay      RelayInfo                   // Token and Expires are ignored
	OnTokenKey func(key ed25519.PublicKey) // called first when the rendezvous has accepted, then at each change
	Interval   time.Duration               // 0 is AnnounceInterval
	Logger     *slog.Logger                // nil discards
}

// AnnounceRelay keeps a relay known to the rendezvous until ctx ends, and then returns ctx's error. It
// returns earlier if the first announcement fails: errors match ErrUnreachable, ErrUnauthorized,
// ErrNoService, ErrStale or ErrBadRequest. Later failures are logged and healed by the next announcement.
func AnnounceRelay(ctx context.Context, cfg AnnounceConfig) error {
	secret, err := NewRelaySecret(cfg.Secret)
	if err != nil {
		return fmt.Errorf("rendezvous: announce: %w: %w", ErrUnauthorized, err)
	}
	relay := cfg.Relay.Bare()
	if err := relay.Check(); err != nil {
		return fmt.Errorf("rendezvous: announce: %w: %w", ErrBadRequest, err)
	}
	a := announcer{cfg: cfg, secret: secret, relay: relay, log: cfg.Logger, again: make(chan struct{}, 1)}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	ctx, deny := context.WithCancelCause(ctx)
	defer deny(nil)
	a.nc, err = connect(ctx, natsConfig{
		url: cfg.URL, creds: cfg.Creds, inProcess: cfg.InProcess, name: "fnwire relay " + relay.ID,
		inbox: RelayInbox, nkey: secret.NATSKey(),
		options: []nats.Option{
			nats.ReconnectHandler(func(*nats.Conn) {
				select {
				case a.again <- struct{}{}:
				default:
				}
			}),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				if errors.Is(err, nats.ErrPermissionViolation) { // an open rendezvous took our key for a job's
					deny(errSecret)
				}
			}),
		},
	})
	if errors.Is(err, ErrNotAllowed) {
		return fmt.Errorf("rendezvous: announce: %w", errSecret)
	}
	if err != nil {
		return err
	}
	defer a.nc.Close()
	return a.run(ctx)
}

// announceTimeout is how long an announcement waits for its answer.
const announceTimeout = 5 * time.Second

var errSecret = fmt.Errorf("%w: the rendezvous has another relay secret, or none", ErrUnauthorized)

type announcer struct {
	cfg    AnnounceConfig
	secret RelaySecret
	relay  RelayInfo
	log    *slog.Logger
	nc     *nats.Conn
	again  chan struct{}
	key    ed25519.PublicKey
	issues issues
}

// issues are the times of a relay's announcements, which must grow: also when the clock is set back, and also past one that is not
// answered, as it may be accepted yet. Those that are refused as stale do not count: the clock may have been wrong.
type issues struct {
	last     time.Time // sent
	accepted time.Time
}

// next returns the time of an announcement that is sent now.
func (i *issues) next(now time.Time) time.Time {
	now = now.UTC() // and without the monotonic clock, by which it would grow though the other was set back
	if !now.After(i.last) {
		now = i.last.Add(1)
	}
	i.last = now
	return now
}

// answered takes what came of the last announcement.
func (i *issues) answered(err error) {
	switch {
	case err == nil:
		i.accepted = i.last
	case errors.Is(err, ErrStale):
		i.last = i.accepted
	}
}

func (a *announcer) run(ctx context.Context) error {
	interval := a.cfg.Interval
	if interval <= 0 {
		interval = AnnounceInterval
	}
	for {
		wait := interval
		if err := a.once(ctx); err != nil {
			switch {
			case errors.Is(context.Cause(ctx), errSecret):
				return fmt.Errorf("rendezvous: announce: %w", errSecret)
			case ctx.Err() != nil:
				return ctx.Err()
			case a.key == nil && !errors.Is(err, ErrNoService) && !errors.Is(err, ErrUnavailable):
				return fmt.Errorf("rendezvous: announce relay %q: %w", a.relay.ID, err)
			}
			a.log.Warn("rendezvous: relay not announced; trying again", "err", err)
			wait = min(interval, time.Second)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.again:
		case <-time.After(wait):
		}
	}
}

func (a *announcer) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	ann := Announcement{V: 1, Relay: a.relay, Issued: a.issues.next(time.Now())}
	_, _ = rand.Read(ann.Nonce[:]) // never fails (crypto/rand)
	req, err := a.secret.SealAnnouncement(ann)
	if err != nil {
		return err
	}
	data, err := json.Marshal(req)
	if err != nil {
		return err
	}
	m, err := a.nc.RequestWithContext(ctx, SubjectAnnounce, data)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return ErrNoService
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	r, err := a.secret.openReply(m.Data, req)
	a.issues.answered(err)
	if err != nil {
		return err
	}
	if !a.key.Equal(ed25519.PublicKey(r.TokenKey)) {
		a.key = ed25519.PublicKey(r.TokenKey)
		if a.cfg.OnTokenKey != nil {
			a.cfg.OnTokenKey(a.key)
		}
	}
	return nil
}
