package rendezvous

import (
	"encoding/json"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/internal/job"
)

// OpenAt is Open at another time.
func OpenAt(key job.Key, e Envelope, self Self, now time.Time) (Hello, error) {
	h, err := open(key, e, self, now)
	if err != nil {
		return Hello{}, wrapEnvelope(err)
	}
	return h, nil
}

// SealUnchecked is what a member of the job could do who does not play by the rules.
func SealUnchecked(key job.Key, h Hello) (Envelope, error) {
	body, err := json.Marshal(h)
	return Envelope{
		V: 1, Job: h.Job, Kind: h.Kind, FromName: h.FromName, FromPeer: h.FromPeer, FromEpoch: h.FromEpoch,
		ToName: h.ToName, Body: string(body), MAC: envelopeMAC(key, h.Kind, string(body)),
	}, err
}

// LinkedReply answers an InboxAsk.
type LinkedReply = linkedReply

// ParseLinked reads one.
func ParseLinked(b []byte) (linked, ok bool) { return parseLinked(b) }

// Hear is what c does with a message that arrives in its inbox.
func (c *Client) Hear(message Inbox) error {
	b, err := json.Marshal(message)
	if err == nil {
		c.onInbox(&nats.Msg{Data: b})
	}
	return err
}

// LeaseOf is what a client that has none makes of a lease that it is told, in milliseconds.
func LeaseOf(ms int64) time.Duration {
	var c Client
	c.setLease(ms)
	return c.lease
}

// Issues are the times of a relay's announcements.
type Issues = issues

// Next is next.
func (i *issues) Next(now time.Time) time.Time { return i.next(now) }

// Answered is answered.
func (i *issues) Answered(err error) { i.answered(err) }
