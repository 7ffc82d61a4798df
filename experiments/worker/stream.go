package worker

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/fnlib"
)

const (
	opSendStream    = "stream-send"
	opReceiveStream = "stream-receive"

	streamService = "onestream"
)

// StreamArgs say what to send or receive on a stream.
type StreamArgs struct {
	Check  onestream.Check `json:"check"`
	To     string          `json:"to,omitempty"`
	Path   string          `json:"path,omitempty"`   // auto (or nothing), direct or relay
	Source workload.Source `json:"source,omitempty"` // of who sends
}

// SendStream sends a state over a connection that it dials with fnwire, on the link that there is.
func (c *Client) SendStream(ctx context.Context, a StreamArgs) (s Sent, err error) {
	return s, c.Call(ctx, opSendStream, a, &s)
}

func (f *function) sendStream(ctx context.Context, a StreamArgs) (Sent, error) {
	s := Sent{Began: now()}
	node, err := f.joined()
	if err != nil {
		return s, err
	}
	path, err := fnlib.ParsePath(cmp.Or(a.Path, "auto"))
	if err != nil {
		return s, err
	}
	conn, err := node.DialPath(ctx, a.To+":"+streamService, path)
	if err != nil {
		return s, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	r := a.Source.Open()
	defer r.Close()
	sum, err := onestream.Send(conn, r, a.Source.Size(), a.Check)
	s.Ended, s.Digest = now(), hex.EncodeToString(sum)
	s.Receipt.Path, s.Receipt.Reason = conn.Link().Path, conn.Link().Reason
	return s, err
}

// ReceiveStream accepts a connection with fnwire and receives a state over it.
func (c *Client) ReceiveStream(ctx context.Context, check onestream.Check) (r Received, err error) {
	return r, c.Call(ctx, opReceiveStream, StreamArgs{Check: check}, &r)
}

func (f *function) receiveStream(ctx context.Context, a StreamArgs) (Received, error) {
	if _, err := f.joined(); err != nil {
		return Received{}, err
	}
	l := f.listener // set before node, for good
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	accepted, err := l.Accept()
	if err != nil {
		return Received{}, err
	}
	conn, ok := accepted.(*fnlib.Conn)
	if !ok {
		return Received{}, fmt.Errorf("accepted a %T", accepted)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	rc, err := onestream.Receive(conn, a.Check)
	return received(rc, conn.Link().Path), err
}

func received(rc onestream.Received, path string) Received {
	r := Received{Bytes: rc.Bytes, Digest: hex.EncodeToString(rc.Sum), Path: path, Last: rc.Last.UnixNano()}
	if rc.Bytes > 0 {
		r.First = rc.First.UnixNano()
	}
	return r
}
