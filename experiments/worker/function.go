package worker

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/fnwire/fnwire/experiments/rpc"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store"
)

const (
	opJoin    = "join"
	opSend    = "send"
	opReceive = "receive"
	opPath    = "path"

	copyBytes = 256 << 10
	pingPace  = 2 * time.Millisecond
)

// function is the worker that plays a function.
type function struct {
	mu       sync.Mutex // guards what follows
	node     *fnlib.Node
	listener *fnlib.Listener
	stores   map[string]store.Store // by URL
	stream   *streaming
	bell     *net.UnixConn
	ref      fnlib.Ref // the state of sendRef; empty: none
	early    int64     // fnlib.Config.EarlyBytes of the node
}

func (f *function) ops() map[string]op {
	return map[string]op{
		opJoin: handle(f.join), opSend: handle(f.send), opReceive: handle(f.receive), opPath: handle(f.path),
		opSendStream: handle(f.sendStream), opReceiveStream: handle(f.receiveStream),
		opPut: handle(f.put), opGet: handle(f.get),
		opPour: handle(f.pour), opStopPour: handle(f.stopPour), opDrain: handle(f.drain), opPoured: handle(f.poured),
		opServe: rpc.HandleParts(f.serve), opLeave: handle(f.leave),
		opChat: handle(f.chat), opEcho: handle(f.echo),
		opExchange: handle(f.exchange), opBell: handle(f.listenBell), opSettle: handle(f.settle), opDrop: handle(f.drop),
	}
}

func (f *function) stop() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.node != nil {
		err = f.node.Close()
	}
	for _, s := range f.stores {
		err = errors.Join(err, s.Close())
	}
	if f.bell != nil {
		err = errors.Join(err, f.bell.Close())
	}
	return err
}

// JoinArgs say which job to join.
type JoinArgs struct {
	URL  string `json:"url"`
	Key  string `json:"key"`
	Name string `json:"name"`

	Call       []string      `json:"call,omitempty"` // as fnlib.Config has it, as SpillAfter, NoCompress and EarlyBytes
	Store      *Store        `json:"store,omitempty"`
	SpillAfter time.Duration `json:"spill_after,omitempty"`
	NoCompress bool          `json:"no_compress,omitempty"`
	EarlyBytes int           `json:"early_bytes,omitempty"`
}

// Joined is the result of Join.
type Joined struct {
	Began   int64         `json:"began"`
	Timings fnlib.Timings `json:"timings"`
	Mapping string        `json:"mapping"` // of the NAT, as the function found it
}

// Join makes the worker a member of a job.
func (c *Client) Join(ctx context.Context, a JoinArgs) (j Joined, err error) {
	return j, c.Call(ctx, opJoin, a, &j)
}

func (f *function) join(ctx context.Context, a JoinArgs) (Joined, error) {
	j := Joined{Began: now()}
	cfg := fnlib.Config{URL: a.URL, JobKey: a.Key, Name: a.Name, Call: a.Call, SpillAfter: a.SpillAfter, NoCompress: a.NoCompress, EarlyBytes: a.EarlyBytes}
	if a.Store != nil {
		var err error
		if cfg.Store, err = f.opened(ctx, *a.Store); err != nil {
			return j, err
		}
	}
	node, err := fnlib.Join(ctx, cfg)
	if err != nil {
		return j, err
	}
	// A sender may dial before this function is told to accept.
	listener, err := node.Listen(streamService)
	if err != nil {
		return j, errors.Join(err, node.Close())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node != nil {
		return j, errors.Join(errors.New("has joined already"), node.Close())
	}
	f.listener, f.node, f.early = listener, node, int64(a.EarlyBytes)
	j.Timings, j.Mapping = node.Timings(), string(node.NAT().Mapping)
	return j, nil
}

var errNotJoined = errors.New("has not joined")

func (f *function) joined() (*fnlib.Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node == nil {
		return nil, errNotJoined
	}
	return f.node, nil
}

// SendArgs say what to send to whom.
type SendArgs struct {
	To     string          `json:"to"`
	Key    string          `json:"key"`
	Path   string          `json:"path"` // auto, direct or relay
	Source workload.Source `json:"source"`
	// Once has the source be read once only, as a pipe can be.
	Once bool `json:"once,omitempty"`
	// NoStore keeps the state out of the function's store.
	NoStore bool `json:"no_store,omitempty"`
	// Within is the longest that it may take; 0 is as long as the caller waits. A worker that gives up
	// by itself can say what it was waiting for.
	Within time.Duration `json:"within,omitempty"`
}

// Sent is a state that was sent, by whatever way.
type Sent struct {
	Began   int64   `json:"began"`
	Ended   int64   `json:"ended"` // the receipt was there, or the store had everything
	Digest  string  `json:"digest"`
	Receipt Receipt `json:"receipt"` // of fnwire
}

// Receipt is what fnwire says of a transfer.
type Receipt struct {
	Stored      string        `json:"stored,omitempty"`
	Path        string        `json:"path"`
	DirectBytes int64         `json:"direct_bytes"`
	Reason      string        `json:"reason"`
	RTT         time.Duration `json:"rtt"`
	Phases      fnlib.Phases  `json:"phases"`
}

// Send sends a state with fnwire and waits for the receipt.
func (c *Client) Send(ctx context.Context, a SendArgs) (s Sent, err error) {
	return s, c.Call(ctx, opSend, a, &s)
}

func (f *function) send(ctx context.Context, a SendArgs) (Sent, error) {
	s := Sent{Began: now()}
	node, err := f.joined()
	if err != nil {
		return s, err
	}
	path, err := fnlib.ParsePath(a.Path)
	if err != nil {
		return s, err
	}
	if a.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.Within)
		defer cancel()
	}
	f.mu.Lock()
	early := f.early
	f.mu.Unlock()
	source := a.Source.Open()
	defer source.Close()
	r := io.Reader(source)
	switch size := a.Source.Size(); {
	case a.Once:
		r = struct{ io.Reader }{source}
	case size <= early:
		b, err := io.ReadAll(source)
		if err != nil {
			return s, err
		}
		r = bytes.NewReader(b)
	}
	rc, err := node.SendWith(ctx, a.To, a.Key, r, fnlib.SendOptions{Path: path, Size: a.Source.Size(), NoStore: a.NoStore})
	s.Ended, s.Digest = now(), rc.Digest.String()
	s.Receipt = Receipt{Stored: rc.Stored, Path: rc.Path, DirectBytes: rc.DirectBytes, Reason: rc.Reason, RTT: rc.RTT, Phases: rc.Phases}
	return s, err
}

