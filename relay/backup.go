package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fnwire/fnwire/internal/proxy"
)

const (
	raceAfter    = 200 * time.Millisecond // without a session over UDP
	dialTimeout  = 10 * time.Second       // for TCP, proxy, TLS and HTTP
	redialFirst  = 100 * time.Millisecond // doubles to
	redialLast   = 5 * time.Second
	stable       = 10 * time.Second // a connection that lasted that long may be made anew at once
	slowRetry    = 5 * time.Second  // of binds over UDP while TLS carries, after
	eagerBinds   = 5
	linger       = 2 * time.Second // for what is under way over TLS when UDP takes over
	flushTimeout = 300 * time.Millisecond
	silentTLS    = time.Minute // then a connection is given up; pings are answered four times as often
)

// ErrPin is what State tells when the relay's certificate over TLS is not the one that was announced.
var ErrPin = errors.New("relay: the certificate is not the announced one: a proxy that opens TLS is in between, or the relay was restarted")

// backup is a client's second way to its relay: the same frames over WebSocket on TLS. It sleeps while UDP
// works. Each connection has a client of its own, with the same state machine, as its leg.
type backup struct {
	c      *Client
	stamps *atomic.Int64 // of binds by either way, so that the newer is the newer
	want   chan struct{} // capacity 1: UDP gives no session
	leg    atomic.Pointer[Client]

	mu     sync.Mutex // guards what follows
	addr   string
	pin    []byte
	now    *Client // leg of the connection that stands, whether it can be used yet or not
	mute   func()  // stops the leg asking
	hangUp func()  // ends the connection
	err    error   // of the last one
}

// SetHTTPS changes where the relay takes WebSocket connections, from the next one on. An empty addr is nowhere.
func (c *Client) SetHTTPS(addr string, certSHA256 []byte) {
	b := c.backup
	b.mu.Lock()
	b.addr, b.pin = addr, bytes.Clone(certSHA256)
	b.mu.Unlock()
	c.nudge()
}

// Via tells what carries packets now: "udp", "wss", or "" if nothing does yet.
func (c *Client) Via() string {
	switch {
	case c.backup.inUse() != nil:
		return "wss"
	case c.usable.Load():
		return "udp"
	default:
		return ""
	}
}

// inUse returns the leg that packets go by unless that is UDP.
func (b *backup) inUse() *Client {
	if leg := b.leg.Load(); leg != nil && !b.c.up.Load() {
		return leg
	}
	return nil
}

func (b *backup) current() (*Client, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now, b.err
}

func (b *backup) configured() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addr != ""
}

// look decides after each step over UDP whether TLS is wanted, and returns when to look again. It runs
// under c.mu; sent tells whether the step sent a frame.
func (b *backup) look(now, next time.Time, sent bool) time.Time {
	c := b.c
	if !b.configured() {
		return next
	}
	var due time.Time
	switch {
	case c.phase == phaseBind && !c.started.IsZero():
		due = c.started
		if !c.cfg.blocked() {
			due = due.Add(max(raceAfter, 3*c.rtt/2))
		}
		if sent && c.tries > eagerBinds && b.leg.Load() != nil {
			c.next = now.Add(slowRetry)
			next = c.next
		}
	case c.phase == phaseBound && c.doubt:
		due = now
	default:
		return next
	}
	if now.Before(due) {
		if due.Before(next) {
			return due
		}
		return next
	}
	select {
	case b.want <- struct{}{}:
	default:
	}
	return next
}

// retire lets UDP take over: the leg asks for nothing more, but what is still under way may come.
func (b *backup) retire() {
	b.leg.Store(nil)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now != nil {
		b.mute()
		time.AfterFunc(linger, b.hangUp)
	}
}

// usable is called when the relay has answered over TLS.
func (b *backup) usable(leg *Client) {
	c := b.c
	if c.up.Load() {
		return // UDP was faster; retire has seen to it
	}
	b.leg.Store(leg)
	if c.cfg.UDPBlocked != nil {
		c.cfg.UDPBlocked.Store(true)
	}
	c.mu.Lock()
	if c.phase == phaseBound && c.pinging {
		c.startBind() // the relay has moved the session
		c.up.Store(false)
	}
	c.mu.Unlock()
	c.readyOnce.Do(func() { close(c.ready) })
	if c.cfg.OnChange != nil {
		c.cfg.OnChange()
	}
	c.nudge()
	c.log.Info("relay: reached over HTTPS, since UDP is silent")
}

// run connects whenever UDP gives no session, until ctx ends.
func (b *backup) run(ctx context.Context) {
	for wait := redialFirst; ; {
		select {
		case <-ctx.Done():
			return
		case <-b.want:
		}
		if b.c.up.Load() {
			continue
		}
		began := time.Now()
		err := b.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
		b.c.log.Debug("relay: connection over HTTPS ended", "error", err)
		if time.Since(began) > stable {
			wait = redialFirst
		}
		if b.c.up.Load() {
			b.c.Check() // in case that both ways were bound at the same moment, and the other won
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(wait)):
		}
		wait = min(2*wait, redialLast)
		b.c.nudge() // which wants a connection again, if UDP still gives no session
	}
}

