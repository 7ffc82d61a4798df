package worker

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"

	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/peer/plainquic"
	"github.com/fnwire/fnwire/experiments/workload"
)

const (
	opOpenPlain    = "plain-open"
	opConnectPlain = "plain-connect"
	opSendPlain    = "plain-send"
	opReceivePlain = "plain-receive"
)

// PlainEnd is what the other end must know of a plain QUIC peer.
type PlainEnd struct {
	Port        uint16 `json:"port"` // local
	Certificate []byte `json:"certificate"`
}

// OpenPlain opens the socket of a plain QUIC peer.
func (c *Client) OpenPlain(ctx context.Context) (e PlainEnd, err error) {
	return e, c.Call(ctx, opOpenPlain, None{}, &e)
}

func (f *function) openPlain(context.Context, None) (PlainEnd, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.plain != nil {
		return PlainEnd{}, errors.New("is open already")
	}
	p, err := plainquic.Open()
	if err != nil {
		return PlainEnd{}, err
	}
	f.plain = p
	return PlainEnd{Port: p.Port(), Certificate: p.Certificate()}, nil
}

// ConnectArgs say where the other end is. Without a certificate, this end accepts.
type ConnectArgs struct {
	Peer        netip.AddrPort `json:"peer"`
	Certificate []byte         `json:"certificate,omitempty"`
}

// ConnectPlain punches and connects, which both ends must do at the same time.
func (c *Client) ConnectPlain(ctx context.Context, a ConnectArgs) error {
	return c.Call(ctx, opConnectPlain, a, nil)
}

func (f *function) opened() (*plainquic.Peer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.plain == nil {
		return nil, errors.New("is not open")
	}
	return f.plain, nil
}

func (f *function) connectPlain(ctx context.Context, a ConnectArgs) (None, error) {
	p, err := f.opened()
	if err != nil {
		return None{}, err
	}
	if err := p.Punch(ctx, a.Peer); err != nil {
		return None{}, err
	}
	if len(a.Certificate) == 0 {
		return None{}, p.Accept(ctx)
	}
	return None{}, p.Dial(ctx, a.Peer, a.Certificate)
}

// StreamArgs say what to send or receive on a stream.
type StreamArgs struct {
	Check  onestream.Check `json:"check"`
	To     string          `json:"to,omitempty"`     // the function, with fnwire
	Path   string          `json:"path,omitempty"`   // with fnwire: auto (or nothing), direct or relay
	Source workload.Source `json:"source,omitempty"` // of who sends
}

// SendPlain sends a state over the plain QUIC connection.
func (c *Client) SendPlain(ctx context.Context, a StreamArgs) (s Sent, err error) {
	return s, c.Call(ctx, opSendPlain, a, &s)
}

func (f *function) sendPlain(ctx context.Context, a StreamArgs) (Sent, error) {
	s := Sent{Began: now()}
	p, err := f.opened()
	if err != nil {
		return s, err
	}
	r := a.Source.Open()
	defer r.Close()
	sum, err := p.Send(ctx, r, a.Source.Size(), a.Check)
	s.Ended, s.Digest = now(), hex.EncodeToString(sum)
	return s, err
}

// ReceivePlain waits for the next state on the plain QUIC connection.
func (c *Client) ReceivePlain(ctx context.Context, check onestream.Check) (r Received, err error) {
	return r, c.Call(ctx, opReceivePlain, StreamArgs{Check: check}, &r)
}

func (f *function) receivePlain(ctx context.Context, a StreamArgs) (Received, error) {
	p, err := f.opened()
	if err != nil {
		return Received{}, err
	}
	rc, err := p.Receive(ctx, a.Check)
	return received(rc, "plain-quic"), err
}

func received(rc onestream.Received, path string) Received {
	r := Received{Bytes: rc.Bytes, Digest: hex.EncodeToString(rc.Sum), Path: path, Last: rc.Last.UnixNano()}
	if rc.Bytes > 0 {
		r.First = rc.First.UnixNano()
	}
	return r
}
