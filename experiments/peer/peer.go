// Package peer is what other people's transports are driven by, so that all carry the same state (package onestream) and are
// measured in the same way. A program has ends, which send or receive a state, and servers, which some ends need. Programs
// whose libraries do not go together with fnwire's are modules of their own below this directory; [Build] builds them.
//
// What one end must tell the other is opaque text, which the harness carries: no peer has signalling.
package peer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/rpc"
	"github.com/fnwire/fnwire/experiments/workload"
)

// End is one end of a connection that is made for one state or several.
type End interface {
	// Open makes the end ready and returns what the other must know.
	Open(context.Context, OpenArgs) (string, error)
	// Connect connects to the other end, which does the same at the same time.
	Connect(ctx context.Context, other string) error
	// OpenStream opens a stream; AcceptStream waits for one that the other end has opened.
	OpenStream(context.Context) (Stream, error)
	AcceptStream(context.Context) (Stream, error)
	// Packets returns how many packets have been sent and received; zeros where nobody counts.
	Packets() (sent, received uint64)
	Close() error
}

// Stream is a stream that ends at once when Abort is called, from any goroutine.
type Stream interface {
	onestream.Stream
	Abort()
}

// Server is a server that serves from when it was made until Close.
type Server interface {
	// Usage adds what processes of its own have used.
	Usage(context.Context) (rpc.Usage, error)
	Close() error
}

// OpenArgs say what an end is to be.
type OpenArgs struct {
	Receives bool       `json:"receives"` // else it sends
	Public   netip.Addr `json:"public"`   // the address that others see; its NAT keeps ports
	Server   string     `json:"server"`   // what the server said; empty without one
	Relayed  bool       `json:"relayed"`  // stay on the server's relay
	Early    bool       `json:"early"`    // connected is who has any way to the other end: see Upgrader
}

// Upgrader is an End that begins on the server's relay and may find a direct way later.
type Upgrader interface {
	End
	// Direct tells whether a stream that is opened now goes directly.
	Direct() bool
}

// Program is what a process can be.
type Program struct {
	Ends    map[string]func() End
	Servers map[string]func(ctx context.Context, listen netip.AddrPort) (s Server, said string, err error)
}

const (
	opServe   = "serve"
	opServed  = "served"
	opOpen    = "open"
	opConnect = "connect"
	opSend    = "send"
	opReceive = "receive"
	opPackets = "packets"
	opDirect  = "direct"

	directPace = 5 * time.Millisecond
)

type (
	serveArgs struct {
		Kind   string         `json:"kind"`
		Listen netip.AddrPort `json:"listen"`
	}
	openArgs struct {
		Kind string `json:"kind"`
		OpenArgs
	}
	connectArgs struct {
		Other string `json:"other"`
	}
	// StreamArgs say what is sent, or how it is checked.
	StreamArgs struct {
		Check  onestream.Check `json:"check"`
		Source workload.Source `json:"source,omitempty"`
	}
	// Sent is a state that was sent. Times are nanoseconds since 1970.
	Sent struct {
		Began  int64  `json:"began"`
		Ended  int64  `json:"ended"`
		Digest string `json:"digest"`
	}
	// Received is a state that has come.
	Received struct {
		Bytes  int64  `json:"bytes"`
		Digest string `json:"digest"`
		First  int64  `json:"first"`
		Last   int64  `json:"last"`
	}
	directArgs struct {
		Wait time.Duration `json:"wait"`
	}
	// Direct says how an end is connected, and since when, in nanoseconds since 1970.
	Direct struct {
		Direct bool  `json:"direct"`
		At     int64 `json:"at"`
	}
	// Packets is what an end has counted.
	Packets struct {
		Sent     uint64 `json:"sent"`
		Received uint64 `json:"received"`
	}
)

// Run is the life of a process: it answers requests from in on out until in ends.
func Run(ctx context.Context, p Program, in io.Reader, out io.Writer) error {
	h := &host{program: p}
	return errors.Join(rpc.Serve(ctx, in, out, map[string]rpc.Op{
		opServe: rpc.Handle(h.serve), opServed: rpc.Handle(h.served), opOpen: rpc.Handle(h.open), opConnect: rpc.Handle(h.connect),
		opSend: rpc.Handle(h.send), opReceive: rpc.Handle(h.receive), opPackets: rpc.Handle(h.packets),
		opDirect: rpc.Handle(h.direct),
	}), h.close())
}

type host struct {
	program Program

	mu     sync.Mutex // guards what follows
	end    End
	server Server
}

func kinds[V any](m map[string]V) string { return strings.Join(slices.Sorted(maps.Keys(m)), ", ") }

func (h *host) serve(ctx context.Context, a serveArgs) (string, error) {
	make := h.program.Servers[a.Kind]
	if make == nil {
		return "", fmt.Errorf("no server %q: there are %s", a.Kind, kinds(h.program.Servers))
	}
	s, said, err := make(ctx, a.Listen)
	if err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.server != nil {
		return "", errors.Join(errors.New("serves already"), s.Close())
	}
	h.server = s
	return said, nil
}

