package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/gorilla/websocket"
)

// CheckHTTPS connects to where a relay takes frames over WebSocket and TLS, as a client would whose UDP is blocked,
// and returns the round-trip time of a WebSocket ping there. It binds nothing. addr is HOST:PORT, certSHA256
// the hash of the certificate, as announced. Errors tell what stands in the way, and match ErrPin.
func CheckHTTPS(ctx context.Context, addr string, certSHA256 []byte) (time.Duration, error) {
	b := &backup{c: new(Client), addr: addr, pin: certSHA256}
	conn, raw, err := b.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer raw.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(dialTimeout)
	}
	_ = raw.SetDeadline(deadline) // fails when closed, as the rest then does
	var rtt time.Duration
	began := time.Now()
	if err := conn.WriteControl(websocket.PingMessage, nil, deadline); err != nil {
		return 0, fmt.Errorf("relay: https://%s: ping: %w", addr, err)
	}
	conn.SetPongHandler(func(string) error {
		rtt = max(time.Since(began), 1)
		return raw.Close() // ends the read
	})
	if _, _, err = conn.NextReader(); rtt == 0 {
		return 0, fmt.Errorf("relay: https://%s: ping: %w", addr, err)
	}
	return rtt, nil
}
