package wukong3_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/peer/plainquic"
	"github.com/fnwire/fnwire/experiments/peer/wukong3"
)

// stranger is a TLS connection to a coordinator.
func stranger(t *testing.T, cfg wukong3.Config) *tls.Conn {
	t.Helper()
	conf, err := plainquic.ClientTLS(cfg.Certificate, "wukong3")
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", cfg.Coordinator.String(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// pair is a PAIR of somebody who sends.
func pair(number uint32, key string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{1}, uint16(25+len(key)))
	b = binary.BigEndian.AppendUint32(b, number)
	b = append(b, 1, 0, 9)
	b = append(b, make([]byte, 16+2)...)
	return append(b, key...)
}

// TestHostileClient: what is malformed, too much or of no end cuts the client off, and nobody else.
func TestHostileClient(t *testing.T) {
	cfg := coordinator(t)
	garbage := make([]byte, 1000)
	if _, err := rand.Read(garbage); err != nil {
		t.Fatal(err)
	}
	many := make([]byte, 0, 1<<16)
	for i := range uint32(1025) {
		many = append(many, pair(i, "k"+string(rune('A'+i)))...)
	}
	refusals := []byte{}
	for i := range uint32(1 << 16) { // the second end of "k" that sends is refused; who does not read his refusals is cut off
		refusals = append(refusals, pair(i+2000, "k")...)
	}
	for name, b := range map[string][]byte{
		"not of a kind": {9, 0, 4, 0, 0, 0, 0}, "a match": {2, 0, 4, 0, 0, 0, 0}, "too long": {1, 0xff, 0xff}, "too short": {1, 0, 1, 0},
		"garbage": append([]byte{0xff}, garbage...), "too many": many, "refused": refusals, "number used": append(pair(1, "a"), pair(1, "b")...),
	} {
		c := stranger(t, cfg)
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, werr := io.Copy(c, bytes.NewReader(b))
		_, err := io.Copy(io.Discard, c)
		var ne net.Error
		if errors.As(errors.Join(werr, err), &ne) && ne.Timeout() {
			t.Errorf("%s: not cut off", name)
		}
	}
	udp, err := net.Dial("udp4", cfg.Coordinator.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, b := range [][]byte{nil, garbage[:10], garbage, {1}} {
		if _, err := udp.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	a, b := open(t, cfg), open(t, cfg)
	sent := make(chan error, 1)
	go func() {
		_, err := a.Send(t.Context(), "ours", bytes.NewReader(garbage), 1000)
		sent <- err
	}()
	if _, err := b.Receive(t.Context(), "ours", io.Discard); err != nil {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestSilentClient: who says nothing takes a slot, and no more; when the coordinator ends, so do all.
func TestSilentClient(t *testing.T) {
	cfg, stop, err := coordinate()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.Dial("tcp4", cfg.Coordinator.String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := stranger(t, cfg)
	n := open(t, cfg)
	waits := make(chan error, 1)
	go func() {
		_, err := n.Receive(context.Background(), "k", io.Discard)
		waits <- err
	}()
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, c := range []net.Conn{raw, c} {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	if err := <-waits; err == nil {
		t.Error("waits for a coordinator that is gone")
	}
}
