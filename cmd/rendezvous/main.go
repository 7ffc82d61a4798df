// Command rendezvous runs the service that brings functions of a job together. It parses flags and
// leaves the rest to package rendezvous/server.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/bucket"
	"github.com/fnwire/fnwire/rendezvous/server"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

func main() { os.Exit(cli.Main(newCommand())) }

type options struct {
	cfg      server.Config
	allow    []string
	relays   []string
	tokenKey string
	tlsCert  string
	tlsKey   string
	wakeFile string
	json     bool
	logLevel string

	storeBytes, jobStoreBytes cli.Bytes
	storeAsked                bool
}

const long = `Run the rendezvous: who is in a job under which name, offers and answers between
instances, and tokens for relays.

By default it embeds a NATS server, to which functions connect with their job key. With --nats it serves
on an existing NATS instead; several copies may do so if all have --replicated and one --token-key.

With --data it keeps states for those who are not there too, apart for each job: functions say FNWIRE_STORE=nats:.

With --wake-file it calls the HTTP hook of a name that somebody calls and nobody holds, so that a function is
started only when there is something for it. The file is read again on SIGHUP:

  {"hooks": [{"name": "reduce-*", "url": "https://fn.example/wake/{name}", "secret": "env:WAKE_SECRET"}]}

"name" is a name or a pattern with * ? [a-z]; the first hook that fits is called. "url" may hold {job} and {name}
after the host. "secret" is whsec_ and base64 of 24 to 64 bytes, or env:VARIABLE or file:PATH that has it. "job" is a job ID
if the hook is for one job. "timeout" (15s) bounds one attempt, "start" (1m) is what a function may take to join, "rate" (100) bounds
events a second for all names of the hook.

It admits no job unless told which: --allow JOBID (fnwire keygen prints the ID) or --open for all.`

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "rendezvous (--allow JOBID... | --open) [flags]",
		Short: "Bring the functions of a job together",
		Long:  long,
		Example: `  rendezvous --open
  rendezvous --listen :4222 --allow JOBID --relay-secret "$SECRET"
  rendezvous --nats nats://10.0.0.1:4222 --replicated --token-key key --allow JOBID`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.storeAsked = cmd.Flags().Changed("store-bytes")
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	c, f := &o.cfg, cmd.Flags()
	o.storeBytes, o.jobStoreBytes = 16<<30, 1<<30
	f.StringVar(&c.NATS, "nats", cli.Env("FNWIRE_RENDEZVOUS_NATS", ""), "URL of an existing NATS to serve on (env FNWIRE_RENDEZVOUS_NATS); default: embed one")
	f.StringVar(&c.Creds, "creds", cli.Env("FNWIRE_CREDS", ""), "NATS credentials file for --nats (env FNWIRE_CREDS)")
	f.StringVar(&c.Listen, "listen", cli.Env("FNWIRE_RENDEZVOUS_LISTEN", ""), "address of the embedded NATS (env FNWIRE_RENDEZVOUS_LISTEN; default 127.0.0.1:4222)")
	f.StringVar(&c.WebSocket, "websocket", cli.Env("FNWIRE_RENDEZVOUS_WEBSOCKET", ""), "address at which the embedded NATS takes WebSocket too, at ws://HOST:PORT, or wss:// with --tls-cert: on port 80 or 443 for networks that let out HTTP(S) alone (env FNWIRE_RENDEZVOUS_WEBSOCKET)")
	f.StringVar(&o.tlsCert, "tls-cert", cli.Env("FNWIRE_RENDEZVOUS_TLS_CERT", ""), "certificate file (PEM): the embedded NATS takes TLS only, at tls://HOST:PORT (env FNWIRE_RENDEZVOUS_TLS_CERT)")
	f.StringVar(&o.tlsKey, "tls-key", cli.Env("FNWIRE_RENDEZVOUS_TLS_KEY", ""), "key file (PEM) for --tls-cert (env FNWIRE_RENDEZVOUS_TLS_KEY)")
	f.StringVar(&c.DataDir, "data", cli.Env("FNWIRE_RENDEZVOUS_DATA", ""), "directory for the embedded JetStream and its stores (env FNWIRE_RENDEZVOUS_DATA); default: a temporary one, removed at exit, and no stores")
	f.StringArrayVar(&o.allow, "allow", nil, "admit the job with this ID; repeatable (env FNWIRE_ALLOW, separated by commas)")
	f.BoolVar(&c.Open, "open", false, "admit every job")
	f.StringArrayVar(&o.relays, "relay", nil, "hand out this relay, ID=ADDR:PORT[,STUN-ADDR:PORT...][,https://HOST:PORT/CERT-SHA256], as `relay --json` prints them; repeatable")
	f.StringVar(&c.RelaySecret, "relay-secret", "", "let relays that know this secret announce themselves (env FNWIRE_RELAY_SECRET)")
	f.Var(&o.storeBytes, "store-bytes", "keep states for who is not there (functions' nats: store), up to so many bytes in all; 0: none, as without --data unless this is given")
	f.Var(&o.jobStoreBytes, "store-job-bytes", "set aside so many of them for each job whose functions use the store")
	f.StringVar(&c.StorePassword, "store-password", "", "let user \"store\" with this password use JetStream (env FNWIRE_STORE_PASSWORD)")
	f.StringVar(&o.tokenKey, "token-key", cli.Env("FNWIRE_TOKEN_KEY", ""), "file with the key that signs relay tokens, made if absent (env FNWIRE_TOKEN_KEY); default: a new key at each start")
	f.DurationVar(&c.Lease, "lease", server.DefaultLease, "how long a name is held without renewal; with more than 3,000 names it grows in proportion, to 100 s")
	f.BoolVar(&c.Replicated, "replicated", false, "keep the table in a JetStream KV bucket that other copies share")
	f.IntVar(&c.Replicas, "replicas", 1, "replicas of that bucket")
	f.StringVar(&c.HTTP, "http", cli.Env("FNWIRE_RENDEZVOUS_HTTP", "127.0.0.1:8222"), "address of /healthz, /readyz and /metrics, or \"off\" (env FNWIRE_RENDEZVOUS_HTTP)")
	f.StringVar(&o.wakeFile, "wake-file", cli.Env("FNWIRE_WAKE_FILE", ""), "file (JSON) of HTTP hooks to call for names that are called and not held (env FNWIRE_WAKE_FILE)")
	f.BoolVar(&o.json, "json", false, "ready line and log as JSON")
	f.StringVar(&o.logLevel, "log-level", cli.Env("FNWIRE_LOG_LEVEL", "info"), "debug, info, warn or error (env FNWIRE_LOG_LEVEL)")
	return cmd
}

