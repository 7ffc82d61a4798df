package server_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/proxy/proxytest"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/relay/server"
)

// rawLink is a WebSocket connection that speaks frames by hand.
type rawLink struct {
	*websocket.Conn
	*raw
	got [][]byte
}

func (w *world) dialTLS() *websocket.Conn {
	w.t.Helper()
	d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, HandshakeTimeout: patient}
	c, _, err := d.Dial("wss://"+w.srv.HTTPSAddr().String()+relay.WebSocketPath, nil) //nolint:bodyclose // gorilla: it need not be closed
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *world) rawLink() *rawLink { return &rawLink{Conn: w.dialTLS(), raw: w.raw()} }

func (l *rawLink) send(frames ...[]byte) {
	l.w.t.Helper()
	var m []byte
	for _, f := range frames {
		m = relay.AppendToMessage(m, f)
	}
	if err := l.WriteMessage(websocket.BinaryMessage, m); err != nil {
		l.w.t.Fatal(err)
	}
}

func (l *rawLink) receive() []byte {
	l.w.t.Helper()
	for len(l.got) == 0 {
		_ = l.Conn.SetReadDeadline(time.Now().Add(patient))
		_, m, err := l.ReadMessage()
		if err != nil {
			l.w.t.Fatal(err)
		}
		relay.Runs(m, func(b []byte, seg int) {
			for ; len(b) > 0; b = b[min(seg, len(b)):] {
				l.got = append(l.got, bytes.Clone(b[:min(seg, len(b))]))
			}
		})
	}
	f := l.got[0]
	l.got = l.got[1:]
	return f
}

func (l *rawLink) bind() relay.Bound {
	l.w.t.Helper()
	b, n := l.bindFrame()
	l.send(b)
	c, ok := relay.ParseChallenge(l.receive())
	if !ok || c.Nonce != n {
		l.w.t.Fatal("no challenge")
	}
	l.send(l.proveFrame(c))
	m, ok := relay.ParseBound(l.receive())
	if !ok || m.Nonce != n {
		l.w.t.Fatal("not bound")
	}
	return m
}

// ends asserts that the relay hangs up.
func (l *rawLink) ends() {
	l.w.t.Helper()
	_ = l.Conn.SetReadDeadline(time.Now().Add(2 * patient))
	for {
		if _, _, err := l.ReadMessage(); err != nil {
			if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
				l.w.t.Fatal("the relay did not hang up")
			}
			return
		}
	}
}

func dataFrame(to ident.Short, payload string) []byte {
	b := make([]byte, relay.HeaderBytes, relay.HeaderBytes+len(payload))
	relay.PutHeader(b, 7, to)
	return append(b, payload...)
}

func (l *rawLink) wantData(from ident.Short, payload string) {
	l.w.t.Helper()
	b := l.receive()
	s, tag, p, ok := relay.ParseData(b)
	if !ok || s != from || tag != 7 || string(p) != payload {
		l.w.t.Fatalf("got %.40x, want %q from %v", b, payload, from)
	}
}

func TestForwardsBetweenWays(t *testing.T) {
	w := newWorld(t, server.Limits{})
	a, b, c := w.rawLink(), w.rawLink(), w.raw()
	if m := a.bind(); m.Observed.String() != a.LocalAddr().String() {
		t.Errorf("observed %v, is %v", m.Observed, a.LocalAddr())
	}
	b.bind()
	c.bind()
	a.send(dataFrame(b.short, "tls to tls"), dataFrame(c.short, "tls to udp"), dataFrame(b.short, "again"))
	b.wantData(a.short, "tls to tls")
	b.wantData(a.short, "again")
	c.wantData(a.short, "tls to udp")
	c.data(a.short, "udp to tls")
	a.wantData(c.short, "udp to tls")
	a.send(dataFrame(ident.Short{9}, "x"))
	if f := a.receive(); f[0] != relay.TypeGone {
		t.Errorf("got %x, want GONE", f)
	}
	n := relay.Nonce{1}
	a.send(relay.AppendPing(nil, relay.Ping{Short: a.short, Nonce: n}))
	if m, ok := relay.ParsePong(a.receive()); !ok || m.Nonce != n {
		t.Error("no PONG")
	}
	if st := w.srv.Stats(); st.Connections != 2 || st.Sessions != 3 {
		t.Errorf("%+v", st)
	}
	_ = a.Conn.Close()
	w.eventually(func() bool { return w.srv.Stats().Sessions == 2 && w.srv.Stats().Connections == 1 }, "the session of a connection that ended")
}

