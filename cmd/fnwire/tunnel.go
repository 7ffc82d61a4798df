package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
)

// tunnelEvent is what expose and forward print with --json: one "ready", and for each connection an "open" when
// both sides of it are there and a "close", or a "close" alone when the other side could not be had.
type tunnelEvent struct {
	Event   string `json:"event"`             // ready, open or close
	Name    string `json:"name,omitempty"`    // ready: of this function
	Service string `json:"service,omitempty"` // ready, of expose
	Listen  string `json:"listen,omitempty"`  // ready, of forward: the TCP address, with the port taken
	To      string `json:"to,omitempty"`      // ready: what is dialled for each connection

	Conn int64  `json:"conn,omitempty"` // number of the connection, from 1
	From string `json:"from,omitempty"` // who has connected: NAME, or HOST:PORT
	Path string `json:"path,omitempty"` // direct, relay, or both while a direct path is in doubt

	Sent     *int64   `json:"sent_bytes,omitempty"`     // close: from TCP to the other function
	Received *int64   `json:"received_bytes,omitempty"` // close: from the other function to TCP
	Seconds  *float64 `json:"seconds,omitempty"`        // close: since the connection was accepted
	Error    string   `json:"error,omitempty"`          // close: why it was reset, if it was
}

// tunnel is what expose and forward have in common: a number of connections, each with two sides.
type tunnel struct {
	*common
	maxConns    int
	dialTimeout time.Duration

	node      *fnlib.Node
	out, logs io.Writer
	mu        sync.Mutex // held while a line is printed
	outErr    error      // the first that printing an event gave
}

func (t *tunnel) register(cmd *cobra.Command, what string) {
	f := cmd.Flags()
	f.IntVar(&t.maxConns, "max-conns", 1024, "connections at the same time; others wait to be accepted")
	f.DurationVar(&t.dialTimeout, "dial-timeout", 10*time.Second, "how long a connection waits for "+what)
}

func (t *tunnel) check() error {
	switch {
	case t.functionName() == "":
		return cli.Usage(errors.New("under what name? give --name NAME or set FNWIRE_NAME"))
	case t.maxConns < 1:
		return cli.Usage(fmt.Errorf("--max-conns %d: want 1 or more", t.maxConns))
	case t.dialTimeout <= 0:
		return cli.Usage(fmt.Errorf("--dial-timeout %v: want more than 0", t.dialTimeout))
	}
	return nil
}

// side dials the other side of a connection that was accepted, and returns both.
type side func(ctx context.Context, accepted net.Conn) (*splice, error)

// serve accepts connections until ctx ends, which is how it is meant to end, or the node does.
func (t *tunnel) serve(ctx context.Context, l net.Listener, dial side) error {
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // ends Accept
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel() // resets what is open
	conns.Go(func() {
		select {
		case <-t.node.Done():
			cancel()
		case <-ctx.Done():
		}
	})

	places := make(chan struct{}, t.maxConns)
	pause := time.Duration(0)
	for number := int64(1); ; number++ {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return t.ended()
		}
		c, err := l.Accept()
		for err != nil && !errors.Is(err, net.ErrClosed) { // no file descriptors, or the like
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			t.note("accept: %v; again in %v", err, pause)
			if wait(ctx, pause) != nil {
				return t.ended()
			}
			c, err = l.Accept()
		}
		if err != nil {
			<-ctx.Done() // the node closes its listeners before it says why
			return t.ended()
		}
		pause = 0
		conns.Go(func() {
			defer func() { <-places }()
			t.handle(ctx, number, c, dial)
		})
	}
}

// ended tells why a tunnel has: only the node's end is an error, and that of its output.
func (t *tunnel) ended() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.node.Err(), t.outErr)
}

// wait returns an error if ctx ends first.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handle serves one connection to its end.
func (t *tunnel) handle(ctx context.Context, number int64, accepted net.Conn, dial side) {
	began := time.Now()
	from := accepted.RemoteAddr().String()
	if a, ok := accepted.RemoteAddr().(fnlib.Addr); ok {
		from = a.Name // it has the service of this end
	}
	dialCtx, cancel := context.WithTimeout(ctx, t.dialTimeout)
	s, err := dial(dialCtx, accepted)
	cancel()
	if err != nil {
		if ctx.Err() != nil {
			err = errStopped
		}
		t.closed(tunnelEvent{Conn: number, From: from}, began, 0, 0, err)
		return
	}
	t.emit(tunnelEvent{Event: "open", Conn: number, From: from, Path: s.conn.Link().Path})
	err = s.run(ctx)
	t.closed(tunnelEvent{Conn: number, From: from, Path: s.conn.Link().Path}, began, s.sent.Load(), s.received.Load(), err)
}

// closed tells of a connection's end.
func (t *tunnel) closed(e tunnelEvent, began time.Time, sent, received int64, err error) {
	took := seconds(time.Since(began))
	e.Event, e.Sent, e.Received, e.Seconds = "close", &sent, &received, &took
	if err != nil {
		e.Error = printable(strings.NewReplacer("\n", "; ", "fnlib: ", "").Replace(reasonOf(err)))
		if !t.json && !errors.Is(err, errStopped) {
			t.note("connection %d from %s: %s", e.Conn, e.From, e.Error)
		}
	}
	t.emit(e)
}

// emit prints an event with --json.
func (t *tunnel) emit(e tunnelEvent) {
	if !t.json {
		return
	}
	t.print(func() error { return cli.PrintJSON(t.out, e) })
}

// ready tells that connections are accepted.
func (t *tunnel) ready(e tunnelEvent, text string) {
	e.Event, e.Name = "ready", t.node.Name()
	if t.json {
		t.emit(e)
		return
	}
	t.print(func() error {
		_, err := fmt.Fprintln(t.out, text)
		return err
	})
}

func (t *tunnel) print(f func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := f(); err != nil && t.outErr == nil {
		t.outErr = err
	}
}

func (t *tunnel) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(t.logs, "fnwire: %s\n", printable(fmt.Sprintf(format, args...))) // nowhere else to say it
}
