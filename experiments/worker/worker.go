package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fnwire/fnwire/experiments/crowd"
	"github.com/fnwire/fnwire/experiments/flood"
	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/coturn"
	"github.com/fnwire/fnwire/experiments/peer/plainquic"
	"github.com/fnwire/fnwire/experiments/peer/tlstcp"
	"github.com/fnwire/fnwire/experiments/rpc"
	rendezvousserver "github.com/fnwire/fnwire/rendezvous/server"
)

// The protocol is that of package rpc.
type (
	op = rpc.Op
	// None stands for no arguments or no result.
	None = rpc.None
	// Usage is what a process has used since its start.
	Usage = rpc.Usage
)

// ErrGone is wrapped by the errors of [Client.Call] when the process has ended.
var ErrGone = rpc.ErrGone

func handle[A, R any](f func(context.Context, A) (R, error)) op { return rpc.Handle(f) }

// Client is the harness's end of a worker. Its methods may be called from several goroutines.
type Client struct{ *rpc.Client }

// NewClient talks to a worker over its standard input and output. Its goroutine ends when out does.
func NewClient(in io.Writer, out io.Reader) *Client { return &Client{rpc.NewClient(in, out)} }

// Role is what a process is.
type Role string

// The roles.
const (
	Function   Role = "function"
	Rendezvous Role = "rendezvous"
	Relay      Role = "relay"
	NATS       Role = "nats" // a member of a cluster
	Attacker   Role = "attacker"
	Crowd      Role = "crowd"   // many instances, without links
	Service    Role = "service" // in front of a store
	Peer       Role = "peer"    // of the programs that this one has built in; its protocol is that of package peer
)

// Roles returns every role.
func Roles() []Role { return []Role{Function, Rendezvous, Relay, NATS, Attacker, Crowd, Service, Peer} }

// Run is the life of a worker process: it answers requests from in on out until in ends.
func Run(ctx context.Context, role Role, in io.Reader, out io.Writer) error {
	var ops map[string]op
	var stop func() error
	switch role {
	case Function:
		f := &function{}
		ops, stop = f.ops(), f.stop
	case Rendezvous:
		r := &daemon{}
		ops, stop = map[string]op{opRendezvous: handle(r.rendezvous)}, r.stop
	case Relay:
		in = untilSIGTERM(in)
		r := &daemon{}
		ops, stop = map[string]op{opRelay: handle(r.relay), opForwarded: handle(r.forwarded)}, r.stop
	case Service:
		d := &daemon{}
		ops, stop = map[string]op{opService: handle(d.service)}, d.stop
	case NATS:
		m := &natsMember{}
		ops, stop = map[string]op{opNATS: handle(m.start)}, m.stop
	case Attacker:
		ops, stop = map[string]op{opFlood: handle(flood.Run)}, func() error { return nil }
	case Crowd:
		rendezvousserver.TuneGC() // for the same reason
		c := &crowd.Crowd{}
		ops, stop = map[string]op{
			opCrowdJoin: handle(c.Join), opCrowdOffer: handle(c.Offer), opCrowdState: handle(c.State), opCrowdBind: handle(c.Bind), opCrowdForward: handle(c.Forward),
		}, c.Close
	case Peer:
		return peer.Run(ctx, builtin(), in, out)
	default:
		return fmt.Errorf("worker: no role %q", role)
	}
	return errors.Join(rpc.Serve(ctx, in, out, ops), stop())
}

// untilSIGTERM returns what ends when in does or a SIGTERM comes, for the input of a process: a goroutine reads on after the signal.
func untilSIGTERM(in io.Reader) io.Reader {
	r, w := io.Pipe()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		_, err := io.Copy(w, in)
		_ = w.CloseWithError(err)
		close(ended)
	}()
	go func() {
		defer signal.Stop(signals)
		select {
		case <-signals:
			_ = w.Close()
		case <-ended:
		}
	}()
	return r
}

const opFlood = "flood"

// Flood has a worker of the role Attacker send datagrams, and returns when it has.
func (c *Client) Flood(ctx context.Context, a flood.Args) (r flood.Report, err error) {
	return r, c.Call(ctx, opFlood, a, &r)
}

// The peers that this program has built in.
const (
	PeerPlainQUIC = "plain-quic"
	PeerTLS       = "tls-tcp"
	PeerCoturn    = "coturn" // a server
)

func builtin() peer.Program {
	return peer.Program{
		Ends:    map[string]func() peer.End{PeerPlainQUIC: plainquic.New, PeerTLS: tlstcp.New},
		Servers: map[string]func(context.Context, netip.AddrPort) (peer.Server, string, error){PeerCoturn: coturn.Serve},
	}
}

// now is the time of day as the protocol has it.
func now() int64 { return time.Now().UnixNano() }
