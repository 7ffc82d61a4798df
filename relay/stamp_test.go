package relay

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/token"
)

// A clock that was an hour ahead when a bind was made, and has been set right, is not held against the binds that follow.
func TestClockIsSetRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id, err := ident.New()
		if err != nil {
			t.Fatal(err)
		}
		var c *Client
		c = NewClient(Config{
			ID: "relay-1", Addr: netip.MustParseAddrPort("192.0.2.1:3478"), Token: make([]byte, token.Size), Identity: id,
			Send: func(_ netip.AddrPort, b []byte, _ int) error {
				m, ok := ParseBind(b)
				if !ok {
					return nil
				}
				answer := AppendChallenge(nil, Challenge{Nonce: m.Nonce})
				if time.Until(m.Time) > time.Minute {
					answer = AppendRefused(nil, Refused{Reason: ReasonClock, Nonce: m.Nonce})
				}
				time.AfterFunc(time.Millisecond, func() { c.HandlePacket(answer) })
				return nil
			},
		})
		nextStamp(c.backup.stamps, time.Now().Add(time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(10 * time.Second)
		if s, err := c.State(); s != StateUsable {
			t.Errorf("%v: %v", s, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // for answers under way
	})
}