// Received is a state that has come, whatever brought it.
type Received struct {
	Began  int64  `json:"began"` // when it was asked for
	Key    string `json:"key"`
	Bytes  int64  `json:"bytes"`
	Digest string `json:"digest"` // SHA-256 of what came, in hexadecimal
	Path   string `json:"path"`   // what the last byte came over
	First  int64  `json:"first"`  // when the application had the first byte
	Last   int64  `json:"last"`   // when it had the last, with the right digest
}

// Receive waits for the next state that fnwire brings, and accepts it.
func (c *Client) Receive(ctx context.Context) (r Received, err error) {
	return r, c.Call(ctx, opReceive, None{}, &r)
}

func (f *function) receive(ctx context.Context, _ None) (Received, error) {
	node, err := f.joined()
	if err != nil {
		return Received{}, err
	}
	began := now()
	in, err := node.Receive(ctx)
	if err != nil {
		return Received{}, err
	}
	r := Received{Began: began, Key: in.Key}
	buf := make([]byte, copyBytes)
	for {
		n, err := in.Read(buf)
		if n > 0 && r.First == 0 {
			r.First = now()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r, err
		}
	}
	r.Last = now()
	r.Bytes, r.Digest, r.Path = in.Bytes(), in.Digest().String(), in.Path()
	return r, in.Accept()
}

// PathArgs say which path to wait for.
type PathArgs struct {
	Peer string        `json:"peer"`
	Want string        `json:"want"` // direct, relay, or "" for whatever it is after Within
	Wait time.Duration `json:"wait"` // the longest time to wait
	Pace time.Duration `json:"pace"` // between two looks; 0 is 2 ms
}

// PathState is how the link with a peer stands.
type PathState struct {
	Path   string        `json:"path"`
	Remote string        `json:"remote"`
	RTT    time.Duration `json:"rtt"`
	Reason string        `json:"reason"`
	At     int64         `json:"at"`  // when it was found
	Via    string        `json:"via"` // how the home relay is reached: udp or wss
}

// Path returns how the link with a peer stands as soon as its path is the one wanted, or Wait is over.
func (c *Client) Path(ctx context.Context, a PathArgs) (p PathState, err error) {
	return p, c.Call(ctx, opPath, a, &p)
}

// path asks again and again: pings are the traffic that keeps the search for a direct path going.
func (f *function) path(ctx context.Context, a PathArgs) (PathState, error) {
	node, err := f.joined()
	if err != nil {
		return PathState{}, err
	}
	until := time.Now().Add(a.Wait)
	for {
		pong, err := node.Ping(ctx, a.Peer, fnlib.Auto)
		if err != nil {
			return PathState{}, err
		}
		p := PathState{Path: pong.Link.Path, Remote: pong.Link.Remote, RTT: pong.RTT, Reason: pong.Link.Reason, At: now()}
		if p.Path == a.Want || time.Now().After(until) {
			relays := node.Relays()
			if i := slices.IndexFunc(relays, func(r fnlib.RelayStatus) bool { return r.Home }); i >= 0 {
				p.Via = relays[i].Via
			}
			return p, nil
		}
		select {
		case <-time.After(cmp.Or(a.Pace, pingPace)):
		case <-ctx.Done():
			return p, ctx.Err()
		}
	}
}
