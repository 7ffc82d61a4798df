// Command relay runs a relay, which forwards packets between the functions of a job. It parses flags and
// leaves the rest to package relay/server; the rendezvous tells it which tokens to trust, or a flag does.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
)

func main() { os.Exit(cli.Main(newCommand())) }

type options struct {
	id, listen, public, tokenKey string
	stun2                        uint16
	rendezvous, creds, http      string
	https, httpsPublic           string
	tlsCert, tlsKey              string
	limits                       server.Limits
	sockets                      int
	drain                        time.Duration
	json                         bool
	logLevel                     string
}

const long = `Run a relay: UDP packets between the instances of a job, by identity, and STUN on the same port and on a
second one. It sees ciphertext only. With --https it takes the same over WebSocket and TLS, for functions
whose network blocks UDP; they know its certificate by its hash, so one that it makes itself will do.

It admits who shows a token of its rendezvous. With --rendezvous it announces itself there, learns the key
that verifies tokens, and is handed out to functions; FNWIRE_RELAY_SECRET must be that of the rendezvous.
Otherwise give it that key by --token-key, and tell the rendezvous of the relay by its --relay flag.

SIGTERM or SIGINT has it tell its clients that it is about to end, refuse new ones, and end after --drain. A second signal ends
it at once.`

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "relay --id NAME (--rendezvous URL | --token-key BASE64) [flags]",
		Short: "Forward packets between functions that cannot reach each other directly",
		Long:  long,
		Example: `  FNWIRE_RELAY_SECRET=... relay --id eu-1 --rendezvous nats://203.0.113.5:4222 --public 203.0.113.7:3478
  relay --id eu-1 --listen :3478 --token-key bMgF...=`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.id, "id", cli.Env("FNWIRE_RELAY_ID", ""), "the relay's name, unlike that of any other relay (env FNWIRE_RELAY_ID)")
	f.StringVar(&o.listen, "listen", cli.Env("FNWIRE_RELAY_LISTEN", ":3478"), "UDP address; without an IP address, all (env FNWIRE_RELAY_LISTEN)")
	f.Uint16Var(&o.stun2, "stun2", 0, "second port for STUN; default: the one after --listen's")
	f.StringVar(&o.public, "public", cli.Env("FNWIRE_RELAY_PUBLIC", ""), "ADDR:PORT where functions reach the relay; default: --listen's, if it has an IP address (env FNWIRE_RELAY_PUBLIC)")
	f.StringVar(&o.https, "https", cli.Env("FNWIRE_RELAY_HTTPS", ""), "TCP address of the same service over WebSocket and TLS; default: none (env FNWIRE_RELAY_HTTPS)")
	f.StringVar(&o.httpsPublic, "https-public", cli.Env("FNWIRE_RELAY_HTTPS_PUBLIC", ""), "HOST:PORT where functions reach --https; default: its port at --public's IP address (env FNWIRE_RELAY_HTTPS_PUBLIC)")
	f.StringVar(&o.tlsCert, "tls-cert", cli.Env("FNWIRE_RELAY_TLS_CERT", ""), "certificate file (PEM) for --https; default: one made at each start (env FNWIRE_RELAY_TLS_CERT)")
	f.StringVar(&o.tlsKey, "tls-key", cli.Env("FNWIRE_RELAY_TLS_KEY", ""), "key file (PEM) for --tls-cert (env FNWIRE_RELAY_TLS_KEY)")
	f.StringVar(&o.tokenKey, "token-key", cli.Env("FNWIRE_RELAY_TOKEN_KEY", ""), "public key that verifies tokens, in base64, as the rendezvous prints it (env FNWIRE_RELAY_TOKEN_KEY)")
	f.StringVar(&o.rendezvous, "rendezvous", cli.Env("FNWIRE_URL", ""), "NATS URL of the rendezvous to announce to (env FNWIRE_URL)")
	f.StringVar(&o.creds, "creds", cli.Env("FNWIRE_CREDS", ""), "NATS credentials file (env FNWIRE_CREDS)")
	f.StringVar(&o.http, "http", cli.Env("FNWIRE_RELAY_HTTP", "127.0.0.1:9478"), "address of /healthz, /readyz and /metrics, or \"off\" (env FNWIRE_RELAY_HTTP)")
	f.Var(cli.Count[int]{N: &o.limits.Sessions}, "max-sessions", "most sessions in all (default 65536)")
	f.Var(cli.Count[int]{N: &o.limits.PerJob}, "max-sessions-per-job", "most sessions of one job (default 16384)")
	f.Var(cli.Count[int]{N: &o.limits.PerPrefix}, "max-sessions-per-prefix", "most sessions from one IPv4 /24 or IPv6 /64 (default 16384)")
	f.Var(cli.Count[int64]{N: &o.limits.PacketsPerSecond}, "session-packets", "most packets a second from one session (default no limit)")
	f.Var(cli.Count[int64]{N: &o.limits.BytesPerSecond}, "session-bytes", "most bytes a second from one session (default no limit)")
	f.Var(cli.Count[int64]{N: &o.limits.TotalBytesPerSecond}, "total-bytes", "most bytes a second from all sessions (default no limit)")
	f.Var(cli.Count[int]{N: &o.sockets}, "sockets", "sockets that share the port (default one per core, at most 8)")
	f.DurationVar(&o.drain, "drain", time.Second, "for how long to forward on after SIGTERM or SIGINT, while clients move to other relays")
	f.BoolVar(&o.json, "json", false, "ready line and log as JSON")
	f.StringVar(&o.logLevel, "log-level", cli.Env("FNWIRE_LOG_LEVEL", "info"), "debug, info, warn or error (env FNWIRE_LOG_LEVEL)")
	return cmd
}