// The newest proven session wins, whatever way it came; the older connection is hung up.
func TestUDPTakesOver(t *testing.T) {
	w := newWorld(t, server.Limits{})
	l, peer := w.rawLink(), w.raw()
	l.bind()
	peer.bind()
	l.raw.bind() // the same identity over UDP
	l.ends()
	peer.data(l.short, "hello")
	l.raw.wantData(peer.short, "hello")
	again := &rawLink{Conn: w.dialTLS(), raw: l.raw}
	again.bind()
	peer.data(l.short, "back")
	again.wantData(peer.short, "back")
	if l.raw.bound() {
		t.Error("two sessions of one instance")
	}
}

// ANCHORS, relay: a captured bind replayed elsewhere fails, over TLS too; expiry and revocation end live sessions.
func TestTLSReplay(t *testing.T) {
	w := newWorld(t, server.Limits{})
	l := w.rawLink()
	captured, _ := l.bindFrame()
	l.send(captured)
	if _, ok := relay.ParseChallenge(l.receive()); !ok {
		t.Fatal("no challenge")
	}
	thief := w.rawLink()
	w.dropped("replay", 2, func() {
		thief.send(captured)
		l.raw.send(captured) // over UDP
	})
	thief.send(dataFrame(l.short, "x"))
	n := relay.Nonce{2}
	thief.send(relay.AppendPing(nil, relay.Ping{Short: l.short, Nonce: n}))
	if got, ok := relay.ParseUnbound(thief.receive()); !ok || got != n {
		t.Error("the thief got another answer than UNBOUND")
	}
	// One connection is for one instance.
	other := w.raw()
	b, _ := other.bindFrame()
	w.dropped("replay", 1, func() { l.send(b) })
}

func TestTLSEndsWithToken(t *testing.T) {
	w := newWorld(t, server.Limits{})
	l, revoked := w.rawLink(), w.rawLink()
	l.token = w.mint(l.id, func(tok *token.Token, _ *string, _ *ed25519.PrivateKey) {
		tok.Expires = time.Now().Add(1500 * time.Millisecond)
	})
	l.bind()
	revoked.bind()
	w.srv.Revoke(revoked.short)
	revoked.ends()
	l.ends()
	w.eventually(func() bool { return w.srv.Stats().Sessions == 0 && w.srv.Stats().Connections == 0 }, "the end of the sessions")
}

// ANCHORS, relay: bounded queues. A reader that stops costs bounded memory, and nobody else waits for it.
func TestSlowReader(t *testing.T) {
	w := newWorld(t, server.Limits{})
	slow, peer, witness := w.rawLink(), w.raw(), w.raw()
	slow.bind()
	peer.bind()
	witness.bind()
	big := bytes.Repeat([]byte("x"), relay.MaxPacket)
	w.dropped("queue", 1000, func() {
		for range 40000 {
			peer.data(slow.short, string(big))
			if w.srv.Stats().Dropped["queue"] > 1000 {
				return
			}
		}
	})
	peer.data(witness.short, "still here")
	witness.wantData(peer.short, "still here")
	// What is left is in order, whole frames.
	for range 100 {
		slow.wantData(peer.short, string(big))
	}
}

// What is no message of frames, or too long a one, ends the connection.
func TestTLSMalformed(t *testing.T) {
	w := newWorld(t, server.Limits{})
	for name, m := range map[string][]byte{
		"cut short": {0, 9, 1}, "empty frame": {0, 0}, "too long": make([]byte, relay.MaxMessage+1),
	} {
		l := w.rawLink()
		if err := l.WriteMessage(websocket.BinaryMessage, m); err != nil {
			t.Error(name, err)
		}
		l.ends()
	}
	l := w.rawLink()
	if err := l.WriteMessage(websocket.TextMessage, relay.AppendToMessage(nil, []byte("x"))); err != nil {
		t.Error(err)
	}
	l.ends()
	w.eventually(func() bool { return w.srv.Stats().Connections == 0 }, "the end of all connections")
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	res, err := c.Get("https://" + w.srv.HTTPSAddr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Error(res.Status)
	}
}

