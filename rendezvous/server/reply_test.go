package server_test

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// TestOwnReplySubject: who sends himself a message with somebody else's subject for the reply must not
// be allowed to publish there.
func TestOwnReplySubject(t *testing.T) {
	mine, theirs := job.NewKey(), job.NewKey()
	s := start(t, server.Config{Allow: []job.ID{mine.ID(), theirs.ID()}, JetStream: true})
	victim := dial(t, s.URL(), theirs, "victim")
	nc, violations := raw(t, s.URL(), nkey(t, mine.Signer()))
	own := make(chan *nats.Msg, 8)
	inbox := rendezvous.SubjectInbox(mine.ID(), "x")
	if _, err := nc.ChanSubscribe(inbox, own); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{
		rendezvous.SubjectInbox(theirs.ID(), victim.id.Peer.String()), rendezvous.SubjectInboxAll(theirs.ID()),
		rendezvous.SubjectFor(rendezvous.VerbJoin, theirs.ID().String()), rendezvous.SubjectJoined(theirs.ID(), "a"),
		"$JS.API.INFO", "$JS.API.STREAM.CREATE.x", "$SRV.PING", rendezvous.SubjectAnnounce,
	} {
		if err := nc.PublishRequest(inbox, subject, nil); err != nil {
			t.Fatal(err)
		}
		got(t, own)
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		flush(t, nc)
		want(t, got(t, violations), nats.ErrPermissionViolation)
	}
}
