package server

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/rendezvous"
)

// maxRelays bounds the relays that are handed out, each with a token, to every instance.
const maxRelays = 64

// registry knows the relays: those configured, which stay, and those announced, which expire.
type registry struct {
	mu   sync.Mutex // guards what follows
	rows map[string]relayRow
}

type relayRow struct {
	info   rendezvous.RelayInfo
	fixed  bool
	issued time.Time // of the last announcement
	until  time.Time
}

func newRegistry(fixed []rendezvous.RelayInfo) *registry {
	g := &registry{rows: make(map[string]relayRow)}
	for _, r := range fixed {
		g.rows[r.ID] = relayRow{info: r.Bare(), fixed: true}
	}
	return g
}

// add makes r a relay that stays, and reports whether instances should hear of it.
func (g *registry) add(r rendezvous.RelayInfo) (news bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old, had := g.rows[r.ID]
	if !had && len(g.rows) >= maxRelays {
		return false, fmt.Errorf("%d relays are known, no more fit", len(g.rows))
	}
	g.rows[r.ID] = relayRow{info: r.Bare(), fixed: true}
	return !had || !old.info.Same(&r), nil
}

// announce notes an authentic announcement. A repeated one must not keep a dead relay alive, so issue
// times must grow.
func (g *registry) announce(a rendezvous.Announcement, now time.Time) (news bool, refusal *rendezvous.RefusedError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expire(now)
	old, had := g.rows[a.Relay.ID]
	switch {
	case had && old.fixed:
		if !old.info.Same(&a.Relay) {
			return false, rendezvous.Refuse(rendezvous.CodeHeld, "relay %q is configured at the rendezvous with other addresses", a.Relay.ID)
		}
		return false, nil
	case had && !a.Issued.After(old.issued):
		return false, rendezvous.Refuse(rendezvous.CodeStale, "announcement was repeated")
	case !had && len(g.rows) >= maxRelays:
		return false, rendezvous.Refuse(rendezvous.CodeFull, "%d relays are known, no more fit", len(g.rows))
	}
	alive := had && now.Before(old.until)
	g.rows[a.Relay.ID] = relayRow{info: a.Relay.Bare(), issued: a.Issued, until: now.Add(rendezvous.AnnounceTTL)}
	return !alive || !old.info.Same(&a.Relay), nil
}

// expire needs g.mu. An expired row is kept until its announcement could no longer be repeated.
func (g *registry) expire(now time.Time) {
	for id, r := range g.rows {
		if !r.fixed && now.After(r.until.Add(2*rendezvous.MaxClockSkew)) {
			delete(g.rows, id)
		}
	}
}

// list returns the relays that are there, sorted by ID.
func (g *registry) list(now time.Time) []rendezvous.RelayInfo {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []rendezvous.RelayInfo
	for _, r := range g.rows {
		if r.fixed || now.Before(r.until) {
			out = append(out, r.info)
		}
	}
	slices.SortFunc(out, func(a, b rendezvous.RelayInfo) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

// minter makes relay tokens.
type minter struct {
	key ed25519.PrivateKey
	ttl time.Duration
}

// mint returns relays with a token each for one instance. Expiry moves in steps of half the TTL, and
// Ed25519 is deterministic, so a renewal brings the same token until a fresh one is worth a new bind.
func (m *minter) mint(relays []rendezvous.RelayInfo, j job.ID, pub ed25519.PublicKey, now time.Time) []rendezvous.RelayInfo {
	expires := m.expires(now)
	out := slices.Clone(relays)
	for i := range out {
		t := token.Token{Job: j, Peer: [32]byte(pub), Expires: expires}
		out[i].Token = token.Mint(m.key, out[i].ID, t)
		out[i].Expires = expires.UTC().Truncate(time.Second)
	}
	return out
}

func (m *minter) expires(now time.Time) time.Time {
	step := max(m.ttl/2, time.Second)
	return now.Truncate(step).Add(m.ttl + step)
}

// tag stands for the relays and for the tokens that an instance gets for them now. It is the same at every copy of the service.
func (m *minter) tag(relays []rendezvous.RelayInfo, now time.Time) (string, error) {
	b, err := json.Marshal(relays)
	if err != nil {
		return "", err
	}
	b = append(b, m.key[ed25519.SeedSize:]...) // the public half
	b = binary.BigEndian.AppendUint64(b, uint64(m.expires(now).Unix()))
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:12]), nil
}
