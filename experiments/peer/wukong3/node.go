package wukong3

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/peer/plainquic"
	"github.com/fnwire/fnwire/experiments/peer/selfsigned"
)

// ErrUnreachable is wrapped by the errors of Send and Receive when both ends have come and no connection was made within Config.Timeout:
// their NATs cannot be punched. There is no relay; who has a store sends by that.
var ErrUnreachable = errors.New("the other end cannot be reached, and there is no relay: use a store")

var errClosed = errors.New("wukong3: node is closed")

const (
	// DefaultTimeout is UDT's: 3 s, and ten times that for a rendezvous (CUDT::connect).
	DefaultTimeout = 30 * time.Second
	// linger is how long a receiver keeps a connection for its receipt to arrive.
	linger = 2 * time.Second
)

// Config is what a node must know.
type Config struct {
	Coordinator netip.AddrPort // IPv4
	Certificate []byte         // the coordinator's, in DER
	Causes      Causes
	// Timeout bounds the set-up, but not the wait for the other end to come; 0 is DefaultTimeout.
	Timeout time.Duration
	// Listen opens a UDP socket whose addresses are of type *net.UDPAddr, and Dial a connection; nil is the machine's network.
	Listen func() (net.PacketConn, error)
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Node is one function's end of any number of pairings. It is for one invocation: open another after a thaw. Its methods are
// safe for concurrent use.
type Node struct {
	cfg  Config
	id   id
	cert tls.Certificate
	turn chan struct{} // held during a set-up, if they are serial
	base *base         // of all pairings; nil if each has its own

	ctx    context.Context // until Close
	cancel context.CancelFunc

	mu     sync.Mutex // guards closed, and that nothing begins after it
	closed bool
	wg     sync.WaitGroup // of calls, and of receivers' connections that end
}

// base is what a pairing is made on.
type base struct {
	socket *socket
	line   *line
}

// Times says where the time of a hand-over went, in this order. What a node did before the call, in Open, is in none.
type Times struct {
	Turn     time.Duration // set-ups of this node that had to be over first
	Join     time.Duration // a socket, its mapped address, and the connection to the coordinator
	Wait     time.Duration // until the other end had come, and was free
	Punch    time.Duration // until each end had heard that the other hears it
	Connect  time.Duration // the handshake, and to leave the coordinator
	Transfer time.Duration // until the receiver's confirmation, or until the state was received and confirmed
}

// Received is a state that has come.
type Received struct {
	onestream.Received
	Times Times
}

// Open makes a node ready. Unless each pairing is to have a socket of its own, it has a mapped address and is connected to the coordinator then.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.Causes.check(); err != nil {
		return nil, fmt.Errorf("wukong3: causes: %w", err)
	}
	if !cfg.Coordinator.Addr().Is4() || cfg.Coordinator.Port() == 0 {
		return nil, fmt.Errorf("wukong3: coordinator at %v: want an IPv4 address and a port", cfg.Coordinator)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Listen == nil {
		cfg.Listen = func() (net.PacketConn, error) { return net.ListenUDP("udp4", nil) }
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	cert, err := selfsigned.New()
	if err != nil {
		return nil, fmt.Errorf("wukong3: certificate: %w", err)
	}
	n := &Node{cfg: cfg, cert: cert, turn: make(chan struct{}, 1)}
	_, _ = rand.Read(n.id[:]) // which ends the process rather than fail
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if !cfg.Causes.NewSocket {
		if n.base, err = n.open(ctx); err != nil {
			n.cancel()
			return nil, fmt.Errorf("wukong3: %w", err)
		}
	}
	return n, nil
}

// open opens a socket and a line, both at the same time.
func (n *Node) open(ctx context.Context) (*base, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	b := &base{}
	dialled := make(chan error, 1)
	go func() {
		var err error
		b.line, err = dialLine(ctx, &n.cfg)
		dialled <- err
	}()
	s, err := openSocket(ctx, &n.cfg, n.cert)
	if err != nil {
		cancel()
	}
	b.socket = s
	if err := errors.Join(err, <-dialled); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *base) close() {
	if b.line != nil {
		b.line.close()
	}
	if b.socket != nil {
		b.socket.close()
	}
}

// link is a connection with the other end of a pairing.
type link struct {
	*quic.Conn
	own *base // of this link alone
}

func (l *link) close() {
	_ = l.CloseWithError(0, "")
	if l.own != nil {
		l.own.close()
	}
}

// Send sends size bytes of r to who receives with the same key, and returns when it has confirmed them. It waits for that end to come as long as ctx lets it.
func (n *Node) Send(ctx context.Context, key string, r io.Reader, size int64) (t Times, err error) {
	err = n.do(ctx, key, true, &t, func(ctx context.Context, l *link) error {
		defer l.close()
		s, err := l.OpenStreamSync(ctx)
		if err != nil {
			return err
		}
		stream := plainquic.Stream{Stream: s}
		defer context.AfterFunc(ctx, stream.Abort)()
		if rate := n.cfg.Causes.Rate; rate > 0 {
			r = &paced{r: r, rate: rate, sleep: func(d time.Duration) { sleep(ctx, d) }}
		}
		_, err = onestream.Send(stream, r, size, onestream.SHA256)
		return err
	})
	return t, err
}

// Receive writes to w what is sent with the same key, as it comes. The state is right, and confirmed, if there is no error.
func (n *Node) Receive(ctx context.Context, key string, w io.Writer) (r Received, err error) {
	err = n.do(ctx, key, false, &r.Times, func(ctx context.Context, l *link) error {
		s, err := l.AcceptStream(ctx)
		if err != nil {
			l.close()
			return err
		}
		stream := plainquic.Stream{Stream: s}
		defer context.AfterFunc(ctx, stream.Abort)()
		if r.Received, err = onestream.ReceiveTo(stream, w, onestream.SHA256); err != nil {
			l.close()
			return err
		}
		n.linger(l)
		return nil
	})
	return r, err
}

// do makes a link and hands over by it.
func (n *Node) do(ctx context.Context, key string, sends bool, t *Times, over func(context.Context, *link) error) error {
	if err := checkKey(key); err != nil {
		return fmt.Errorf("wukong3: %w", err)
	}
	if !n.begin() {
		return errClosed
	}
	defer n.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	l, err := n.connect(ctx, key, sends, t)
	if err == nil {
		began := time.Now()
		err = over(ctx, l)
		t.Transfer = time.Since(began)
	}
	switch {
	case err == nil:
		return nil
	case n.ctx.Err() != nil:
		return errClosed
	case ctx.Err() != nil:
		return fmt.Errorf("wukong3: %q: %w", key, context.Cause(ctx))
	}
	return fmt.Errorf("wukong3: %q: %w", key, err)
}

// connect makes a link with the other end of a pairing.
func (n *Node) connect(ctx context.Context, key string, sends bool, t *Times) (*link, error) {
	lap := laps(time.Now())
	if err := n.take(ctx); err != nil {
		return nil, err
	}
	t.Turn = lap()
	b, err := n.base, error(nil)
	if b == nil {
		b, err = n.open(ctx)
	}
	n.give()
	t.Join = lap()
	if err != nil {
		return nil, err
	}
	var own *base
	if n.base == nil {
		own = b
	}
	conn, err := n.meet(ctx, b, key, sends, t, lap)
	if err != nil {
		if own != nil {
			own.close()
		}
		return nil, err
	}
	return &link{conn, own}, nil
}

// meet finds the other end by the coordinator and connects to it.
func (n *Node) meet(ctx context.Context, b *base, key string, sends bool, t *Times, lap func() time.Duration) (*quic.Conn, error) {
	m := pairMsg{sends: sends, serial: n.cfg.Causes.Serial, port: b.socket.port, node: n.id, key: key}
	if !sends {
		m.cert = n.cert.Certificate[0]
	}
	number, answer, err := b.line.ask(m)
	if err != nil {
		return nil, err
	}
	defer b.line.done(number)
	var match matchMsg
	select {
	case a, ok := <-answer:
		switch a := a.(type) {
		case matchMsg:
			match = a
		case refusedMsg:
			return nil, fmt.Errorf("the coordinator refuses: %s", a.reason)
		}
		if !ok {
			return nil, b.line.why()
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t.Wait = lap()
	if err := n.take(ctx); err != nil {
		return nil, err
	}
	defer n.give()
	t.Turn += lap()
	limited, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	began := time.Now()
	conn, punched, err := b.socket.connect(limited, match, n.cfg.Causes.Resend, sends)
	if err != nil {
		return nil, err
	}
	if n.base == nil {
		b.line.done(number)
		b.line.leave(limited)
	}
	t.Punch, t.Connect = punched.Sub(began), time.Since(punched)
	return conn, nil
}

// take waits until no other set-up of this node is under way.
func (n *Node) take(ctx context.Context) error {
	if !n.cfg.Causes.Serial {
		return ctx.Err()
	}
	select {
	case n.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Node) give() {
	if n.cfg.Causes.Serial {
		<-n.turn
	}
}

func (n *Node) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.wg.Add(1)
	}
	return !n.closed
}

// linger closes a link when the sender has done so: its receipt has arrived then.
func (n *Node) linger(l *link) {
	n.wg.Go(func() {
		defer l.close()
		ctx, cancel := context.WithTimeout(l.Context(), linger)
		defer cancel()
		<-ctx.Done()
	})
}

// Close ends what is under way. It waits for receipts to arrive, 2 s at most, and may be called again.
func (n *Node) Close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.cancel()
	n.wg.Wait()
	if n.base != nil {
		n.base.close()
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// laps returns a function that returns how long it is since began, and then since it was called last.
func laps(began time.Time) func() time.Duration {
	return func() time.Duration {
		d := time.Since(began)
		began = began.Add(d)
		return d
	}
}
