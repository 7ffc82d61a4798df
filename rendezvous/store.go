package rendezvous

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/internal/job"
)

// StoreConnection is the name of a connection to the store of the job whose key it is made with. The rendezvous with an embedded NATS
// takes it to an account that the job has for itself, where there is no signalling.
const StoreConnection = "fnwire store"

// StoreConfig says how to connect to a store. URL or InProcess is required.
type StoreConfig struct {
	URL, Creds string
	InProcess  InProcess
	Key        *job.Key    // vouches for the connection if neither Creds nor the URL do; nil: nothing does
	OnError    func(error) // is told what NATS has to say beside its answers: of permissions that lack, and nats.ErrDisconnected; nil: nobody
}

// ConnectStore connects to a NATS server with JetStream. The connection is made anew as often as needed until it is closed; ctx bounds
// the first attempt. ErrUnreachable: nobody answers. ErrUnauthorized: the key or the user is refused, or the rendezvous keeps no store.
func ConnectStore(ctx context.Context, c StoreConfig) (*nats.Conn, error) {
	n := natsConfig{url: c.URL, creds: c.Creds, inProcess: c.InProcess, name: StoreConnection, inbox: nats.InboxPrefix + rand.Text()}
	if c.Key != nil {
		n.nkey = c.Key.Signer()
		n.inbox = JobInbox(job.ID(n.nkey.Public().(ed25519.PublicKey))) + "." + rand.Text()
	}
	if c.URL == "" && c.InProcess == nil {
		return nil, fmt.Errorf("rendezvous: store: %w: no URL", ErrUnreachable)
	}
	tell := c.OnError
	if tell == nil {
		tell = func(error) {}
	}
	n.options = []nats.Option{
		nats.ReconnectBufSize(-1), // what was not sent is an error at once, and tried again by who waits for it
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { tell(err) }),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { tell(nats.ErrDisconnected) }),
	}
	return connect(ctx, n)
}
