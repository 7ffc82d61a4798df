package relay

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
)

var (
	// ErrNotReady is returned by Send while no session was ever made.
	ErrNotReady = errors.New("relay: no session yet")
	// ErrTooBig is returned by Send for packets longer than MaxPacket.
	ErrTooBig = errors.New("relay: packet too big")
	// ErrNoAnswer is what State tells when the relay is silent: it is down, UDP is blocked, or it does
	// not know the token (strangers get no answer).
	ErrNoAnswer = errors.New("relay did not answer: it is down, UDP to it is blocked, or the token is not one it knows")
	// ErrNoToken is what State tells before there is a token of the right length.
	ErrNoToken = errors.New("relay: no valid token")
)

// RefusedError is what State tells after a refusal.
type RefusedError struct {
	Relay  string
	Reason Reason
}

func (e *RefusedError) Error() string { return fmt.Sprintf("relay %s says: %v", e.Relay, e.Reason) }

// State is how a client stands with its relay.
type State string

// States. In StateUsable and StateBound packets flow; in StateSilent they are sent in the hope.
const (
	StateBinding State = "binding" // asking for the first session
	StateUsable  State = "usable"  // challenged, the address is not proven yet
	StateBound   State = "bound"
	StateSilent  State = "silent" // no answer for a while, asking on
	StateRefused State = "refused"
)

// Config of a client. ID, Addr, Identity, Job and Send are required.
type Config struct {
	ID       string         // of the relay, as the token names it
	Addr     netip.AddrPort // of the relay
	Token    []byte         // may come later, by SetToken
	Identity ident.Identity
	Job      job.ID
	// Send sends packets of seg bytes each (the last may be shorter) from the socket whose datagrams
	// reach HandlePacket. It must not retain b, nor call the client. Errors are lost packets.
	Send   func(to netip.AddrPort, b []byte, seg int) error
	OnGone func(ident.Short) // a destination is not bound at the relay; called from HandlePacket; optional
	// OnChange is called when Usable has changed, OnMoved when the relay sees the client at another address than before. They
	// must not wait, and of the client's methods may call Send and Usable only; optional.
	OnChange, OnMoved func()
	OnUDP             func()       // the relay has confirmed a session over UDP; as OnChange
	Logger            *slog.Logger // nil discards

	// HTTPS is the HOST:PORT where the relay takes the same frames over WebSocket on TLS, for networks that
	// block UDP; empty if it does not. It needs CertSHA256, the hash of the certificate there, and Deliver.
	HTTPS      string
	CertSHA256 []byte
	// Deliver takes frames of seg bytes each (the last may be shorter) that came over TLS. Each of them is for
	// HandlePacket of leg, which stands for the client there. It must not retain frames.
	Deliver func(leg *Client, frames []byte, seg int)
	// Proxy finds the HTTP proxy for HTTPS; nil is http.ProxyFromEnvironment.
	Proxy func(*http.Request) (*url.URL, error)
	// UDPBlocked, when set, is what clients of one process remember together: while it is true they
	// do not give UDP a head start.
	UDPBlocked *atomic.Bool
}

func (c *Config) blocked() bool { return c.UDPBlocked != nil && c.UDPBlocked.Load() }

// Client is one instance's leg to one relay. All methods may be called at any time from any goroutine.
type Client struct {
	cfg   Config
	log   *slog.Logger
	short ident.Short
	ready chan struct{}
	wake  chan struct{} // capacity 1

	readyOnce sync.Once
	backup    *backup
	onUsable  func() // set in the legs of a backup,
	onSilent  func() // as this

	usable atomic.Bool
	works  atomic.Bool // what Usable reports of UDP
	up     atomic.Bool // there is a session that the relay has confirmed, over UDP
	sent   atomic.Bool // something was sent, or
	heard  atomic.Bool // came, since Run looked last

	mu sync.Mutex // guards what follows
	session
}

