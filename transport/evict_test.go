package transport

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
)

// Who calls now is not evicted for who calls a moment later: it has no link yet. Peers without a link that are idle for long are
// forgotten anyway.
func TestOldPeersMakeRoom(t *testing.T) {
	const old = 10
	synctest.Test(t, func(t *testing.T) {
		e := openOver(t, newCountingSocket())
		defer e.Close()
		// call admits a caller that dials by itself.
		call := func(p Peer) Peer {
			for p.ID == "" {
				other, err := ident.New()
				if err != nil {
					t.Fatal(err)
				}
				if !e.Dials(other.Peer) {
					p.ID = other.Peer
				}
			}
			if _, err := e.AdmitCaller(p, RelayOnly, false); err != nil {
				t.Fatal(err)
			}
			return p
		}
		var again Peer
		// peers counts those to which something was sent, and others, and tells whether again is among them.
		peers := func() (used, unused int, has bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			for _, r := range e.peers {
				if r.used.Load() != 0 {
					used++
				} else {
					unused++
				}
			}
			return used, unused, e.peers[again.ID] != nil
		}
		for range old {
			again = call(Peer{})
			for _, r := range e.hub.tables.Load().peers {
				r.used.Store(e.hub.now())
			}
		}
		time.Sleep(time.Minute)
		call(again)
		for range old - 1 {
			e.mu.Lock()
			e.evict()
			e.mu.Unlock()
			call(Peer{})
		}
		if used, unused, has := peers(); used != 1 || unused != old-1 || !has {
			t.Errorf("%d of %d newcomers are left, and %d of the old ones; the one that has called again: %v", unused, old-1, used, has)
		}
		time.Sleep(forgetAfter - time.Second)
		call(again)
		time.Sleep(5 * time.Second)
		if used, unused, has := peers(); used != 1 || unused != 0 || !has || len(e.hub.tables.Load().peers) != 1 {
			t.Errorf("%d peers are left after %v; the one that has called: %v", used+unused, forgetAfter, has)
		}
	})
}