// ANCHORS, relay: caps. Connections are counted before any cryptography, and one without a session ends.
func TestTLSCaps(t *testing.T) {
	w := newWorld(t, server.Limits{PerPrefix: 2})
	first, idle := w.rawLink(), w.dialTLS()
	first.bind()
	d := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, HandshakeTimeout: patient}
	c, _, err := d.Dial("wss://"+w.srv.HTTPSAddr().String()+relay.WebSocketPath, nil) //nolint:bodyclose // gorilla: it need not be closed
	if err == nil {
		_ = c.Close()
		t.Fatal("a third connection was let in")
	}
	_ = idle.SetReadDeadline(time.Now().Add(2 * patient))
	if _, _, err := idle.ReadMessage(); err == nil {
		t.Fatal("got a message")
	} else if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		t.Fatal("a connection without a session stays")
	}
	second := w.rawLink()
	second.bind()
}

// blocked is a client whose UDP goes nowhere until open is called.
func (w *world) blocked(id ident.Identity, change func(*relay.Config)) (n *node, open func()) {
	w.t.Helper()
	n = &node{got: make(chan packet, 4096), gone: make(chan ident.Short, 64)}
	n.short = ident.ShortOf(w.job.ID(), id.Ed25519.Public().(ed25519.PublicKey))
	take := func(leg *relay.Client, b []byte, seg int) {
		for ; len(b) > 0; b = b[min(seg, len(b)):] {
			if from, tag, data, ok := leg.HandlePacket(b[:min(seg, len(b))]); ok {
				select {
				case n.got <- packet{from, tag, string(data)}:
				default:
				}
			}
		}
	}
	var mu sync.Mutex
	passes := false
	sock := w.raw().Conn
	cfg := relay.Config{
		ID: relayID, Addr: w.srv.Addr(), Token: w.mint(id, nil), Identity: id, Job: w.job.ID(),
		HTTPS: w.srv.HTTPSAddr().String(), CertSHA256: w.srv.CertSHA256(), Deliver: take,
		Send: func(to netip.AddrPort, b []byte, seg int) error {
			mu.Lock()
			defer mu.Unlock()
			if !passes {
				return nil
			}
			return sock.Write(b, seg, 0, to)
		},
	}
	if change != nil {
		change(&cfg)
	}
	n.Client = relay.NewClient(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.Run(ctx) })
	wg.Go(func() {
		b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
		for sock.Read(&b) == nil {
			take(n.Client, b.Buf[:b.N], b.Seg)
		}
	})
	n.close = sync.OnceFunc(func() {
		cancel()
		_ = sock.Close()
		wg.Wait()
	})
	w.t.Cleanup(n.close)
	return n, func() {
		mu.Lock()
		defer mu.Unlock()
		passes = true
	}
}

func (n *node) want(t testing.TB, from ident.Short, data string) {
	t.Helper()
	select {
	case p := <-n.got:
		if p.from != from || p.data != data {
			t.Fatalf("got %q from %v", p.data, p.from)
		}
	case <-time.After(patient):
		t.Fatalf("nothing came, want %q", data)
	}
}

