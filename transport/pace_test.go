package transport

import (
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/transport/punch"
)

// A pause that was too long for one peer's path is not waited for by the others.
func TestPauseIsSharedByPeers(t *testing.T) {
	h, _, _, _, _ := testHub(t, 0, punch.RouteRelay)
	var peers []*remote
	for i := range byte(2) {
		r := newRemote(h, "other", ident.Short{3, i}, punch.New(punch.Config{Key: [32]byte{1 + i}}))
		h.update(func(t *tables) { t.peers[r.short] = r })
		peers = append(peers, r)
	}
	a, b := peers[0], peers[1]
	woken := func() bool {
		select {
		case <-b.kick:
			return true
		default:
			return false
		}
	}
	usual := b.traffic().KeepAlive
	a.notePause(punch.Output{Survived: usual})
	if woken() {
		t.Error("woken for no reason")
	}
	a.notePause(punch.Output{Died: usual})
	if got := b.traffic().KeepAlive; got != usual || woken() {
		t.Errorf("a pause that was survived before is blamed at once: %v", got)
	}
	a.notePause(punch.Output{Died: usual})
	if got := b.traffic().KeepAlive; got != usual*2/3 || !woken() {
		t.Errorf("the other peer waits %v", got)
	}
	h.pace.forget()
	if got := b.traffic().KeepAlive; got != usual || usual < 10*time.Second {
		t.Errorf("in another network: %v", got)
	}
}
