// Package world raises what an experiment takes place in: a lab with a public host, on which a rendezvous (with NATS and
// its object store) and a relay run as processes of their own, and hosts behind NATs, on which functions do. All
// processes are this program again, as workers (package worker).
//
// A world ends with the process that made it, however that ends: the kernel takes the processes and the namespaces, and
// what servers have on disk is on a disk of the lab's, in memory. Nothing is left behind, and nothing of
// the machine outside is touched.
package world

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/wan"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/internal/job"
)

// Public is the name of the host that the servers run on.
const Public = "public"

const (
	natsPort  = 4222 // and those after, of further members of a cluster
	routePort = 6222 // likewise, between them
	wsPort    = 80   // NATS over WebSocket
	relayPort = 3478
	stunPort  = 3479
	httpsPort = 443
	relayID   = "relay-"

	storeBytes = 2 << 30 // of the rendezvous' own
)

// Config says what a world has.
type Config struct {
	Hosts []lab.Host // for functions; one named Public is added
	// Network has lines for those hosts, in turn, that have none of their own and share no NAT, and for the host Public. Seed is of what is random on them.
	Network wan.Profile
	Seed    uint64
	Relays  int // on the host Public; 0 is 1
	// NATS members of a cluster run on the host Public, instead of one in the rendezvous, and Copies of the rendezvous (0 is 1) on them.
	NATS, Copies int
	NoCompress   bool // functions send states as they are
	// Worker returns the command for a worker process; nil means this program with the arguments
	// that WorkerArgs returns.
	Worker func(worker.Role) *exec.Cmd
}

// WorkerCommand is the subcommand under which this program is a worker.
const WorkerCommand = "worker"

// WorkerArgs are the arguments with which a program that is a harness must become a worker.
func WorkerArgs(role worker.Role) []string { return []string{WorkerCommand, string(role)} }

// World is a lab with servers. Its methods may be called from several goroutines.
type World struct {
	cfg    Config
	lab    *lab.Lab
	key    job.Key
	url    string
	secret string // of relays
	serial atomic.Uint64

	tokens ed25519.PrivateKey // that the copies of the rendezvous sign relay tokens with

	mu         sync.Mutex // guards what follows
	nats       []*Proc
	rendezvous []*Proc
	relays     []*Proc
}

// New raises a world. lab.Enter must have been called. ctx bounds its making and its life: all its
// processes end with ctx.
func New(ctx context.Context, cfg Config) (*World, error) {
	if cfg.Worker == nil {
		cfg.Worker = func(r worker.Role) *exec.Cmd { return exec.Command("/proc/self/exe", WorkerArgs(r)...) }
	}
	l, err := lab.New(ctx, lab.Spec{Hosts: cfg.hosts(), Seed: cfg.Seed})
	if err != nil {
		return nil, fmt.Errorf("world: %w", err)
	}
	w := &World{
		cfg: cfg, lab: l, key: job.NewKey(), secret: rand.Text(), tokens: ed25519.NewKeyFromSeed(randomSeed()),
		nats: make([]*Proc, cfg.NATS), rendezvous: make([]*Proc, max(cfg.Copies, 1)), relays: make([]*Proc, max(cfg.Relays, 1)),
	}
	urls := make([]string, 0, max(cfg.NATS, 1))
	for i := range max(cfg.NATS, 1) {
		urls = append(urls, "nats://"+w.at(natsPort+i).String())
	}
	w.url = strings.Join(urls, ",")
	if err := w.startServers(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("world: %w", err), w.Close())
	}
	return w, nil
}

// hosts are those of the lab.
func (c Config) hosts() []lab.Host {
	all := append([]lab.Host{{Name: Public, Line: c.Network.Public}}, c.Hosts...)
	for i := range all[1:] {
		if h := &all[1+i]; h.With == "" && h.Line == (wan.Line{}) {
			h.Line = c.Network.Function(i)
		}
	}
	return all
}

func randomSeed() []byte {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails
	return seed
}

// at is a port of the host Public.
func (w *World) at(port int) netip.AddrPort {
	return netip.AddrPortFrom(w.lab.Addr(Public), uint16(port))
}

