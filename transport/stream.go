package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Stream is a QUIC stream as a [net.Conn] with half-close. One goroutine may read while another
// writes; Close may be called at any time.
type Stream struct {
	s      *quic.Stream
	link   *Link
	closed atomic.Bool
	writes sync.Mutex // held while a Write is under way, so that the end is sent behind it
}

func newStream(l *Link, s *quic.Stream) *Stream {
	l.streams.Add(1)
	return &Stream{s: s, link: l}
}

// Link returns the link that the stream is on.
func (s *Stream) Link() *Link { return s.link }

func (s *Stream) Read(b []byte) (int, error) {
	n, err := s.s.Read(b)
	if n > 0 {
		s.link.use()
	}
	return n, s.mapError(err)
}

func (s *Stream) Write(b []byte) (int, error) {
	s.writes.Lock()
	defer s.writes.Unlock()
	s.link.use()
	n, err := s.s.Write(b)
	return n, s.mapError(err)
}

// mapError gives the errors that users of net.Conn test for.
func (s *Stream) mapError(err error) error {
	if err == nil {
		return nil // of every Read and Write; nothing is allocated for it
	}
	var reset *quic.StreamError
	switch {
	case s.closed.Load():
		return net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.As(err, &reset) && reset.Remote:
		return &ResetError{Code: uint64(reset.ErrorCode)}
	case isConnError(err):
		return fmt.Errorf("%w: %w", ErrLinkClosed, err)
	default:
		return err
	}
}

// isConnError reports whether err says that the whole connection is gone.
func isConnError(err error) bool {
	var (
		idle        *quic.IdleTimeoutError
		handshake   *quic.HandshakeTimeoutError
		application *quic.ApplicationError
		transport   *quic.TransportError
		reset       *quic.StatelessResetError
	)
	return errors.As(err, &idle) || errors.As(err, &handshake) || errors.As(err, &application) || errors.As(err, &transport) || errors.As(err, &reset) ||
		errors.Is(err, net.ErrClosed)
}

// ErrReset matches every ResetError.
var ErrReset = errors.New("transport: stream reset by peer")

// ResetError is returned when the peer has aborted a stream, or closed it with data unread.
type ResetError struct{ Code uint64 }

func (e *ResetError) Error() string { return fmt.Sprintf("%v (code %#x)", ErrReset, e.Code) }

// Is makes errors.Is(err, ErrReset) work.
func (e *ResetError) Is(target error) bool { return target == ErrReset }

// CloseWrite sends the end of the stream after what was written; reading goes on. It is no error if the
// peer has stopped reading before.
func (s *Stream) CloseWrite() error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.link.use()
	_ = s.s.Close() // fails only if the peer, or this side, has cancelled the direction already
	return nil
}

// Close ends both directions and a Write that waits for the peer. What was written is still delivered.
// Cancelling the read side matters: a stream that is closed for writing only would stay open until the
// peer ends its side.
func (s *Stream) Close() error {
	if !s.end() {
		return nil
	}
	s.s.CancelRead(0)
	s.endWrite()
	s.writes.Lock() // quic-go sends no end if it is asked to while a Write gives up
	defer s.writes.Unlock()
	s.link.use()
	_ = s.s.Close() // fails only if the write side was cancelled, and then there is nothing to end
	return nil
}

// end notes that the stream is not open any more; false: it was not before.
func (s *Stream) end() bool {
	if s.closed.Swap(true) {
		return false
	}
	s.link.streams.Add(-1)
	return true
}

// Reset ends both directions at once and tells the peer a code, at most 2^62-1. What was written and
// not yet acknowledged may be lost.
func (s *Stream) Reset(code uint64) {
	if !s.end() {
		return
	}
	s.s.CancelRead(quic.StreamErrorCode(code))
	s.s.CancelWrite(quic.StreamErrorCode(code))
}

// Aborted tells that the stream can carry no more of this side's words: the peer does not listen, or the link is gone, or this side has closed.
func (s *Stream) Aborted() bool { return s.s.Context().Err() != nil }

// AfterAborted has f called, in a goroutine of its own, as soon as Aborted is true.
func (s *Stream) AfterAborted(f func()) { context.AfterFunc(s.s.Context(), f) }

// LocalAddr returns the address that QUIC knows this end by, which is virtual.
func (s *Stream) LocalAddr() net.Addr { return virtualAddr(s.link.e.hub.self, relayGeneration) }

// RemoteAddr returns the address that QUIC knew the peer by at first, which is virtual.
func (s *Stream) RemoteAddr() net.Addr { return s.link.remote }

func (s *Stream) endWrite() { _ = s.s.SetWriteDeadline(time.Now()) } // it never fails

// SetDeadline is of net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline is of net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.s.SetReadDeadline(t) }

// SetWriteDeadline is of net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	err := s.s.SetWriteDeadline(t)
	if s.closed.Load() {
		s.endWrite()
	}
	return err
}
