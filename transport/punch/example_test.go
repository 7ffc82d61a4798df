package punch_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fnwire/fnwire/transport/punch"
)

// Two Machines on one network punch. Datagrams take 10 ms; the owner's part is to carry them, to
// wake the Machines and to follow State.
func Example() {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	start := now
	key := [32]byte{1}
	addr := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:4000"), netip.MustParseAddrPort("192.0.2.2:4000")}
	machines := []*punch.Machine{
		punch.New(punch.Config{Key: key, Controlling: true}), punch.New(punch.Config{Key: key}),
	}
	type flight struct {
		to int
		p  punch.Packet
	}
	var flying []flight
	step := func(i int, ev punch.Event) {
		out := machines[i].Step(now, ev)
		for _, d := range out.Send {
			flying = append(flying, flight{1 - i, punch.Packet{From: addr[i], Data: d.Data}})
		}
		if out.Changed {
			s := machines[i].State()
			fmt.Printf("%3d ms, %d: %v, %v\n", now.Sub(start).Milliseconds(), i, s.Phase, s.Route)
		}
	}
	for i := range machines {
		step(i, punch.SetLocal{Candidates: addr[i : i+1]})
		step(i, punch.Start{Remote: addr[1-i : 2-i]})
	}
	for range 3 {
		now = now.Add(10 * time.Millisecond)
		landed := flying
		flying = nil
		for _, f := range landed {
			step(f.to, f.p)
		}
	}
	// Output:
	//   0 ms, 0: probing, relay
	//   0 ms, 1: probing, relay
	//  20 ms, 0: nominating, relay
	//  20 ms, 1: direct, direct
	//  30 ms, 0: direct, direct
}
