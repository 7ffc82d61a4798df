package server

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"sync/atomic"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/bucket"
)

// Users of the embedded NATS beside jobs and relays.
const (
	serviceUser = "rendezvous" // with a password made at each start
	storeUser   = "store"      // with the configured password, in an account of its own
)

// gate decides who may use the embedded NATS, and for what. Everything but stores is in one account;
// what keeps jobs apart there is that each may publish and subscribe only to subjects with its own ID.
type gate struct {
	admit   func(job.ID) bool
	service string                 // password of serviceUser
	store   string                 // password of storeUser; empty: no such user
	relay   string                 // nkey user of relays; empty: none
	stores  atomic.Pointer[stores] // of jobs; nil: none
	fnwire  *natsserver.Account
	storage *natsserver.Account
	refused func(why string)
}

// Check implements natsserver.Authentication.
func (g *gate) Check(c natsserver.ClientAuthentication) bool {
	u, why := g.user(c.GetOpts(), c.GetNonce())
	if u == nil {
		g.refused(why)
		return false
	}
	c.RegisterUser(u)
	return true
}

func (g *gate) user(o *natsserver.ClientOpts, nonce []byte) (user *natsserver.User, why string) {
	switch {
	case o.Nkey != "":
		pub, err := nkeys.Decode(nkeys.PrefixByteUser, []byte(o.Nkey))
		if err != nil || len(pub) != ed25519.PublicKeySize || !signedNonce(pub, nonce, o.Sig) {
			return nil, "signature"
		}
		switch id := job.ID(pub); {
		case g.relay != "" && o.Nkey == g.relay:
			return g.relayUser(), ""
		case !g.admit(id):
			return nil, "job"
		case o.Name == rendezvous.StoreConnection:
			return g.storeUser(id)
		default:
			return g.jobUser(id), ""
		}
	case o.Username == serviceUser && same(o.Password, g.service):
		return &natsserver.User{Username: serviceUser, Account: g.serviceAccount(o.Name)}, ""
	case o.Username == storeUser && g.store != "" && same(o.Password, g.store):
		return &natsserver.User{Username: storeUser, Account: g.storage}, ""
	case o.Username == "" && o.Token == "" && o.JWT == "":
		return nil, "anonymous"
	}
	return nil, "password"
}

// jobUser may ask the service on behalf of its job, write to its instances' inboxes, read those and answer.
// Whatever it may publish to carries the job's ID. It gets no leave to answer wherever a message asks it
// to (allow_responses), since it could send itself such a message.
func (g *gate) jobUser(id job.ID) *natsserver.User {
	inboxes := rendezvous.SubjectInbox(id, ">")
	replies := rendezvous.JobInbox(id) + ".>"
	publish := []string{inboxes, replies, rendezvous.SubjectAck(id.String(), ">")}
	for _, verb := range rendezvous.Verbs() {
		publish = append(publish, rendezvous.SubjectFor(verb, id.String()))
	}
	return &natsserver.User{
		Username: id.String(), Account: g.fnwire,
		Permissions: &natsserver.Permissions{
			Publish:   &natsserver.SubjectPermission{Allow: publish},
			Subscribe: &natsserver.SubjectPermission{Allow: []string{inboxes, replies}},
		},
	}
}

// storeUser is in an account that its job has for itself, and may use the bucket there.
func (g *gate) storeUser(id job.ID) (user *natsserver.User, why string) {
	s := g.stores.Load()
	if s == nil {
		return nil, "no stores"
	}
	account, err := s.account(id)
	if err != nil {
		s.log.Warn("rendezvous: no store for a job", "job", id, "err", err)
		return nil, "stores"
	}
	return &natsserver.User{
		Username: id.String(), Account: account,
		Permissions: &natsserver.Permissions{
			Publish:   &natsserver.SubjectPermission{Allow: bucket.Requests(bucket.Default)},
			Subscribe: &natsserver.SubjectPermission{Allow: []string{rendezvous.JobInbox(id) + ".>"}},
		},
	}, ""
}

// serviceAccount is where the service itself connects to: the account of a store, by its name, to make the bucket there.
func (g *gate) serviceAccount(name string) *natsserver.Account {
	if s := g.stores.Load(); s != nil && strings.HasPrefix(name, storePrefix) {
		if account, err := s.e.ns.LookupAccount(name); err == nil {
			return account
		}
	}
	return g.fnwire
}

func (g *gate) relayUser() *natsserver.User {
	return &natsserver.User{
		Username: "relay", Account: g.fnwire,
		Permissions: &natsserver.Permissions{
			Publish:   &natsserver.SubjectPermission{Allow: []string{rendezvous.SubjectAnnounce}},
			Subscribe: &natsserver.SubjectPermission{Allow: []string{rendezvous.RelayInbox + ".>"}},
		},
	}
}

func signedNonce(pub ed25519.PublicKey, nonce []byte, sig string) bool {
	b, err := base64.RawURLEncoding.DecodeString(sig)
	if err != nil {
		b, err = base64.StdEncoding.DecodeString(sig) // as nats-server does for older clients
	}
	return err == nil && len(nonce) > 0 && len(b) == ed25519.SignatureSize && ed25519.Verify(pub, nonce, b)
}

// same compares passwords in constant time whatever their lengths.
func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