// complete turns flags and environment into cfg. Secrets come from the environment here and not as a
// flag's default, which --help would print.
func (o *options) complete(stderr io.Writer) (err error) {
	c := &o.cfg
	if c.RelaySecret == "" {
		c.RelaySecret = cli.Env("FNWIRE_RELAY_SECRET", "")
	}
	if c.StorePassword == "" && c.NATS == "" {
		c.StorePassword = cli.Env("FNWIRE_STORE_PASSWORD", "")
	}
	allow := o.allow
	if env := cli.Env("FNWIRE_ALLOW", ""); len(allow) == 0 && env != "" {
		allow = strings.Split(env, ",")
	}
	for _, s := range allow {
		id, err := job.ParseID(strings.TrimSpace(s))
		if err != nil {
			return cli.Usage(fmt.Errorf("--allow: %w", err))
		}
		c.Allow = append(c.Allow, id)
	}
	if len(c.Allow) == 0 && !c.Open {
		return cli.Usage(errors.New("no job is admitted: name jobs with --allow JOBID, or admit all with --open"))
	}
	for _, s := range o.relays {
		r, err := parseRelay(s)
		if err != nil {
			return cli.Usage(err)
		}
		c.Relays = append(c.Relays, r)
	}
	if c.Replicas < 1 || c.Replicas > bucket.MaxReplicas {
		return cli.Usage(fmt.Errorf("--replicas %d: want 1 to %d", c.Replicas, bucket.MaxReplicas))
	}
	if c.NATS == "" {
		c.JetStream = true
		if c.Listen == "" {
			c.Listen = "127.0.0.1:4222"
		}
	}
	if o.storeAsked || c.NATS == "" && c.DataDir != "" {
		c.StoreBytes, c.JobStoreBytes = int64(o.storeBytes), int64(o.jobStoreBytes)
	}
	if c.HTTP == "off" {
		c.HTTP = ""
	}
	if c.Logger, err = cli.Logger(stderr, o.logLevel, o.json); err != nil {
		return err
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return cli.Usage(errors.New("--tls-cert and --tls-key belong together"))
	}
	if o.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
		if err != nil {
			return cli.Usage(fmt.Errorf("--tls-cert: %w", err))
		}
		c.Certificate = &cert
	}
	if o.wakeFile != "" {
		if c.Hooks, err = wake.Load(o.wakeFile); err != nil {
			return cli.Usage(fmt.Errorf("--wake-file: %w", err))
		}
	}
	if o.tokenKey != "" {
		c.TokenKey, err = server.LoadTokenKey(o.tokenKey)
	}
	return err
}