// connect makes a connection and carries frames over it until it ends. The error tells why.
func (b *backup) connect(parent context.Context) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	conn, raw, err := b.dial(ctx)
	if err != nil {
		return err
	}
	var out Outbox
	done := make(chan struct{}) // the connection is over
	defer context.AfterFunc(ctx, func() {
		out.End() // then the writer hangs up
		_ = raw.SetDeadline(time.Now().Add(flushTimeout))
	})()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		close(done)
		_ = raw.Close() // a writer may be stuck
	}()
	wg.Go(func() {
		defer raw.Close()
		for {
			m := out.Next(done)
			if m == nil || conn.WriteMessage(websocket.BinaryMessage, m) != nil {
				return
			}
		}
	})
	asking, mute := context.WithCancel(ctx)
	leg := b.newLeg(&out, cancel)
	b.mu.Lock()
	b.now, b.mute, b.hangUp = leg, mute, cancel
	b.mu.Unlock()
	defer func() {
		mute()
		b.leg.CompareAndSwap(leg, nil)
		b.mu.Lock()
		b.now, b.mute, b.hangUp = nil, nil, nil
		b.mu.Unlock()
	}()
	if b.c.up.Load() {
		return nil // UDP came first
	}
	wg.Go(func() { _ = leg.Run(asking) })
	return b.read(conn, leg)
}

// newLeg makes the client of one connection.
func (b *backup) newLeg(out *Outbox, hangUp func()) *Client {
	c := b.c
	cfg := c.cfg
	cfg.HTTPS, cfg.Deliver, cfg.UDPBlocked, cfg.OnMoved, cfg.OnUDP, cfg.Logger = "", nil, nil, nil, nil, c.log
	cfg.Send = func(_ netip.AddrPort, frames []byte, seg int) error {
		if out.Put(frames, seg) > 0 {
			return errSlow
		}
		return nil
	}
	c.mu.Lock()
	cfg.Token = c.token
	c.mu.Unlock()
	leg := NewClient(cfg)
	leg.backup.stamps = b.stamps
	leg.onUsable = func() { b.usable(leg) }
	leg.onSilent = hangUp
	return leg
}

var errSlow = errors.New("relay: connection over HTTPS is slower than what is sent; packets dropped")

// read delivers what comes until the connection ends.
func (b *backup) read(conn *websocket.Conn, leg *Client) error {
	buf := make([]byte, MaxMessage)
	conn.SetReadLimit(MaxMessage)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(silentTLS)) // fails when closed, as the read then does
		kind, r, err := conn.NextReader()
		if err != nil {
			return fmt.Errorf("relay: over HTTPS: %w", err)
		}
		n, err := io.ReadFull(r, buf)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return fmt.Errorf("relay: over HTTPS: %w", err)
		}
		if kind != websocket.BinaryMessage || !Runs(buf[:n], func(frames []byte, seg int) { b.c.cfg.Deliver(leg, frames, seg) }) {
			return errors.New("relay: over HTTPS: malformed message")
		}
	}
}

// dial returns a connection and what is under its TLS.
func (b *backup) dial(ctx context.Context) (conn *websocket.Conn, raw net.Conn, err error) {
	b.mu.Lock()
	addr, pin := b.addr, b.pin
	b.mu.Unlock()
	stop := func() bool { return true }
	d := websocket.Dialer{
		HandshakeTimeout: dialTimeout, TLSClientConfig: pinned(pin), ReadBufferSize: 16 << 10, WriteBufferSize: 32 << 10,
		NetDialContext: func(dialing context.Context, _, addr string) (net.Conn, error) {
			c, err := proxy.Dial(dialing, b.c.cfg.Proxy, "https", addr)
			if err == nil {
				raw = c
				stop = context.AfterFunc(ctx, func() { _ = c.Close() })
			}
			return c, err
		},
	}
	conn, res, err := d.DialContext(ctx, "wss://"+addr+WebSocketPath, nil) //nolint:bodyclose // gorilla: it need not be closed
	if err != nil {
		stop()
		if raw != nil {
			_ = raw.Close()
		}
		if res != nil {
			return nil, nil, fmt.Errorf("relay: https://%s: %s: %w", addr, res.Status, err)
		}
		return nil, nil, fmt.Errorf("relay: https://%s: %w", addr, err)
	}
	if !stop() { // ctx has ended
		_ = raw.Close()
		return nil, nil, ctx.Err()
	}
	return conn, raw, nil
}

// pinned accepts the certificate with this SHA-256 hash, whatever its name, term and issuer.
func pinned(pin []byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		InsecureSkipVerify: true, //nolint:gosec // G402: VerifyConnection is stricter
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || len(pin) != sha256.Size {
				return ErrPin
			}
			if h := sha256.Sum256(s.PeerCertificates[0].Raw); !bytes.Equal(h[:], pin) {
				return ErrPin
			}
			return nil
		},
	}
}
