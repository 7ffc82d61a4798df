package fnlib

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
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
	hash  hash.Hash
	began time.Time
	read  int64
	head  [trailerSize]byte // of the chunk to come, as far as it was read; a deadline may cut it short
	have  int               // bytes in head
	left  int               // of the chunk at hand
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
	in := &Incoming{From: n.nameOf(s.Link().Peer()), Key: h.key, Size: -1, n: n, s: s, hash: sha256.New(), began: time.Now()}
	if h.size != unknownSize {
		in.Size = int64(h.size)
	}
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
	if in.left == 0 {
		if err := in.nextChunk(); err != nil {
			return 0, in.ended(err)
		}
	}
	n, err := in.s.Read(b[:min(len(b), in.left)])
	in.left -= n
	in.read += int64(n)
	in.hash.Write(b[:n])
	if err == nil {
		return n, nil
	}
	if err = in.ended(in.broken(err)); n > 0 {
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

// nextChunk reads the next chunk's length, or the trailer: then it returns io.EOF.
func (in *Incoming) nextChunk() error {
	if err := in.fill(4); err != nil {
		return in.broken(err)
	}
	n := binary.BigEndian.Uint32(in.head[:])
	if n > maxChunk {
		return in.refuse(statusProtocol, fmt.Sprintf("chunk of %d bytes", n))
	}
	if in.left = int(n); n > 0 {
		in.have = 0
		return nil
	}
	if err := in.fill(trailerSize); err != nil {
		return in.broken(err)
	}
	total, want := binary.BigEndian.Uint64(in.head[4:]), in.head[12:]
	digest := in.hash.Sum(nil)
	if total != uint64(in.read) || subtle.ConstantTimeCompare(digest, want) == 0 || (in.Size >= 0 && in.Size != in.read) {
		return errors.Join(ErrDigest, in.refuse(statusDigest, ""))
	}
	return io.EOF
}

// fill reads until head has n bytes.
func (in *Incoming) fill(n int) error {
	if in.have >= n {
		return nil
	}
	m, err := io.ReadAtLeast(in.s, in.head[in.have:n], n-in.have)
	in.have += m
	return err
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
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		err = io.ErrUnexpectedEOF
	case errors.As(err, &reset) && reset.Code == resetAborted:
		err = errGaveUp
	}
	return fmt.Errorf("%w: state %q from %q broke off after %d bytes: %w", ErrLink, in.Key, in.From, in.read, err)
}

// refuse answers with a status other than accepted and returns the error for the application.
func (in *Incoming) refuse(status byte, reason string) error {
	err := in.settle(status, reason)
	if reason == "" {
		return err
	}
	return errors.Join(fmt.Errorf("%w: %s", errWire, reason), err)
}

// Bytes is how much was read so far.
func (in *Incoming) Bytes() int64 { return in.read }

// Path is what the bytes come over at the moment: "direct", "relay" or "both".
func (in *Incoming) Path() string { return in.s.Link().Status().Path }

// Digest is the SHA-256 of what was read so far.
func (in *Incoming) Digest() Digest { return Digest(in.hash.Sum(nil)) }

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
	p := reply{status: status, bytes: uint64(in.read), reason: reason}
	in.hash.Sum(p.digest[:0])
	_ = in.s.SetWriteDeadline(time.Now().Add(headerDeadline))
	_, err := in.s.Write(appendReply(nil, p))
	t := in.n.trafficOf(in.s.Link())
	t.update(func() { t.wrote = true })
	_ = in.s.Close()
	if in.n.cfg.Metrics != nil {
		in.n.cfg.Metrics.Received(in.From, in.Key, in.read, time.Since(in.began), err)
	}
	if err != nil {
		err = fmt.Errorf("fnlib: receipt to %s: %w", in.From, err)
	}
	in.told = &verdict{status, err}
	return err
}
