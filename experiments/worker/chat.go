package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib"
)

const (
	opChat = "chat"
	opEcho = "echo"

	messageBytes = 64 // a number of 8 bytes, then noise
)

// ChatArgs say how to chat.
type ChatArgs struct {
	To   string        `json:"to"`
	Seed uint64        `json:"seed"` // of the noise
	Pace time.Duration `json:"pace"` // from one message to the next
}

// Chat opens a stream to a function that echoes, and writes small messages to it until StopPour. Each must come back, in its order
// and unchanged, or that is an error. Gaps are those between echoes.
func (c *Client) Chat(ctx context.Context, a ChatArgs) (p Poured, err error) {
	return p, c.Call(ctx, opChat, a, &p)
}

func (f *function) chat(ctx context.Context, a ChatArgs) (Poured, error) {
	st, conn, err := f.dialStreaming(ctx, a.To)
	if err != nil {
		return Poured{}, err
	}
	defer f.endStreaming()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var p Poured
	var both errgroup.Group
	both.Go(func() error { return talk(st, conn, a, &p) })
	both.Go(func() error {
		err := listen(conn, a.Seed, &p)
		if err != nil {
			_ = conn.SetDeadline(time.Unix(1, 0)) // ends talk
		}
		return err
	})
	err = both.Wait()
	p.Bytes = st.bytes.Load()
	p.noteLink(conn)
	return p, err
}

// noise makes the messages of a seed, one after the other.
func noise(seed uint64) func(m []byte) {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	random, number := rand.NewChaCha8(key), uint64(0)
	return func(m []byte) {
		number++
		binary.BigEndian.PutUint64(m, number)
		_, _ = random.Read(m[8:]) // never fails
	}
}

func talk(st *streaming, conn *fnlib.Conn, a ChatArgs, p *Poured) error {
	next, m, h := noise(a.Seed), make([]byte, messageBytes), sha256.New()
	tick := time.NewTicker(a.Pace)
	defer tick.Stop()
	for {
		select {
		case <-st.quit:
			p.Digest = hex.EncodeToString(h.Sum(nil))
			return conn.CloseWrite()
		case <-tick.C:
		}
		next(m)
		h.Write(m)
		if _, err := conn.Write(m); err != nil {
			return err
		}
		st.bytes.Add(messageBytes)
	}
}

func listen(conn *fnlib.Conn, seed uint64, p *Poured) error {
	next, want, got := noise(seed), make([]byte, messageBytes), make([]byte, messageBytes)
	for last := time.Now(); ; {
		_, err := io.ReadFull(conn, got)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at := time.Now()
		p.noteGap(last, at)
		last = at
		if next(want); !bytes.Equal(got, want) {
			return fmt.Errorf("echo %d is not what was sent", binary.BigEndian.Uint64(want))
		}
	}
}

// Echo accepts a stream and sends back what comes, until its end.
func (c *Client) Echo(ctx context.Context) (p Poured, err error) {
	return p, c.Call(ctx, opEcho, None{}, &p)
}

func (f *function) echo(ctx context.Context, _ None) (Poured, error) {
	return f.take(ctx, func(conn *fnlib.Conn, b []byte) error {
		_, err := conn.Write(b)
		return err
	})
}
