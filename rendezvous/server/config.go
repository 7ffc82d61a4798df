package server

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/bucket"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

// Limits bound what the service keeps and does; zero fields get the default.
type Limits struct {
	Connections int // NATS connections of the embedded server; 65,536
	Names       int // records of one job: held names and names with parked offers; 16,384
	AllNames    int // of all jobs; 262,144
	JobBytes    int // memory for one job's records; 32 MiB
	AllBytes    int // for all jobs; 256 MiB
	Waits       int // waits held for one job; 8,192
	AllWaits    int // for all jobs; 65,536
	Concurrent  int // requests worked on at a time; 256
	Wakes       int // wake hooks called at a time; 256
}

// DefaultLease is how long a name is held without a renewal, unless there are very many.
const DefaultLease = 30 * time.Second

const (
	manyNames = 3000              // beyond which leases grow with the names, so that there are no more renewals a second
	longLease = 100 * time.Second // the most that they grow to: clients renew every 50 s at least, however long the lease
)

// leaseAmong is the lease of a name among so many, if it is base among few.
func leaseAmong(names int, base time.Duration) time.Duration {
	grown := time.Duration(float64(base) * float64(names) / manyNames)
	return max(base, min(grown, longLease))
}

const (
	minLease        = 300 * time.Millisecond
	maxLease        = 24 * time.Hour
	defaultJobStore = 1 << 30
)

// Config of a Server. The zero value is refused: it admits no job.
type Config struct {
	// NATS is the URL of an existing NATS; empty embeds one.
	NATS  string
	Creds string // NATS credentials file for it

	Listen     string // TCP address of the embedded NATS; empty is 127.0.0.1:0
	DontListen bool   // embedded NATS only for connections by InProcessConn
	// Certificate, if set, makes the embedded NATS speak TLS only: URL is tls://HOST:PORT then, and functions need one
	// with the name or address in the certificate, which their system must trust.
	Certificate *tls.Certificate
	// WebSocket is another TCP address of the embedded NATS, which takes the same connections over WebSocket: ws://HOST:PORT, or
	// wss:// with a Certificate. On ports 80 and 443 it serves networks that let out HTTP(S) alone. Empty: none.
	WebSocket string
	DataDir   string // JetStream's; empty makes a temporary directory, removed at the end
	JetStream bool   // run JetStream in the embedded NATS; implied by StoreBytes, StorePassword and Replicated

	// StoreBytes has the embedded NATS keep a store for each job (package rendezvous/bucket), with an account of its own that no other
	// reaches, and bounds all of them together; what the disk has may be less. A job's store has JobStoreBytes, all of which
	// are set aside for it, and is gone when it has been empty and without a connection for ten minutes. 0: no stores.
	StoreBytes    int64
	JobStoreBytes int64 // 0 is 1 GiB, or StoreBytes if that is less

	// StorePassword adds the user "store", who may use JetStream and nothing of fnwire.
	StorePassword string

	Allow []job.ID // jobs admitted
	Open  bool     // admit every job

	Relays      []rendezvous.RelayInfo // that do not announce themselves
	RelaySecret string                 // lets relays announce themselves; empty: none can

	TokenKey ed25519.PrivateKey // signs relay tokens; nil makes one. Copies must share it.
	TokenTTL time.Duration      // least time that a token handed out still holds; 0 is 5 min

	// Replicated keeps the table in a JetStream KV bucket, so that other copies may share it. It is
	// for an existing NATS with JetStream.
	Replicated bool
	Replicas   int           // of the bucket; 0 is 1
	Lease      time.Duration // of a name, among up to 3,000: with more it grows in proportion, to 100 s; 0 is 30 s

	Hooks *wake.Hooks // called for names that nobody holds; nil: none. See Server.SetHooks. Copies should have the same
	// HookTransport is how hooks are called; nil: by HTTP/1.1 or 2, through the proxies of the environment.
	HookTransport http.RoundTripper

	HTTP   string // TCP address of health and metrics; empty serves none
	Limits Limits
	Logger *slog.Logger // nil discards
}

// config is a Config that New has checked and completed.
type config struct {
	Config
	allowed     map[job.ID]bool
	relaySecret *rendezvous.RelaySecret
}

func (c *config) admits(id job.ID) bool { return c.Open || c.allowed[id] }

func complete(in Config) (*config, error) {
	c := &config{Config: in, allowed: make(map[job.ID]bool)}
	for _, id := range in.Allow {
		c.allowed[id] = true
	}
	if !c.Open && len(c.allowed) == 0 {
		return nil, errors.New("no job is admitted: allow jobs by ID (--allow), or every job (--open)")
	}
	if c.NATS != "" && (c.DontListen || c.StorePassword != "" || c.StoreBytes != 0 || c.JetStream) {
		return nil, errors.New("an existing NATS has its own listener, users and JetStream: configure them there")
	}
	if c.Certificate != nil && (c.NATS != "" || c.DontListen) {
		return nil, errors.New("a certificate is for an embedded NATS that listens")
	}
	if c.WebSocket != "" && (c.NATS != "" || c.DontListen) {
		return nil, errors.New("WebSocket is for an embedded NATS that listens")
	}
	if c.DontListen && c.Listen != "" {
		return nil, errors.New("Listen and DontListen exclude each other")
	}
	if c.StoreBytes < 0 || c.JobStoreBytes < 0 || c.StoreBytes > 0 && c.StoreBytes < minStore || c.JobStoreBytes > 0 && c.JobStoreBytes < minStore {
		return nil, fmt.Errorf("stores of %d bytes, of which each job gets %d: want %d at least", c.StoreBytes, c.JobStoreBytes, minStore)
	}
	for i := range c.Relays {
		if err := c.Relays[i].Check(); err != nil {
			return nil, err
		}
	}
	if len(c.Relays) > maxRelays {
		return nil, fmt.Errorf("%d relays, at most %d", len(c.Relays), maxRelays)
	}
	if c.RelaySecret != "" {
		secret, err := rendezvous.NewRelaySecret(c.RelaySecret)
		if err != nil {
			return nil, err
		}
		c.relaySecret = &secret
	}
	if c.TokenKey == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		c.TokenKey = key
	}
	if c.Lease != 0 && (c.Lease < minLease || c.Lease > maxLease) {
		return nil, fmt.Errorf("lease of %v: want %v to %v", c.Lease, minLease, maxLease)
	}
	if c.Replicas < 0 || c.Replicas > bucket.MaxReplicas {
		return nil, fmt.Errorf("%d replicas: want 1 to %d", c.Replicas, bucket.MaxReplicas)
	}
	c.Listen = cmp.Or(c.Listen, "127.0.0.1:0")
	c.TokenTTL = cmp.Or(c.TokenTTL, 5*time.Minute)
	c.Lease = cmp.Or(c.Lease, DefaultLease)
	c.JobStoreBytes = cmp.Or(c.JobStoreBytes, defaultJobStore)
	c.Replicas = cmp.Or(c.Replicas, 1)
	l := &c.Limits
	l.Connections = cmp.Or(l.Connections, 1<<16)
	l.Names, l.AllNames = cmp.Or(l.Names, 1<<14), cmp.Or(l.AllNames, 1<<18)
	l.JobBytes, l.AllBytes = cmp.Or(l.JobBytes, 32<<20), cmp.Or(l.AllBytes, 256<<20)
	l.Waits, l.AllWaits = cmp.Or(l.Waits, 1<<13), cmp.Or(l.AllWaits, 1<<16)
	l.Concurrent, l.Wakes = cmp.Or(l.Concurrent, 256), cmp.Or(l.Wakes, 256)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
