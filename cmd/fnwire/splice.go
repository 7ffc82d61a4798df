package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/transport"
)

// Codes with which one end of a tunnel tells the other why it resets a connection.
const (
	resetBroken  = 0x100 // its TCP connection broke, or it was stopped
	resetRefused = 0x101 // its target cannot be reached
)

// lingerTime is how long a TCP connection is still read from, to no end, when nothing is done with what
// it says: closing it at once would take away what was written to it and not read yet.
const lingerTime = 2 * time.Second

// spliceBuffers hold what is copied.
var spliceBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// errStopped ends a splice whose command ends.
var errStopped = errors.New("the command was stopped")

// splice joins a TCP connection and one of the overlay. Each direction ends by itself, as in TCP; a reset
// of either connection resets the other. What one does not take, the other is not asked for.
type splice struct {
	tcp  *net.TCPConn
	conn *fnlib.Conn

	sent, received atomic.Int64 // bytes from tcp to conn, and from conn to tcp

	once sync.Once
	err  error // set by the first abort

	// idle counts what of conn's life as the peer has it is over: its writing, its reading.
	idle atomic.Int32
}

// run returns when both directions have ended and both connections are closed, with the error that cut
// them short. The end of ctx does.
func (s *splice) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.abort(errStopped) })()
	var wg sync.WaitGroup
	wg.Go(s.up)
	s.down()
	wg.Wait()
	s.once.Do(func() { // from here on nothing cuts it short
		_ = s.conn.Close() // both ends have been said
		_ = s.tcp.Close()
	})
	return s.err
}

// up copies from tcp to conn.
func (s *splice) up() {
	readErr, writeErr := copyCounted(s.conn, s.tcp, &s.sent)
	var reset *transport.ResetError
	switch {
	case readErr == nil && writeErr == nil:
		_ = s.conn.CloseWrite() // fails only if it was closed
	case errors.As(writeErr, &reset) && reset.Code == 0:
		// The peer has closed the connection. What it wrote before is still to come.
		s.halfIdle()
		_, _ = io.Copy(io.Discard, s.tcp) // until tcp ends, or its deadline
	default:
		s.abort(errors.Join(readErr, writeErr))
	}
}

// down copies from conn to tcp.
func (s *splice) down() {
	readErr, writeErr := copyCounted(s.tcp, s.conn, &s.received)
	if readErr != nil || writeErr != nil {
		s.abort(errors.Join(readErr, writeErr))
		return
	}
	_ = s.tcp.CloseWrite() // fails only if it was closed
	s.halfIdle()
}

// halfIdle has tcp wait no longer when the peer neither reads nor writes.
func (s *splice) halfIdle() {
	if s.idle.Add(1) == 2 {
		_ = s.tcp.SetReadDeadline(time.Now().Add(lingerTime)) // fails only if it was closed
	}
}

// abort resets both connections.
func (s *splice) abort(err error) {
	s.once.Do(func() {
		s.err = err
		s.conn.Reset(resetBroken)
		resetTCP(s.tcp)
	})
}

// resetTCP closes a connection with RST.
func resetTCP(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails only if it was closed
	_ = c.Close()
}

// copyCounted copies until the end of r and tells reading and writing apart.
func copyCounted(w io.Writer, r io.Reader, count *atomic.Int64) (readErr, writeErr error) {
	buf := spliceBuffers.Get().(*[64 << 10]byte) // nothing else is put in
	defer spliceBuffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			m, err := w.Write(buf[:n])
			count.Add(int64(m))
			if err != nil {
				return nil, err
			}
		}
		if err == io.EOF { // io.Reader's contract is the bare io.EOF
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// reasonOf says in words for people why a connection was cut short.
func reasonOf(err error) string {
	var reset *transport.ResetError
	var system *os.SyscallError
	switch {
	case errors.As(err, &reset) && reset.Code == resetRefused:
		return "the other end cannot reach its target"
	case errors.As(err, &reset):
		return "reset by the other end"
	case errors.As(err, &system): // without addresses, which the line has already
		return system.Error()
	}
	return err.Error()
}
