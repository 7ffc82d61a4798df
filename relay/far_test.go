package relay_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/relay"
)

// The round-trip time is known also of a relay that is farther away than the first try waits for, from the beginning or since its path got longer: so it is
// not doubted, and pinged once at a time.
func TestFarRelay(t *testing.T) {
	const far = 400 * time.Millisecond
	for _, c := range []struct {
		name       string
		first, now time.Duration // round trips
		settle     time.Duration // until it is known
		low, high  time.Duration // what is known then
	}{
		{"always", far, far, 20 * time.Second, far, far},
		{"very far", 2500 * time.Millisecond, 2500 * time.Millisecond, 20 * time.Second, 2500 * time.Millisecond, 2500 * time.Millisecond},
		{"much farther", 2 * oneWay, 3 * far, time.Minute, 2 * far, 3 * far},
		{"farther", 2 * oneWay, far, 20 * time.Second, far / 2, far},
		{"nearer", far, 2 * oneWay, 3 * time.Minute, 2 * oneWay, far / 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFarFake(t, goodToken(), c.first-2*oneWay)
				defer f.stop()
				defer time.Sleep(c.now) // for answers under way
				time.Sleep(2*c.first + time.Second)
				f.set(func() { f.far = c.now - 2*oneWay })
				time.Sleep(c.settle)
				f.since(relay.TypePing)
				f.since(relay.TypeBind)
				doubted := 0
				for range 600 {
					time.Sleep(100 * time.Millisecond)
					if !f.client.Usable() {
						doubted++
					}
				}
				if pings, binds := f.since(relay.TypePing), f.since(relay.TypeBind); doubted > 0 || len(pings) > 8 || len(binds) > 0 {
					t.Errorf("doubted %d times of 600, %d pings and %d binds in a minute", doubted, len(pings), len(binds))
				}
				if rtt := f.client.RTT(); rtt < c.low || rtt > c.high {
					t.Errorf("RTT %v, want %v to %v", rtt, c.low, c.high)
				}
			})
		})
	}
}

// A bind to a far relay ends well although something has the relay checked each second, as a path that keeps moving does.
func TestCheckWhileBinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarFake(t, goodToken(), 600*time.Millisecond-2*oneWay)
		defer f.stop()
		for range 10 {
			f.client.Check()
			time.Sleep(time.Second)
		}
		if s, err := f.client.State(); s != relay.StateBound {
			t.Errorf("%v: %v", s, err)
		}
	})
}

// What a process hears when it is thawed does not tell how far the relay is: one that dies then is doubted as soon as ever.
func TestThawIsNoRTT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, goodToken())
		defer f.stop()
		time.Sleep(time.Second)
		f.since(relay.TypePing)
		f.set(func() { f.freeze = 10 * time.Second }) // longer than a try waits, and than the answer takes
		time.Sleep(40 * time.Second)
		if pings := f.since(relay.TypePing); len(pings) == 0 {
			t.Fatal("no ping")
		}
		if rtt := f.client.RTT(); rtt != 2*oneWay {
			t.Errorf("RTT %v", rtt)
		}
	})
}