func (w *World) startServers(ctx context.Context) error {
	for _, some := range []struct {
		count int
		start func(ctx, starting context.Context, i int) error
	}{{len(w.nats), w.startNATS}, {len(w.rendezvous), w.startRendezvous}, {len(w.relays), w.startRelay}} {
		starting, sctx := errgroup.WithContext(ctx)
		for i := range some.count {
			starting.Go(func() error { return some.start(ctx, sctx, i) })
		}
		if err := starting.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// StartNATS starts the i-th member of the NATS cluster again after it has ended, with what it had on its disk. It ends with ctx.
func (w *World) StartNATS(ctx context.Context, i int) error { return w.startNATS(ctx, ctx, i) }

func (w *World) startNATS(ctx, starting context.Context, i int) error {
	p, err := w.start(ctx, Public, worker.NATS)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.nats[i] = p
	w.mu.Unlock()
	a := worker.NATSArgs{
		Name: fmt.Sprint("nats-", i+1), Listen: w.at(natsPort + i), Cluster: w.at(routePort + i), Dir: w.dir(fmt.Sprint("nats-", i+1)),
	}
	for j := range w.nats {
		if j != i {
			a.Routes = append(a.Routes, w.at(routePort+j))
		}
	}
	return p.explain(p.NATS(starting, a))
}

// dir is a directory that the world's processes find again when they are started again; empty if this machine allows none.
func (w *World) dir(name string) string {
	if !w.lab.HasDisk() {
		return ""
	}
	return filepath.Join(lab.Disk, name)
}

// StartRendezvous starts the first rendezvous again after it has ended. It ends with ctx. What it knew is gone, unless that is
// in a NATS of its own, but not its address and secrets.
func (w *World) StartRendezvous(ctx context.Context) error { return w.startRendezvous(ctx, ctx, 0) }

// StartCopy starts the i-th copy of the rendezvous again.
func (w *World) StartCopy(ctx context.Context, i int) error { return w.startRendezvous(ctx, ctx, i) }

func (w *World) startRendezvous(ctx, starting context.Context, i int) error {
	p, err := w.start(ctx, Public, worker.Rendezvous)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.rendezvous[i] = p
	w.mu.Unlock()
	a := worker.RendezvousArgs{RelaySecret: w.secret, TokenKey: w.tokens}
	if len(w.nats) > 0 {
		a.NATS, a.Replicas = w.url, len(w.nats)
	} else {
		a.Listen, a.WebSocket, a.StoreBytes = w.at(natsPort).String(), w.at(wsPort).String(), storeBytes
		a.DataDir = w.dir(w.FreshName("rendezvous")) // if there is none it makes one, and removes it at its end
	}
	return p.explain(p.Rendezvous(starting, a))
}

// StartRelay starts the i-th relay again after it has ended, at the same addresses. It ends with ctx.
func (w *World) StartRelay(ctx context.Context, i int) error { return w.startRelay(ctx, ctx, i) }

// startRelay starts a process that ends with ctx, and waits for it to serve as long as starting allows.
func (w *World) startRelay(ctx, starting context.Context, i int) error {
	p, err := w.start(ctx, Public, worker.Relay)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.relays[i] = p
	w.mu.Unlock()
	return p.explain(p.Relay(starting, worker.RelayArgs{
		ID: RelayID(i), Listen: w.at(relayPort + 2*i), STUN2: w.at(stunPort + 2*i), HTTPS: w.at(httpsPort + i), URL: w.url, Secret: w.secret,
	}))
}

// Lab is the world's lab.
func (w *World) Lab() *lab.Lab { return w.lab }

// Rendezvous is the process of the first rendezvous.
func (w *World) Rendezvous() *Proc { return w.CopyAt(0) }

// CopyAt is the process of the i-th copy of the rendezvous.
func (w *World) CopyAt(i int) *Proc {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rendezvous[i]
}

// NATSAt is the process of the i-th member of the NATS cluster.
func (w *World) NATSAt(i int) *Proc {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nats[i]
}

// Relay is the process of the first relay.
func (w *World) Relay() *Proc { return w.RelayAt(0) }

// RelayAt is the process of the i-th relay, whose ID is RelayID(i).
func (w *World) RelayAt(i int) *Proc {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.relays[i]
}

// RelayID is the ID of the i-th relay.
func RelayID(i int) string { return fmt.Sprint(relayID, i+1) }

// JoinArgsAt are JoinArgs for a function on a host, which may be one whose network lets out HTTP(S) alone.
func (w *World) JoinArgsAt(host, name string) worker.JoinArgs {
	a := w.JoinArgs(name)
	for _, h := range w.lab.Hosts() {
		if t, err := h.NAT.Traits(); h.Name == host && err == nil && t.Base == lab.HTTPSOnly {
			a.URL = "ws://" + netip.AddrPortFrom(w.lab.Addr(Public), wsPort).String()
		}
	}
	return a
}

// JoinArgs are those with which a function joins the world's job.
func (w *World) JoinArgs(name string) worker.JoinArgs {
	return worker.JoinArgs{URL: w.url, Key: w.key.Encode(), Name: name, NoCompress: w.cfg.NoCompress}
}

// FreshName returns a name that no function of the world has had, beginning with prefix.
func (w *World) FreshName(prefix string) string { return fmt.Sprintf("%s-%d", prefix, w.serial.Add(1)) }

// Function starts a function's process on a host. It ends with ctx.
func (w *World) Function(ctx context.Context, host string) (*Proc, error) {
	return w.start(ctx, host, worker.Function)
}

// Attacker starts a process on a host that floods others. It ends with ctx.
func (w *World) Attacker(ctx context.Context, host string) (*Proc, error) {
	return w.start(ctx, host, worker.Attacker)
}

// Crowd starts a process on a host that is many instances. It ends with ctx.
func (w *World) Crowd(ctx context.Context, host string) (*Proc, error) {
	return w.start(ctx, host, worker.Crowd)
}

// RelayAddr is where the i-th relay listens.
func (w *World) RelayAddr(i int) netip.AddrPort {
	return w.at(relayPort + 2*i)
}

// Pair starts a function's process on each of two hosts, at the same time.
func (w *World) Pair(ctx context.Context, hostA, hostB string) (a, b *Proc, err error) {
	var starting errgroup.Group
	starting.Go(func() (err error) { a, err = w.Function(ctx, hostA); return err })
	starting.Go(func() (err error) { b, err = w.Function(ctx, hostB); return err })
	if err := starting.Wait(); err != nil {
		for _, p := range []*Proc{a, b} {
			if p != nil {
				p.Kill()
			}
		}
		return nil, nil, err
	}
	return a, b, nil
}

// Close ends all processes and the lab. It may be called more than once.
func (w *World) Close() error { return w.lab.Close() }

// WorkerMain is for the TestMain of harnesses: if args are those of a worker it is one, and returns its exit code.
func WorkerMain(args []string) (exit int, isWorker bool) {
	if len(args) != 3 || args[1] != WorkerCommand {
		return 0, false
	}
	if err := worker.Run(context.Background(), worker.Role(args[2]), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}
