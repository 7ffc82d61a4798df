package transport

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/internal/ident"
)

// batchSocket can be told to send packets one by one.
type batchSocket struct {
	*countingSocket
	alone bool
}

func (s *batchSocket) Batches(on bool) { s.alone = !on }

// Packets are sent one by one for as long as it helps, and not because of congestion.
func TestSplit(t *testing.T) {
	const third, tenth = 3000, 1500 // of 10,000 packets
	for name, c := range map[string]struct {
		links int
		loses func(second int, alone bool) uint64 // the first link, in a second, of 10,000 packets

		fewest, most int // seconds of an hour in which packets are sent one by one
	}{
		"no loss":               {1, func(int, bool) uint64 { return 0 }, 0, 0},
		"batches are dropped":   {1, func(_ int, alone bool) uint64 { return lossIf(!alone, third) }, 3500, 3590},
		"with many links":       {1000, func(_ int, alone bool) uint64 { return lossIf(!alone, third) }, 3500, 3590},
		"until it is mended":    {1, func(s int, alone bool) uint64 { return lossIf(s < 60 && !alone, third) }, 600, 620},
		"congestion that ends":  {1, func(s int, _ bool) uint64 { return lossIf(s < 3, tenth) }, 1, 5},
		"and comes each minute": {1, func(s int, _ bool) uint64 { return lossIf(s%60 < 3, tenth) }, 1, 300},
		"that lasts":            {1000, func(int, bool) uint64 { return tenth }, 1, 300},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				socket := &batchSocket{countingSocket: newCountingSocket()}
				e := &Endpoint{hub: newHub(ident.Short{}, discard, socket, nil), log: discard}
				defer e.hub.close()
				links := make([]*Link, c.links)
				for i := range links {
					links[i] = &Link{}
				}
				var st, lossy quic.ConnectionStats
				alone := 0
				for s := range 3600 {
					time.Sleep(mindEvery)
					st.PacketsSent += 10000
					lossy.PacketsSent, lossy.PacketsLost = st.PacketsSent, lossy.PacketsLost+c.loses(s, socket.alone)
					if socket.alone {
						alone++
					}
					e.split.look(e, links[0], lossy)
					for _, l := range links[1:] {
						if e.split.link == nil { // else it asks whether that one has ended
							e.split.look(e, l, st)
						}
					}
				}
				if alone < c.fewest || alone > c.most {
					t.Errorf("one by one for %d s of an hour, want %d to %d", alone, c.fewest, c.most)
				}
			})
		})
	}
}

func lossIf(yes bool, n uint64) uint64 {
	if yes {
		return n
	}
	return 0
}