// Where UDP is blocked, TLS carries after a fraction of a second; when UDP opens, it takes over.
func TestClientOverTLS(t *testing.T) {
	w := newWorld(t, server.Limits{})
	begin := time.Now()
	a, open := w.blocked(newIdentity(t), nil)
	b, _ := w.blocked(newIdentity(t), nil)
	a.waitReady(t)
	b.waitReady(t)
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("ready after %v", d)
	}
	w.eventually(func() bool {
		s, err := a.State()
		return s == relay.StateBound && err == nil && a.Via() == "wss" && a.RTT() > 0
	}, "bound over TLS")
	exchange := func(text string) {
		t.Helper()
		if err := a.Send(b.short, 3, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		b.want(t, a.short, text)
		if err := b.Send(a.short, 3, []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		a.want(t, b.short, text)
	}
	exchange("over TLS")
	open()
	w.eventually(func() bool { return a.Via() == "udp" }, "UDP to take over")
	exchange("over UDP")
	w.eventually(func() bool { return w.srv.Stats().Connections == 1 && w.srv.Stats().Sessions == 2 }, "the end of the connection")
	exchange("still")
}

// When the relay restarts with another certificate, the client says so, and heals once it is told.
func TestRestartOverTLS(t *testing.T) {
	w := newWorld(t, server.Limits{})
	n, _ := w.blocked(newIdentity(t), nil)
	n.waitReady(t)
	w.stop()
	w.startRelay()
	w.eventually(func() bool { _, err := n.State(); return errors.Is(err, relay.ErrPin) }, "the wrong certificate")
	n.SetHTTPS(w.srv.HTTPSAddr().String(), w.srv.CertSHA256())
	w.eventually(func() bool { s, _ := n.State(); return s == relay.StateBound }, "a new session")
}

// A token that is replaced prolongs the session in place; one that expires ends it, with the reason.
func TestTokenOverTLS(t *testing.T) {
	w := newWorld(t, server.Limits{})
	id := newIdentity(t)
	short := func(d time.Duration) []byte {
		return w.mint(id, func(tok *token.Token, _ *string, _ *ed25519.PrivateKey) { tok.Expires = time.Now().Add(d) })
	}
	n, _ := w.blocked(id, func(c *relay.Config) { c.Token = short(3 * time.Second) })
	w.eventually(func() bool { return w.srv.Stats().Bound == 1 }, "a first bind")
	n.SetToken(short(5 * time.Second))
	w.eventually(func() bool { return w.srv.Stats().Bound == 2 }, "a second bind")
	if c := w.srv.Stats(); c.Connections != 1 || c.Sessions != 1 {
		t.Errorf("%+v", c)
	}
	w.eventually(func() bool {
		e := (*relay.RefusedError)(nil)
		_, err := n.State()
		return errors.As(err, &e) && e.Reason == relay.ReasonExpired
	}, "expiry")
}

// ANCHORS, relay: nobody but the announced relay is spoken to.
func TestWrongPin(t *testing.T) {
	w := newWorld(t, server.Limits{})
	n, _ := w.blocked(newIdentity(t), func(c *relay.Config) { c.CertSHA256 = make([]byte, 32) })
	w.eventually(func() bool {
		s, err := n.State()
		return s == relay.StateSilent && errors.Is(err, relay.ErrNoAnswer) && errors.Is(err, relay.ErrPin)
	}, "refusal of the certificate")
	if n.Via() != "" || w.srv.Stats().Challenged > 0 {
		t.Error("spoke to it all the same")
	}
}

// The way out may be an HTTP proxy that knows CONNECT only.
func TestProxy(t *testing.T) {
	w := newWorld(t, server.Limits{})
	p := proxytest.Start(t, nil)
	n, _ := w.blocked(newIdentity(t), func(c *relay.Config) {
		c.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: p.Addr, User: url.UserPassword("u", "p")})
	})
	n.waitReady(t)
	if auth := p.Asked(w.srv.HTTPSAddr().String()); !strings.HasPrefix(auth, "Basic ") {
		t.Errorf("the proxy was asked otherwise: %v", auth)
	}
	n.close()
}

// UDP that answers late races TLS: whichever is first, each client ends on UDP, with one session, and is reached.
func TestCloseRace(t *testing.T) {
	w := newWorld(t, server.Limits{})
	peer, _ := w.blocked(newIdentity(t), func(c *relay.Config) { c.UDPBlocked = new(atomic.Bool); c.UDPBlocked.Store(true) })
	peer.waitReady(t)
	var all []*node
	var late sync.WaitGroup
	for i := range 40 {
		n, open := w.blocked(newIdentity(t), func(c *relay.Config) {
			direct := c.Send
			c.Send = func(to netip.AddrPort, b []byte, seg int) error {
				b = bytes.Clone(b)
				late.Add(1)
				time.AfterFunc(time.Duration(180+2*i)*time.Millisecond, func() {
					_ = direct(to, b, seg)
					late.Done()
				})
				return nil
			}
		})
		open()
		all = append(all, n)
	}
	for _, n := range all {
		n.waitReady(t)
	}
	for i, n := range all {
		w.eventually(func() bool { s, _ := n.State(); return n.Via() == "udp" && s == relay.StateBound }, "UDP to win")
		text := strings.Repeat("x", i+1)
		w.eventually(func() bool {
			_ = peer.Send(n.short, 0, []byte(text), 0)
			select {
			case p := <-n.got:
				return p.from == peer.short && p.data == text
			case <-time.After(50 * time.Millisecond):
				return false
			}
		}, "a packet")
	}
	w.eventually(func() bool { return w.srv.Stats().Connections == 1 && w.srv.Stats().Sessions == len(all)+1 }, "one session each")
	for _, n := range all {
		n.close()
	}
	late.Wait()
}
