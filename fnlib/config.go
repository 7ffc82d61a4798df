package fnlib

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/transport"
)

// Environment variables that FromEnv reads.
const (
	EnvURL    = "FNWIRE_URL"     // NATS servers, separated by commas
	EnvCreds  = "FNWIRE_CREDS"   //nolint:gosec // G101: the name of a variable with the path of the NATS credentials file, optional
	EnvJob    = "FNWIRE_JOB"     // label of the job, for people only
	EnvJobKey = "FNWIRE_JOB_KEY" // the job key in base64
	EnvName   = "FNWIRE_NAME"    // this function's name in the job
	EnvStore  = "FNWIRE_STORE"   // URL of the store; FromEnv leaves it to fnlib/store/open, which links every driver

	EnvPortMap = "FNWIRE_PORTMAP" // 1: ask the router for a port
	EnvEarly   = "FNWIRE_EARLY"   // bytes; see Config.EarlyBytes
	EnvWindow  = "FNWIRE_WINDOW"  // bytes; see Config.Window
)

// Config says what to join. URL, JobKey and Name are required.
type Config struct {
	// URL of the rendezvous' NATS servers, separated by commas: nats://host:4222, or ws:// or wss:// for WebSocket, which
	// goes by the HTTP proxy of the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), as relays over HTTPS do.
	URL    string
	Creds  string // NATS credentials file; empty: the job key vouches for the connection
	Job    string // label of the job in logs and receipts; it proves nothing
	JobKey string // 32 bytes in base64, as `fnwire keygen` prints; all functions of the job share it
	Name   string // 1 to 64 letters, digits, '-' and '_'

	// Exclusive makes Join fail while another instance holds the name. Otherwise the newest instance
	// takes the name over and the older one is closed with ErrFenced.
	Exclusive bool
	// Logger gets what the node does; nil is silence. Keys and tokens are never logged, addresses and
	// identities at debug level only.
	Logger *slog.Logger
	// Metrics is told of what happens; nil is nobody.
	Metrics Metrics
	// Call names functions that this one calls at once. Offers to the first four go with the join, which brings
	// the first byte there two round trips sooner. A call that nobody waits for is given up after ten seconds.
	Call []string
	// Store keeps states whose receiver is not there in time, and is looked into for states when the node has joined. All
	// functions of the job that send or receive such states need the same one. It is not closed by the node. Nil: none.
	Store store.Store
	// SpillAfter is how long Send tries to reach a receiver before it stores the state; 0 is 5 s.
	SpillAfter time.Duration
	// PutMemory is how many bytes of the states of Put stay in memory, all together; 0 is 16 MiB. The rest goes to temporary files.
	PutMemory int64
	// StoreTTL is how long a stored state waits for its receiver; 0 is a day.
	StoreTTL time.Duration
	// Grace is how long Close may take to store what was not delivered, and to wait for peers to read what was written; 0 is 2 s. On
	// Lambda it must be less: see the section on platforms that freeze.
	Grace time.Duration
	// NoCompress has states sent as they are. Otherwise each chunk of a state is compressed if, by a sample of it and the rate at which
	// its link takes bytes, that makes the transfer faster.
	NoCompress bool
	// EarlyBytes is up to how many bytes a state goes by the rendezvous, sealed with the job's key, to a function that there is no link with
	// yet: there in one round trip, without a handshake, and without a link if the receiver accepts it at once. At most MaxEarly; 0: none does.
	// Only what need not be waited for goes early (a bytes.Reader, bytes.Buffer or strings.Reader), not with DirectOnly, and to the same
	// name four times: the fifth makes a link, unless it comes a minute after the fourth.
	EarlyBytes int
	// Window is how many bytes of a state, or of a connection of Dial or Listen, may be on their way or unread here at most, from MinWindow to MaxWindow;
	// 0 is MaxWindow, of which each gets as much as it is read for. It bounds the memory that is taken by what is not read, and how fast each can come: a
	// window each round trip. Where round trips are short and lines slow, as between functions of one region, little is enough (96 KiB on a line of 75 MB/s
	// in 1 ms), and is better for who reads several states side by side: they share its line as it reads them, and wait in no long queue. Over 100 ms
	// the same window lets 1 MB/s through.
	Window int
	// Listen is the local UDP address; the zero value is every interface and a free port.
	Listen netip.AddrPort
	// PortMap asks the router for a port, by PCP, NAT-PMP or UPnP: behind a home's NAT, strangers to it can then link directly. It
	// takes a few packets to the default gateway, and for UPnP a search on its network and some HTTP with it; nothing waits for them.
	PortMap bool
	// NoIPv6 leaves IPv6 out.
	NoIPv6 bool
}