// plan is what the flags say, checked.
type plan struct {
	cfg       server.Config
	advertise netip.AddrPort // zero port: as bound
	key       ed25519.PublicKey
	secret    string
}

func (o *options) plan(stderr io.Writer) (p plan, err error) {
	if p.cfg.Logger, err = cli.Logger(stderr, o.logLevel, o.json); err != nil {
		return p, err
	}
	if err := job.CheckName(o.id); err != nil {
		return p, fmt.Errorf("--id: %w", err)
	}
	listen, err := parseAddr(o.listen)
	if err != nil {
		return p, fmt.Errorf("--listen: %w", err)
	}
	second := o.stun2
	if second == 0 && listen.Port() != 0 {
		if listen.Port() == 1<<16-1 {
			return p, errors.New("--listen: no port after the last; give one with --stun2")
		}
		second = listen.Port() + 1
	}
	p.cfg.ID, p.cfg.Listen, p.cfg.Listen2 = o.id, listen, netip.AddrPortFrom(listen.Addr(), second)
	p.cfg.Limits, p.cfg.Sockets, p.cfg.Drain = o.limits, o.sockets, o.drain
	if o.drain < 0 {
		return p, errors.New("--drain: want a time of 0 or more, as 1s")
	}
	if err := o.planHTTPS(&p); err != nil {
		return p, err
	}
	switch {
	case o.tokenKey != "":
		b, err := base64.StdEncoding.DecodeString(o.tokenKey)
		if err != nil || len(b) != ed25519.PublicKeySize {
			return p, fmt.Errorf("--token-key: want %d bytes in base64, as the rendezvous prints them", ed25519.PublicKeySize)
		}
		p.key = b
		return p, nil
	case o.rendezvous == "":
		return p, errors.New("nobody could use this relay: give --rendezvous URL, or --token-key")
	}
	p.secret = cli.Env("FNWIRE_RELAY_SECRET", "")
	if _, err := rendezvous.NewRelaySecret(p.secret); err != nil {
		return p, fmt.Errorf("FNWIRE_RELAY_SECRET: %w", err)
	}
	p.advertise = listen
	if o.public != "" {
		if p.advertise, err = parseAddr(o.public); err != nil {
			return p, fmt.Errorf("--public: %w", err)
		}
	}
	if p.advertise.Addr().IsUnspecified() {
		return p, errors.New("--public ADDR:PORT is needed: --listen does not say at which address functions reach the relay")
	}
	return p, nil
}

func (o *options) planHTTPS(p *plan) (err error) {
	switch {
	case o.https == "" && (o.tlsCert != "" || o.tlsKey != "" || o.httpsPublic != ""):
		return errors.New("--tls-cert, --tls-key and --https-public are for --https ADDR, which is not given")
	case o.https == "":
		return nil
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return errors.New("--tls-cert and --tls-key belong together")
	}
	if p.cfg.HTTPS, err = parseAddr(o.https); err != nil {
		return fmt.Errorf("--https: %w", err)
	}
	if o.tlsCert == "" {
		return nil
	}
	c, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
	if err != nil {
		return fmt.Errorf("--tls-cert: %w", err)
	}
	p.cfg.Certificate = &c
	return nil
}

func parseAddr(s string) (netip.AddrPort, error) {
	if strings.HasPrefix(s, ":") {
		s = "[::]" + s
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("%q: want IP:PORT or :PORT", s)
	}
	return a, nil
}

// readyLine is what --json prints on stdout once instances can bind.
type readyLine struct {
	Ready bool             `json:"ready"`
	ID    string           `json:"id"`
	Addr  netip.AddrPort   `json:"addr"`
	STUN  []netip.AddrPort `json:"stun"`
	HTTP  string           `json:"http,omitempty"`
	HTTPS string           `json:"https,omitempty"`       // as bound
	Cert  string           `json:"cert_sha256,omitempty"` // in hex
}

func (o *options) run(ctx context.Context, stdout, stderr io.Writer) error {
	p, err := o.plan(stderr)
	if err != nil {
		return cli.Usage(err)
	}
	r := &runner{options: o, plan: p, out: stdout, log: p.cfg.Logger}
	return r.run(ctx)
}
