package rendezvous

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Ask asks an instance, of which nothing has been heard since a time, whether it has a link with this one: for who has a link that
// is silent. Errors match ErrGone if the instance is not connected though this one has been all the time, so that it is not the
// rendezvous that was away. Any other error tells nothing: a process that is frozen does not answer, and is there.
func (c *Client) Ask(ctx context.Context, peer string, since time.Time) (linked bool, err error) {
	if err := CheckPeer(peer); err != nil {
		return false, fmt.Errorf("rendezvous: ask: %w", err)
	}
	data, err := json.Marshal(Inbox{V: 1, Type: InboxAsk, From: c.peerID})
	if err != nil {
		return false, fmt.Errorf("rendezvous: ask: %w", err)
	}
	m, err := c.exchange(ctx, SubjectInbox(c.jobID, peer), data)
	if err != nil {
		if err = c.natsError(err); errors.Is(err, ErrNoService) && c.connectedSince().Before(since) {
			err = ErrGone
		}
		return false, fmt.Errorf("rendezvous: ask %s: %w", peer, err)
	}
	linked, ok := parseLinked(m.Data)
	if !ok {
		return false, fmt.Errorf("rendezvous: ask %s: %w: unreadable answer", peer, ErrUnavailable)
	}
	return linked, nil
}

// parseLinked reads an answer, which on a NATS without users anybody may give.
func parseLinked(b []byte) (linked, ok bool) {
	var r linkedReply
	if len(b) > MaxRequest || json.Unmarshal(b, &r) != nil || r.V != 1 {
		return false, false
	}
	return r.Linked, true
}

func (c *Client) connectedSince() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.since
}
