package worker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/fnlib"
)

const (
	opPour     = "pour"
	opStopPour = "pour-stop"
	opPoured   = "poured"
	opDrain    = "drain"

	pourChunk  = 64 << 10
	pourBehind = 50 * time.Millisecond
	gapLeast   = 5 * time.Millisecond // shorter silences are not remembered
	gapsMost   = 10000
)

// streaming is an open stream that is being written or read.
type streaming struct {
	bytes atomic.Int64
	quit  chan struct{}
	conn  atomic.Pointer[fnlib.Conn]
}

func (f *function) startStreaming() (*streaming, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stream != nil {
		return nil, errors.New("is streaming already")
	}
	f.stream = &streaming{quit: make(chan struct{})}
	return f.stream, nil
}

func (f *function) endStreaming() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stream = nil
}

func (f *function) streaming() (*streaming, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stream == nil {
		return nil, errors.New("is not streaming")
	}
	return f.stream, nil
}

// PourArgs say what to write into a stream.
type PourArgs struct {
	To             string `json:"to"`
	Seed           uint64 `json:"seed"`             // of the pseudo-random bytes
	BytesPerSecond int64  `json:"bytes_per_second"` // 0: as fast as it goes
}

// Poured is how far a stream has come, or how it ended.
type Poured struct {
	Bytes  int64     `json:"bytes"`
	Digest string    `json:"digest,omitempty"` // at the end
	Path   PathState `json:"path"`
	Gaps   []Gap     `json:"gaps,omitempty"` // of the reader

	Changes    []string `json:"changes,omitempty"`    // the last changes of path, at the end
	Generation int      `json:"generation,omitempty"` // how many paths there were; 1 is the relay
}

func (p *Poured) noteGap(last, at time.Time) {
	if gap := at.Sub(last); gap >= gapLeast && len(p.Gaps) < gapsMost {
		p.Gaps = append(p.Gaps, Gap{Began: last.UnixNano(), Took: gap})
	}
}

func (p *Poured) noteLink(conn *fnlib.Conn) {
	l := conn.Link()
	p.Generation = int(l.Generation)
	for _, c := range l.History {
		p.Changes = append(p.Changes, fmt.Sprintf("%s %s %s", c.At.Format("05.000"), c.Route, c.Reason))
	}
}

// Gap is a time in which the reader got nothing.
type Gap struct {
	Began int64         `json:"began"`
	Took  time.Duration `json:"took"`
}

// Pour opens a stream to a function and writes to it until StopPour.
func (c *Client) Pour(ctx context.Context, a PourArgs) (p Poured, err error) {
	return p, c.Call(ctx, opPour, a, &p)
}

// StopPour ends Pour.
func (c *Client) StopPour(ctx context.Context) error { return c.Call(ctx, opStopPour, None{}, nil) }

// Poured tells how far the stream that is being written or read has come.
func (c *Client) Poured(ctx context.Context) (p Poured, err error) {
	return p, c.Call(ctx, opPoured, None{}, &p)
}

// Drain accepts a stream and reads it to its end.
func (c *Client) Drain(ctx context.Context) (p Poured, err error) {
	return p, c.Call(ctx, opDrain, None{}, &p)
}

// dialStreaming opens a stream to a function. Unless it fails, endStreaming must follow.
func (f *function) dialStreaming(ctx context.Context, to string) (*streaming, *fnlib.Conn, error) {
	node, err := f.joined()
	if err != nil {
		return nil, nil, err
	}
	st, err := f.startStreaming()
	if err != nil {
		return nil, nil, err
	}
	conn, err := node.Dial(ctx, to)
	if err != nil {
		f.endStreaming()
		return nil, nil, err
	}
	st.conn.Store(conn)
	return st, conn, nil
}

func (f *function) pour(ctx context.Context, a PourArgs) (Poured, error) {
	st, conn, err := f.dialStreaming(ctx, a.To)
	if err != nil {
		return Poured{}, err
	}
	defer f.endStreaming()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], a.Seed)
	random, h, due := rand.NewChaCha8(seed), sha256.New(), time.Now()
	buf := make([]byte, pourChunk)
	for {
		select {
		case <-st.quit:
			p := Poured{Bytes: st.bytes.Load(), Digest: hex.EncodeToString(h.Sum(nil))}
			if err := conn.CloseWrite(); err != nil {
				return p, err
			}
			_, err := io.Copy(io.Discard, conn) // the reader closes when it has everything
			p.noteLink(conn)
			return p, err
		default:
		}
		_, _ = random.Read(buf) // never fails
		h.Write(buf)
		if _, err := conn.Write(buf); err != nil {
			return Poured{Bytes: st.bytes.Load()}, err
		}
		st.bytes.Add(pourChunk)
		if a.BytesPerSecond > 0 {
			// What was held up is not made good for by a burst, beyond a moment's worth.
			due = laterOf(due, time.Now().Add(-pourBehind)).Add(time.Duration(pourChunk * float64(time.Second) / float64(a.BytesPerSecond)))
			select {
			case <-time.After(time.Until(due)):
			case <-st.quit:
			}
		}
	}
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (f *function) stopPour(context.Context, None) (None, error) {
	st, err := f.streaming()
	if err != nil {
		return None{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-st.quit:
		return None{}, errors.New("was stopped before")
	default:
		close(st.quit)
		return None{}, nil
	}
}

func (f *function) poured(context.Context, None) (Poured, error) {
	st, err := f.streaming()
	if err != nil {
		return Poured{}, err
	}
	p := Poured{Bytes: st.bytes.Load()}
	if conn := st.conn.Load(); conn != nil {
		l := conn.Link()
		p.Path = PathState{Path: l.Path, Remote: l.Remote, RTT: l.RTT, Reason: l.Reason, At: now()}
	}
	return p, nil
}

func (f *function) drain(ctx context.Context, _ None) (Poured, error) {
	return f.take(ctx, func(*fnlib.Conn, []byte) error { return nil })
}

// take accepts a stream and reads it to its end; each is told what comes.
func (f *function) take(ctx context.Context, each func(*fnlib.Conn, []byte) error) (Poured, error) {
	var p Poured
	node, err := f.joined()
	if err != nil {
		return p, err
	}
	ln, err := node.Listen("")
	if err != nil {
		return p, err
	}
	defer ln.Close()
	st, err := f.startStreaming()
	if err != nil {
		return p, err
	}
	defer f.endStreaming()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	accepted, err := ln.Accept()
	if err != nil {
		return p, err
	}
	conn, ok := accepted.(*fnlib.Conn)
	if !ok {
		return p, fmt.Errorf("accepted a %T", accepted)
	}
	defer conn.Close()
	st.conn.Store(conn)
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	h := sha256.New()
	buf := make([]byte, copyBytes)
	for last := time.Now(); ; {
		n, err := conn.Read(buf)
		at := time.Now()
		if p.Bytes > 0 {
			p.noteGap(last, at)
		}
		last = at
		h.Write(buf[:n])
		if eerr := each(conn, buf[:n]); eerr != nil {
			return p, eerr
		}
		p.Bytes += int64(n)
		st.bytes.Store(p.Bytes)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return p, err
		}
	}
	p.Digest = hex.EncodeToString(h.Sum(nil))
	p.noteLink(conn)
	return p, nil
}
