package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/rendezvous"
)

const (
	accountFnwire  = "FNWIRE"
	accountStore   = "STORE"
	maxNATSPayload = 1 << 20          // NATS' own default; a join reply with 16 parked offers stays below
	handshakeMost  = 10 * time.Second // of TLS, and then from NATS' INFO to CONNECT, which is a round trip; package rendezvous waits as long
	pingInterval   = time.Minute      // longer than instances are silent: NATS asks who is silent for one or two of these, and hangs up one later
	syncInterval   = 10 * time.Second // between two times that JetStream has the disk write what the kernel holds
)

// embedded is a nats-server inside this process.
type embedded struct {
	ns       *natsserver.Server
	scheme   string // of its URL: nats or tls
	password string
	temp     string   // directory to remove; empty if there is none
	lock     *os.File // of a data directory; nil if there is none
	stores   stores   // of jobs, if there are any
}

func startEmbedded(c *config, refused func(string)) (_ *embedded, err error) {
	e := &embedded{password: rand.Text(), scheme: "nats"}
	jetStream := c.JetStream || c.StorePassword != "" || c.Replicated || c.StoreBytes > 0
	opts := &natsserver.Options{
		ServerName: "fnwire-rendezvous", NoSigs: true, NoLog: true, DontListen: c.DontListen,
		AuthTimeout: handshakeMost.Seconds(), AlwaysEnableNonce: true, DisableJetStreamBanner: true,
		MaxPayload: maxNATSPayload, MaxConn: c.Limits.Connections, MaxSubs: 0, MaxControlLine: 4096,
		WriteDeadline: 10 * time.Second, PingInterval: pingInterval, MaxPingsOut: 1,
		Accounts: []*natsserver.Account{natsserver.NewAccount(accountFnwire), natsserver.NewAccount(accountStore)},
	}
	if !c.DontListen {
		if opts.Host, opts.Port, err = listenAt(c.Listen); err != nil {
			return nil, err
		}
	}
	if c.WebSocket != "" {
		ws := &opts.Websocket
		if ws.Host, ws.Port, err = listenAt(c.WebSocket); err != nil {
			return nil, fmt.Errorf("WebSocket: %w", err)
		}
		ws.NoTLS = c.Certificate == nil
		ws.SameOrigin = true // functions name none; other people's web pages do
	}
	if c.Certificate != nil {
		opts.Websocket.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*c.Certificate}}
		opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*c.Certificate}}
		opts.TLSTimeout = handshakeMost.Seconds()
		e.scheme = "tls"
	}
	if jetStream {
		if opts.StoreDir = c.DataDir; opts.StoreDir == "" {
			if e.temp, err = os.MkdirTemp("", "fnwire-rendezvous-"); err != nil {
				return nil, fmt.Errorf("data directory: %w", err)
			}
			opts.StoreDir = e.temp
		}
		if err = os.MkdirAll(opts.StoreDir, 0o700); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
		if c.DataDir != "" {
			if e.lock, err = lockDir(c.DataDir); err != nil {
				return nil, fmt.Errorf("data directory: %w", err)
			}
		}
		opts.JetStream = true
		opts.JetStreamMaxStore = room(opts.StoreDir)
		opts.SyncInterval = syncInterval
	}
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	g := &gate{admit: c.admits, service: e.password, store: c.StorePassword, refused: refused}
	if c.relaySecret != nil {
		g.relay, err = rendezvous.NatsUser(c.relaySecret.NATSKey().Public().(ed25519.PublicKey))
		if err != nil {
			return nil, err
		}
	}
	opts.CustomClientAuthentication = g
	if e.ns, err = natsserver.NewServer(opts); err != nil {
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	if g.fnwire, err = e.ns.LookupAccount(accountFnwire); err == nil {
		g.storage, err = e.ns.LookupAccount(accountStore)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded NATS: account: %w", err)
	}
	return e, e.start(c, g, jetStream)
}