func (h *host) served(ctx context.Context, _ rpc.None) (rpc.Usage, error) {
	h.mu.Lock()
	s := h.server
	h.mu.Unlock()
	if s == nil {
		return rpc.Usage{}, errors.New("does not serve")
	}
	return s.Usage(ctx)
}

func (h *host) open(ctx context.Context, a openArgs) (string, error) {
	make := h.program.Ends[a.Kind]
	if make == nil {
		return "", fmt.Errorf("no end %q: there are %s", a.Kind, kinds(h.program.Ends))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end != nil {
		return "", errors.New("is open already")
	}
	h.end = make()
	return h.end.Open(ctx, a.OpenArgs)
}

func (h *host) opened() (End, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end == nil {
		return nil, errors.New("is not open")
	}
	return h.end, nil
}

func (h *host) connect(ctx context.Context, a connectArgs) (rpc.None, error) {
	e, err := h.opened()
	if err != nil {
		return rpc.None{}, err
	}
	return rpc.None{}, e.Connect(ctx, a.Other)
}

func (h *host) send(ctx context.Context, a StreamArgs) (Sent, error) {
	r := Sent{Began: time.Now().UnixNano()}
	e, err := h.opened()
	if err != nil {
		return r, err
	}
	s, err := e.OpenStream(ctx)
	if err != nil {
		return r, err
	}
	defer context.AfterFunc(ctx, s.Abort)()
	src := a.Source.Open()
	defer src.Close()
	sum, err := onestream.Send(s, src, a.Source.Size(), a.Check)
	r.Ended, r.Digest = time.Now().UnixNano(), hex.EncodeToString(sum)
	return r, err
}

func (h *host) receive(ctx context.Context, a StreamArgs) (Received, error) {
	e, err := h.opened()
	if err != nil {
		return Received{}, err
	}
	s, err := e.AcceptStream(ctx)
	if err != nil {
		return Received{}, err
	}
	defer context.AfterFunc(ctx, s.Abort)()
	rc, err := onestream.Receive(s, a.Check)
	r := Received{Bytes: rc.Bytes, Digest: hex.EncodeToString(rc.Sum), Last: rc.Last.UnixNano()}
	if rc.Bytes > 0 {
		r.First = rc.First.UnixNano()
	}
	return r, err
}

func (h *host) packets(context.Context, rpc.None) (Packets, error) {
	e, err := h.opened()
	if err != nil {
		return Packets{}, err
	}
	var p Packets
	p.Sent, p.Received = e.Packets()
	return p, nil
}

func (h *host) direct(ctx context.Context, a directArgs) (Direct, error) {
	e, err := h.opened()
	if err != nil {
		return Direct{}, err
	}
	u, ok := e.(Upgrader)
	if !ok {
		return Direct{}, errors.New("has one way only")
	}
	for until := time.Now().Add(a.Wait); ; {
		d := Direct{u.Direct(), time.Now().UnixNano()}
		if d.Direct || time.Now().After(until) {
			return d, nil
		}
		select {
		case <-time.After(directPace):
		case <-ctx.Done():
			return d, ctx.Err()
		}
	}
}

func (h *host) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var err error
	if h.end != nil {
		err = h.end.Close()
	}
	if h.server != nil {
		err = errors.Join(err, h.server.Close())
	}
	return err
}

// Client is the harness's end of a process that runs Run.
type Client struct{ *rpc.Client }

// Serve starts a server and returns what it has to say to ends.
func (c Client) Serve(ctx context.Context, kind string, listen netip.AddrPort) (said string, err error) {
	return said, c.Call(ctx, opServe, serveArgs{kind, listen}, &said)
}

// Served returns what a server has used, with its own processes.
func (c Client) Served(ctx context.Context) (u rpc.Usage, err error) {
	return u, c.Call(ctx, opServed, rpc.None{}, &u)
}

// Open opens the process's one end.
func (c Client) Open(ctx context.Context, kind string, a OpenArgs) (says string, err error) {
	return says, c.Call(ctx, opOpen, openArgs{kind, a}, &says)
}

// Connect connects it to the other end.
func (c Client) Connect(ctx context.Context, other string) error {
	return c.Call(ctx, opConnect, connectArgs{other}, nil)
}

// Send sends a state and waits until the other end has it.
func (c Client) Send(ctx context.Context, a StreamArgs) (s Sent, err error) {
	return s, c.Call(ctx, opSend, a, &s)
}

// Receive waits for the next state.
func (c Client) Receive(ctx context.Context, check onestream.Check) (r Received, err error) {
	return r, c.Call(ctx, opReceive, StreamArgs{Check: check}, &r)
}

// Direct waits for an end that is an Upgrader to be connected directly, and returns how it is then, or after wait.
func (c Client) Direct(ctx context.Context, wait time.Duration) (d Direct, err error) {
	return d, c.Call(ctx, opDirect, directArgs{wait}, &d)
}

// Packets returns what the end has counted.
func (c Client) Packets(ctx context.Context) (p Packets, err error) {
	return p, c.Call(ctx, opPackets, rpc.None{}, &p)
}