// NewClient makes a client; Run brings it to life.
func NewClient(cfg Config) *Client {
	c := &Client{
		cfg: cfg, log: cfg.Logger, ready: make(chan struct{}), wake: make(chan struct{}, 1),
		short: ident.ShortOf(cfg.Job, cfg.Identity.Ed25519.Public().(ed25519.PublicKey)),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.log = c.log.With("relay", cfg.ID)
	c.state = StateBinding
	c.backup = &backup{c: c, stamps: new(atomic.Int64), want: make(chan struct{}, 1), addr: cfg.HTTPS, pin: bytes.Clone(cfg.CertSHA256)}
	c.setToken(cfg.Token)
	return c
}

// ID returns the relay's ID.
func (c *Client) ID() string { return c.cfg.ID }

// Addr returns the relay's address.
func (c *Client) Addr() netip.AddrPort { return c.cfg.Addr }

// Ready is closed when the first session can be used, one round trip after Run starts at best.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// RTT returns the smoothed round trip time to the relay, or zero before the first measurement.
func (c *Client) RTT() time.Duration {
	if leg := c.backup.inUse(); leg != nil {
		return leg.RTT()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rtt
}

// Observed returns the client's own UDP address as the relay saw it when it last confirmed the session.
func (c *Client) Observed() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.observed
}

// Usable reports whether packets flow now, as far as the client knows, and another relay need not be looked for: it is false from
// two unanswered pings on, which come after a tenth of a second in which something was sent and nothing heard, and
// when the relay has told that it is about to end. Send may be called all the same.
func (c *Client) Usable() bool {
	if leg := c.backup.inUse(); leg != nil {
		return leg.works.Load()
	}
	return c.works.Load()
}

// State returns how the client stands with the relay and, unless it is well, why: ErrNoAnswer,
// ErrNoToken or a *RefusedError.
func (c *Client) State() (State, error) {
	c.mu.Lock()
	s, err := c.state, c.err
	c.mu.Unlock()
	if s == StateUsable || s == StateBound || s == StateRefused {
		return s, err
	}
	leg, failure := c.backup.current()
	if leg != nil {
		if ls, lerr := leg.State(); ls != StateBinding && ls != StateSilent {
			return ls, lerr
		}
	} else if failure != nil && err != nil {
		err = fmt.Errorf("%w; %w", err, failure)
	}
	return s, err
}

// SetToken rebinds with a new token. The session that stands goes on meanwhile.
func (c *Client) SetToken(t []byte) {
	c.mu.Lock()
	c.setToken(t)
	c.mu.Unlock()
	c.nudge()
	if leg, _ := c.backup.current(); leg != nil {
		leg.SetToken(t)
	}
}

func (c *Client) setToken(t []byte) {
	if len(t) != token.Size {
		if c.token == nil {
			c.err = ErrNoToken
		}
		return
	}
	if string(t) == string(c.token) {
		return
	}
	c.token = append([]byte(nil), t...)
	if errors.Is(c.err, ErrNoToken) {
		c.err = nil
	}
	c.startBind()
}

// Check asks the relay at once whether the session stands, for use after a freeze or a change of network.
func (c *Client) Check() {
	c.mu.Lock()
	switch c.phase {
	case phaseIdle:
	case phaseBound:
		if !c.pinging {
			c.startPing()
		}
	case phaseRefused:
		c.startBind()
	default:
		c.next = time.Time{} // what is under way goes again: of a bind anew, asked for each second, a far relay would never answer the last one
	}
	c.mu.Unlock()
	c.nudge()
	if leg, _ := c.backup.current(); leg != nil {
		leg.Check()
	}
}

func (c *Client) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

type sendBuffer struct{ b [64 << 10]byte }

var sendBuffers = sync.Pool{New: func() any { return new(sendBuffer) }}

// Send forwards packets of seg bytes each (the last may be shorter; seg of zero means one packet) to an
// instance of the same job; the low 24 bits of tag arrive with each. It neither allocates nor keeps b,
// and waits for nothing but the socket. Errors: ErrNotReady, ErrTooBig, or what Config.Send returns.
func (c *Client) Send(to ident.Short, tag uint32, b []byte, seg int) error {
	if leg := c.backup.inUse(); leg != nil {
		return leg.Send(to, tag, b, seg)
	}
	if !c.usable.Load() {
		return ErrNotReady
	}
	if seg <= 0 || seg > len(b) {
		seg = len(b)
	}
	if seg == 0 {
		return nil
	}
	if seg > MaxPacket {
		return ErrTooBig
	}
	if !c.sent.Load() && !c.sent.Swap(true) {
		c.nudge()
	}
	buf := sendBuffers.Get().(*sendBuffer)
	defer sendBuffers.Put(buf)
	frame := seg + HeaderBytes
	for len(b) > 0 {
		n := 0
		// One batch of whole frames; 64 is the most that a socket takes at once.
		for range min(64, len(buf.b)/frame) {
			k := min(seg, len(b))
			PutHeader(buf.b[n:], tag, to)
			n += HeaderBytes + copy(buf.b[n+HeaderBytes:], b[:k])
			b = b[k:]
			if len(b) == 0 {
				break
			}
		}
		if err := c.cfg.Send(c.cfg.Addr, buf.b[:n], frame); err != nil {
			return err
		}
	}
	return nil
}

// HandlePacket takes a datagram that came from Addr, or a frame that was delivered, and starts with 0x20 to 0x2f. For a packet of
// another instance it returns that instance, its tag and the packet, which aliases b; the relay's own
// frames it keeps, and returns false.
func (c *Client) HandlePacket(b []byte) (from ident.Short, tag uint32, packet []byte, ok bool) {
	if from, tag, packet, ok = ParseData(b); ok {
		if !c.heard.Load() {
			c.heard.Store(true)
		}
		return from, tag, packet, true
	}
	if len(b) == 0 {
		return from, 0, nil, false
	}
	var gone ident.Short
	c.mu.Lock()
	wake, isGone := false, false
	wasUsable, wasUp := c.usable.Load(), c.up.Load()
	if b[0] == TypeGone {
		gone, isGone = ParseGone(b, c.boundNonce)
	} else {
		wake = c.control(b, time.Now())
		c.publish()
	}
	c.mu.Unlock()
	if !wasUsable && c.usable.Load() {
		c.readyOnce.Do(func() { close(c.ready) })
		if c.onUsable != nil {
			c.onUsable()
		}
	}
	if !wasUp && c.up.Load() {
		c.backup.retire()
		if c.cfg.UDPBlocked != nil {
			c.cfg.UDPBlocked.Store(false)
		}
		if c.cfg.OnUDP != nil {
			c.cfg.OnUDP()
		}
	}
	if isGone && c.cfg.OnGone != nil {
		c.cfg.OnGone(gone)
	}
	if wake {
		c.nudge()
	}
	return from, 0, nil, false
}

func newNonce() (n Nonce) {
	_, _ = rand.Read(n[:]) // never fails (crypto/rand)
	return n
}