func (e *embedded) start(c *config, g *gate, jetStream bool) error {
	e.ns.Start()
	if !e.ns.ReadyForConnections(10 * time.Second) {
		return errors.New("embedded NATS: did not start within 10 s")
	}
	if !jetStream {
		return nil
	}
	if !e.ns.JetStreamEnabled() {
		return errors.New("embedded NATS: JetStream did not start (is the data directory writable and on a disk with room?)")
	}
	accounts := []*natsserver.Account{g.storage}
	if c.Replicated {
		accounts = append(accounts, g.fnwire)
	}
	for _, a := range accounts {
		if err := a.EnableJetStream(nil, nil); err != nil {
			return fmt.Errorf("embedded NATS: JetStream: %w", err)
		}
	}
	if c.StoreBytes > 0 {
		return e.stores.start(e, c, g.stores.Store)
	}
	return nil
}

// connect makes the service's own connection.
func (e *embedded) connect(opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append(opts, nats.InProcessServer(e.ns), nats.UserInfo(serviceUser, e.password))...)
}

func (e *embedded) url() string {
	a, ok := e.ns.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	host := a.AddrPort().Addr().Unmap()
	if host.IsUnspecified() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1}) // what this machine itself can use
	}
	return e.scheme + "://" + netip.AddrPortFrom(host, uint16(a.Port)).String()
}

// webSocketURL is empty if there is no such listener.
func (e *embedded) webSocketURL(c *config) string {
	if c.WebSocket == "" {
		return ""
	}
	return e.ns.WebsocketURL()
}

func (e *embedded) stop() {
	e.stores.close()
	if e.ns != nil {
		e.ns.Shutdown()
		e.ns.WaitForShutdown()
	}
	if e.lock != nil {
		_ = e.lock.Close() // nothing was written
	}
	if e.temp != "" {
		_ = os.RemoveAll(e.temp) // nothing to be done about a leftover in the temporary directory
	}
}

// listenAt returns a host and port for nats-server, which only logs that it cannot listen: this asks first, for an error that says why.
func listenAt(s string) (host string, port int, err error) {
	ap, err := resolveListen(s)
	if err != nil {
		return "", 0, err
	}
	l, err := net.Listen("tcp", ap.String())
	if err != nil {
		return "", 0, fmt.Errorf("embedded NATS: %w", err)
	}
	_ = l.Close() // nothing was accepted
	if ap.Port() == 0 {
		return ap.Addr().String(), natsserver.RANDOM_PORT, nil
	}
	return ap.Addr().String(), int(ap.Port()), nil
}

// resolveListen accepts ":4222", "host:4222" and "[::1]:0".
func resolveListen(s string) (netip.AddrPort, error) {
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("listen address %q: %w", s, err)
	}
	ap := a.AddrPort()
	if !ap.Addr().IsValid() {
		ap = netip.AddrPortFrom(netip.IPv6Unspecified(), ap.Port())
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// connectExternal joins an existing NATS, which must be there now and may come and go later.
func connectExternal(ctx context.Context, c *config, opts ...nats.Option) (*nats.Conn, error) {
	opts = append(opts, nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(), nats.ReconnectWait(250*time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 500*time.Millisecond), nats.PingInterval(10*time.Second))
	if c.Creds != "" {
		opts = append(opts, nats.UserCredentials(c.Creds))
	}
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(c.NATS, opts...) // returns within its timeout of 2 s per server
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			at := rendezvous.RedactURL(c.NATS)
			if errors.Is(r.err, nats.ErrNoServers) { // which is all that nats.go says
				return nil, fmt.Errorf("%w: no NATS server answers at %s (is it running, and is the URL right?)", rendezvous.ErrUnreachable, at)
			}
			return nil, fmt.Errorf("NATS at %s: %w: %w", at, rendezvous.ErrUnreachable, r.err)
		}
		return r.nc, nil
	case <-ctx.Done():
		if r := <-done; r.nc != nil {
			r.nc.Close()
		}
		return nil, ctx.Err()
	}
}
