package fnlib

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fnwire/fnwire/transport"
)

// Incoming is a state that a peer is sending. The application reads it to io.EOF, which comes only if
// the digest is right, and then accepts it, which the sender is waiting for. It is an io.Reader for
// one goroutine.
type Incoming struct {
	From string // the sender's name, as its offer has proven
	Key  string
	Size int64 // -1 if the sender did not know

	n     *Node
	s     *transport.Stream
	state stateReader
	began time.Time
	end   error
	told  *verdict // what the sender was told; nil before
}

// errGaveUp is what a sender's reset means.
var errGaveUp = errors.New("the sender gave up")

// verdict is what a sender was told of its state, and whether that could be said.
type verdict struct {
	status byte
	err    error
}

// Receive waits for the next state that any peer sends. States arrive as their streams do; many may be
// read at the same time, and those that wait for their turn do not hold up those that are read.
func (n *Node) Receive(ctx context.Context) (*Incoming, error) {
	select {
	case in := <-n.incoming:
		in.take()
		return in, nil
	default:
	}
	select {
	case in := <-n.incoming:
		in.take()
		return in, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("fnlib: receive: %w", ctx.Err())
	case <-n.ctx.Done():
		return nil, fmt.Errorf("fnlib: receive: %w", n.Err())
	}
}

// serveSend queues a state. The queue is bounded; QUIC's flow control holds what does not fit.
func (n *Node) serveSend(s *transport.Stream) error {
	h, err := readSendHeader(s)
	if err != nil {
		return err
	}
	_ = s.SetReadDeadline(time.Time{})
	in := &Incoming{From: n.nameOf(s.Link().Peer()), Key: h.key, Size: -1, n: n, s: s, began: time.Now()}
	if h.size != unknownSize {
		in.Size = int64(h.size)
	}
	in.state = newStateReader(s, in.Size)
	n.trafficOf(s.Link()).begin(false)() // counted as seen; a sender waits for the receipt by itself
	select {
	case n.incoming <- in:
	case <-s.Link().Done():
	case <-n.ctx.Done():
	}
	return nil
}

// Read returns io.EOF after the last byte, if all bytes are those that were sent; else ErrDigest, or
// ErrLink if the sender gave up or is gone. After os.ErrDeadlineExceeded (see SetReadDeadline) it may be called again.
func (in *Incoming) Read(b []byte) (int, error) {
	if in.end != nil {
		return 0, in.end
	}
	if len(b) == 0 {
		return 0, nil
	}
	n, err := in.state.Read(b)
	if err == nil {
		return n, nil
	}
	if err = in.ended(in.why(err)); n > 0 {
		return n, nil
	}
	return 0, err
}

// ended notes the end that Read has come to. A deadline is none.
func (in *Incoming) ended(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		in.end = err
	}
	return err
}

// why is what the application gets to see when the state reader has failed, or come to the end. The sender is told.
func (in *Incoming) why(err error) error {
	switch {
	case err == io.EOF: //nolint:errorlint // wrapped, it is no end of a state
		return err
	case errors.Is(err, errWire):
		return errors.Join(err, in.settle(statusProtocol, err.Error()))
	case errors.Is(err, ErrDigest):
		return errors.Join(err, in.settle(statusDigest, ""))
	}
	return in.broken(err)
}

// broken tells of a stream that ended before the state did.
func (in *Incoming) broken(err error) error {
	if dead := in.n.dead(); dead != nil {
		return dead
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("fnlib: state %q from %q: %w", in.Key, in.From, err)
	}
	var reset *transport.ResetError
	if errors.As(err, &reset) && reset.Code == resetAborted {
		err = errGaveUp
	}
	return fmt.Errorf("%w: state %q from %q broke off after %d bytes: %w", ErrLink, in.Key, in.From, in.state.read, err)
}

// Bytes is how much was read so far.
func (in *Incoming) Bytes() int64 { return in.state.read }

// Path is what the bytes come over at the moment: "direct", "relay" or "both".
func (in *Incoming) Path() string { return in.s.Link().Status().Path }

// Digest is the SHA-256 of what was read so far.
func (in *Incoming) Digest() Digest { return Digest(in.state.hash.Sum(nil)) }

// Accept tells the sender that the application has the state. It must have been read to io.EOF, and not been
// rejected. More than once is as once.
func (in *Incoming) Accept() error {
	switch {
	case in.told != nil && in.told.status == statusRejected:
		return errors.New("fnlib: accept: the state was rejected before")
	case in.end == nil:
		return errors.New("fnlib: accept: the state was not read to its end")
	case !errors.Is(in.end, io.EOF):
		return in.end
	}
	return in.settle(statusAccepted, "")
}

// Reject tells the sender that the application does not want the state, and why. What was not read is
// dropped. A state that was accepted cannot be rejected.
func (in *Incoming) Reject(reason string) error {
	if in.told != nil && in.told.status == statusAccepted {
		return errors.New("fnlib: reject: the state was accepted before")
	}
	if reason == "" {
		reason = "rejected by the application"
	}
	return in.settle(statusRejected, reason)
}

// settle tells the sender, once.
func (in *Incoming) settle(status byte, reason string) error {
	if in.told != nil {
		return in.told.err
	}
	p := reply{status: status, bytes: uint64(in.state.read), reason: reason}
	in.state.hash.Sum(p.digest[:0])
	_ = in.s.SetWriteDeadline(time.Now().Add(headerDeadline))
	_, err := in.s.Write(appendReply(nil, p))
	t := in.n.trafficOf(in.s.Link())
	t.update(func() { t.wrote = true })
	_ = in.s.Close()
	if in.n.cfg.Metrics != nil {
		in.n.cfg.Metrics.Received(in.From, in.Key, in.state.read, time.Since(in.began), err)
	}
	if err != nil {
		err = fmt.Errorf("fnlib: receipt to %s: %w", in.From, err)
	}
	in.told = &verdict{status, err}
	return err
}