// FromEnv reads a Config from the environment (FNWIRE_URL, FNWIRE_CREDS, FNWIRE_JOB, FNWIRE_JOB_KEY,
// FNWIRE_NAME, FNWIRE_PORTMAP, FNWIRE_EARLY, FNWIRE_WINDOW). Join tells what is missing.
func FromEnv() Config {
	return Config{
		URL:    os.Getenv(EnvURL),
		Creds:  os.Getenv(EnvCreds),
		Job:    os.Getenv(EnvJob),
		JobKey: os.Getenv(EnvJobKey),
		Name:   os.Getenv(EnvName),

		PortMap:    os.Getenv(EnvPortMap) == "1",
		EarlyBytes: bytesOf(os.Getenv(EnvEarly)),
		Window:     bytesOf(os.Getenv(EnvWindow)),
	}
}

// The bounds of Config.Window.
const (
	MinWindow = 16 << 10
	MaxWindow = transport.MaxWindow
)

// bytesOf reads a number of bytes. What is none is -1, which check refuses.
func bytesOf(s string) int {
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

func (c *Config) check() (job.Key, error) {
	if c.URL == "" {
		return job.Key{}, fmt.Errorf("no rendezvous URL: set Config.URL or %s (`fnwire dev` prints one)", EnvURL)
	}
	if c.JobKey == "" {
		return job.Key{}, fmt.Errorf("no job key: set Config.JobKey or %s (`fnwire keygen` makes one)", EnvJobKey)
	}
	if err := job.CheckName(c.Name); err != nil {
		return job.Key{}, fmt.Errorf("%w: %w (set Config.Name or %s)", ErrName, err, EnvName)
	}
	if c.EarlyBytes < 0 || c.EarlyBytes > MaxEarly {
		return job.Key{}, fmt.Errorf("Config.EarlyBytes or %s is not from 0 to %d", EnvEarly, MaxEarly)
	}
	if c.Window != 0 && (c.Window < MinWindow || c.Window > MaxWindow) {
		return job.Key{}, fmt.Errorf("Config.Window or %s is not from %d to %d, nor 0", EnvWindow, MinWindow, MaxWindow)
	}
	for _, name := range c.Call {
		if err := job.CheckName(name); err != nil {
			return job.Key{}, fmt.Errorf("%w: %w (in Config.Call)", ErrName, err)
		}
	}
	return job.ParseKey(c.JobKey)
}

// Metrics is told of events. Its methods may be called at the same time and must not block; Linked may be called a moment late, and may
// close the node.
type Metrics interface {
	// Linked: a link to a peer is up.
	Linked(LinkEvent)
	// Sent and Received: a transfer has ended, well or badly.
	Sent(Receipt, error)
	Received(from, key string, bytes int64, took time.Duration, err error)
}

// LinkEvent describes a new link.
type LinkEvent struct {
	Peer string        // name
	Path string        // "relay" or "direct"
	Took time.Duration // from the call; 0 if the peer called
}

// Path is a policy: which ways a link may use.
type Path = transport.Class

// The policies. The default is Auto.
const (
	Auto       = transport.Auto       // over the relay at once, directly as soon as possible
	DirectOnly = transport.DirectOnly // never over a relay; fails where NATs cannot be punched
	RelayOnly  = transport.RelayOnly  // never directly
)

// ParsePath reads "auto", "direct" or "relay".
func ParsePath(s string) (Path, error) {
	for _, p := range []Path{Auto, DirectOnly, RelayOnly} {
		if s == p.String() {
			return p, nil
		}
	}
	return 0, fmt.Errorf("path %q: want auto, direct or relay", s)
}

// Errors that callers branch on, with errors.Is.
var (
	// ErrName: a name is illegal.
	ErrName = errors.New("illegal name")
	// ErrClosed: the node was closed.
	ErrClosed = errors.New("fnlib: node is closed")
	// ErrFenced: a newer instance has taken the node's name; the node is closed.
	ErrFenced = errors.New("fnlib: a newer instance has taken this name")
	// ErrNotListening: the peer does not listen for the service that was dialled.
	ErrNotListening = errors.New("fnlib: the peer does not listen for this service")
	// ErrRejected: the receiving application refused the state.
	ErrRejected = errors.New("fnlib: state rejected by the receiver")
	// ErrDigest: the bytes received are not the bytes sent.
	ErrDigest = errors.New("fnlib: digest mismatch")
	// ErrLink: the link to the peer broke before the peer confirmed.
	ErrLink = errors.New("fnlib: link to the peer is lost")
	// ErrStore: a state could not be stored, or not be read from the store.
	ErrStore = errors.New("fnlib: store")
	// ErrNoDirect: there is no direct path and the policy allows no other.
	ErrNoDirect = transport.ErrNoDirect
)