func parseRelay(s string) (rendezvous.RelayInfo, error) {
	id, addrs, _ := strings.Cut(s, "=")
	r := rendezvous.RelayInfo{ID: id}
	for i, one := range strings.Split(addrs, ",") {
		if https, ok := strings.CutPrefix(one, "https://"); ok && i > 0 {
			at, hash, _ := strings.Cut(https, "/")
			sum, err := hex.DecodeString(hash)
			if err != nil || len(sum) != sha256.Size || r.HTTPS != "" {
				return r, fmt.Errorf("--relay %q: want one https://HOST:PORT/ and the SHA-256 of the certificate there in hex (`relay --json` prints it)", s)
			}
			r.HTTPS, r.CertSHA256 = at, sum
			continue
		}
		a, err := netip.ParseAddrPort(one)
		if err != nil {
			return r, fmt.Errorf("--relay %q: want ID=ADDR:PORT with an IP address: %w", s, err)
		}
		if i == 0 {
			r.Addr = a
		}
		r.STUN = append(r.STUN, a) // a relay answers STUN on its main port
	}
	if err := r.Check(); err != nil {
		return r, fmt.Errorf("--relay %q: %w", s, err)
	}
	return r, nil
}

// readyLine is what --json prints on stdout once requests are answered.
type readyLine struct {
	Ready     bool   `json:"ready"`
	URL       string `json:"url"`
	WebSocket string `json:"websocket,omitempty"` // URL of the same over WebSocket
	HTTP      string `json:"http,omitempty"`
	TokenKey  string `json:"token_key"` // for `relay --token-key`
}

func (o *options) run(ctx context.Context, stdout, stderr io.Writer) error {
	server.TuneGC()
	if err := o.complete(stderr); err != nil {
		return err
	}
	s, err := server.New(o.cfg)
	if err != nil {
		return cli.Usage(err)
	}
	if o.wakeFile != "" {
		defer o.reloadOnHangup(s)()
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-s.Ready():
	}
	line := readyLine{Ready: true, URL: rendezvous.RedactURL(s.URL()), WebSocket: s.WebSocketURL(), HTTP: s.HTTPAddr(), TokenKey: base64.StdEncoding.EncodeToString(s.TokenKey())}
	if o.json {
		err = cli.PrintJSON(stdout, line)
	} else {
		urls := line.URL
		if line.WebSocket != "" {
			urls += " and " + line.WebSocket
		}
		_, err = fmt.Fprintf(stdout, "rendezvous ready: %s (health and metrics: %s; token key: %s)\n", urls, orNone(line.HTTP), line.TokenKey)
	}
	if err != nil { // nobody reads; serve all the same
		o.cfg.Logger.Warn("ready line not printed", "err", err)
	}
	return <-done
}

// reloadOnHangup reads the hooks again on SIGHUP, until stop is called. A file with a mistake changes nothing.
func (o *options) reloadOnHangup(s *server.Server) (stop func()) {
	hangup, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Ignore(syscall.SIGHUP) // it ends the program no more, as cli.Main has it
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hangup {
			hooks, err := wake.Load(o.wakeFile)
			if err != nil {
				o.cfg.Logger.Error("rendezvous: wake hooks not read again; the old ones stay", "err", err)
				continue
			}
			s.SetHooks(hooks)
			o.cfg.Logger.Info("rendezvous: wake hooks read again", "hooks", hooks.Len())
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(hangup)
		<-done
	}
}

func orNone(addr string) string {
	if addr == "" {
		return "none"
	}
	return "http://" + addr
}
